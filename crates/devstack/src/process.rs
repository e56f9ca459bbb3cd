//! Child processes that do not outlive this process, however it ends.
//!
//! A child starts as a small shell that first leaves a watchdog behind and then becomes the program (`exec`), so the
//! program is our direct child. The watchdog waits on a pipe whose other end only this process holds. A line
//! on it means that the child was reaped and there is nothing to do; the end of the pipe means that this
//! process is gone (by an exit, a panic or SIGKILL), and the watchdog ends the child.
//!
//! `PR_SET_PDEATHSIG` would not do: it fires when the spawning *thread* ends (a blocking-pool thread, here), is lost
//! when the user changes, and exists on Linux only.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

use crate::account::Account;

/// How often a condition is looked at while waiting for it.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Threads stop within microseconds, or when they leave the kernel (a sync to disk).
const STANDS_STILL: Duration = Duration::from_secs(2);

/// Arguments: the signal that asks the program to end, a folder to remove after it (may be empty), the program, its
/// arguments. `$$` is the program's process id, as the shell becomes the program. The watchdog is orphaned at
/// once (the inner `&`), as Postgres takes the death of an unknown child of its own for a crash.
const LAUNCH: &str = r#"
ask=$1; folder=$2; shift 2
exec 3<&0 </dev/null
(
  (
    exec >/dev/null 2>&1
    trap '' INT TERM HUP QUIT
    if read -r _ <&3; then exit 0; fi
    kill -s "$ask" $$
    n=0
    while [ $n -lt 50 ] && kill -0 $$; do sleep 0.1; n=$((n + 1)); done
    kill -s KILL $$
    if [ -n "$folder" ]; then rm -rf -- "$folder"; fi
  ) &
)
exec 3<&-
exec "$@"
"#;

/// A signal that can be sent to a [`Process`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End at once (SIGKILL).
    Kill,
    /// End in order (SIGTERM).
    Terminate,
    /// As Ctrl-C (SIGINT).
    Interrupt,
    /// Postgres: end at once, in order among its own processes (SIGQUIT).
    Quit,
    /// Stand still (SIGSTOP): to the network a host that hangs.
    Pause,
    /// Go on after [`Signal::Pause`] (SIGCONT).
    Resume,
}

impl Signal {
    const fn raw(self) -> rustix::process::Signal {
        use rustix::process::Signal as Raw;
        match self {
            Self::Kill => Raw::KILL,
            Self::Terminate => Raw::TERM,
            Self::Interrupt => Raw::INT,
            Self::Quit => Raw::QUIT,
            Self::Pause => Raw::STOP,
            Self::Resume => Raw::CONT,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Pause => "STOP",
            Self::Resume => "CONT",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    log: PathBuf,
    orphan_signal: Signal,
    pub(crate) remove_after: Option<PathBuf>,
    pub(crate) account: Option<Account>,
}

impl ProcessSpec {
    /// A program that runs in the folder of its log; its output is appended to `log`, its input is empty.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        let log = log.into();
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: log.parent().map_or_else(|| "/".into(), Path::to_path_buf),
            log,
            orphan_signal: Signal::Kill,
            remove_after: None,
            account: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs the program in another folder than its log's.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// The signal that the program gets when this process is gone. SIGKILL follows after 5 s.
    #[must_use]
    pub const fn orphan_signal(mut self, signal: Signal) -> Self {
        self.orphan_signal = signal;
        self
    }

    /// Where the output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of the output, at most `lines` of them from at most the last 64 KiB.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Option<ChildStdin>,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts the program in a process group of its own, so that Ctrl-C on the terminal reaches only this process,
    /// which then ends its children in the order it wants.
    ///
    /// # Errors
    /// When the log cannot be opened or nothing can be spawned. A program that does not exist shows as an
    /// early exit with status 127.
    pub fn spawn(spec: &ProcessSpec) -> io::Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", LAUNCH, "devstack"])
            .arg(spec.orphan_signal.name())
            .arg(
                spec.remove_after
                    .as_deref()
                    .unwrap_or_else(|| Path::new("")),
            )
            .arg(&spec.program)
            .args(&spec.args)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&spec.dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(account) = spec.account {
            command.uid(account.uid).gid(account.gid);
        }
        let mut child = command.spawn()?;
        let watchdog = child.stdin.take();
        Ok(Self {
            child,
            watchdog,
            exit: None,
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; does nothing when the process has ended.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.exited().is_some() {
            return Ok(());
        }
        Ok(kill_process(Pid::from_child(&self.child), signal.raw())?)
    }

    /// Sends a signal to the process and to all that descend from it.
    ///
    /// # Errors
    /// When the system refuses it for the process itself.
    pub fn signal_tree(&mut self, signal: Signal) -> io::Result<()> {
        let descendants = descendants(self.pid());
        self.signal(signal)?;
        for pid in descendants {
            send(pid, signal);
        }
        Ok(())
    }

    /// Stops the process and its descendants where they are, and returns when they stand still: the signal alone
    /// only asks for it, and a thread may still answer a request meanwhile.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn pause(&mut self) -> io::Result<()> {
        self.signal_tree(Signal::Pause)?;
        let end = Instant::now() + STANDS_STILL;
        for pid in descendants(self.pid()).into_iter().chain([self.pid()]) {
            while !stands_still(pid) && Instant::now() < end {
                pause_thread(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// How the process ended, or nothing while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.reaped(status);
        }
        self.exit
    }

    /// Kills the process (SIGKILL) and waits until it is gone, which takes milliseconds.
    pub fn kill(&mut self) {
        if self.exited().is_none()
            && self.child.kill().is_ok()
            && let Ok(status) = self.child.wait()
        {
            self.reaped(status);
        }
    }

    /// Waits for the process to end by itself; nothing when it still runs after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// As [`Self::wait`], for places that cannot await (`Drop`).
    pub(crate) fn wait_blocking(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            pause_thread(POLL);
        }
    }

    fn reaped(&mut self, status: ExitStatus) {
        self.exit = Some(status);
        if let Some(mut watchdog) = self.watchdog.take() {
            // Its failure means that the watchdog is gone, which is what the line is for.
            let _gone = watchdog.write_all(b"\n");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Blocks the calling thread.
#[expect(
    clippy::disallowed_methods,
    reason = "for Drop and for subprocesses on blocking threads, where nothing can be awaited"
)]
pub(crate) fn pause_thread(duration: Duration) {
    std::thread::sleep(duration);
}

/// The last lines of a log, at most `lines` of them from at most its last 64 KiB.
pub(crate) fn log_tail(path: &Path, lines: usize) -> String {
    const READ_BYTES: u64 = 64 * 1024;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(READ_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(READ_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Ok(bytes) = read() else {
        return format!("(no log at {})", path.display());
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The running processes that descend from `pid`, without itself.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| *child),
        );
    }
    found.remove(0);
    found
}

/// Every process with its parent, from /proc, or from `ps` where there is none (macOS).
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        return text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
            })
            .collect();
    };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // "pid (name) state parent …": the name may hold anything, so look behind its last parenthesis.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect()
}

/// Whether every thread of a process is stopped (or the process gone). Always so where there is no /proc to tell.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| {
            let state = stat
                .rsplit_once(')')
                .map_or("", |(_, rest)| rest.trim_start());
            state.starts_with(['T', 'Z', 'X'])
        })
    })
}

/// Sends a signal to a process that is not our child; one that is gone is not an error.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _gone = kill_process(pid, signal.raw());
    }
}
