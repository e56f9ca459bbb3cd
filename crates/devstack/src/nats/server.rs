//! One nats-server.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use tempfile::TempDir;

use crate::daemon::{Daemon, Sign};
use crate::error::StartError;
use crate::port::PortLease;
use crate::process::{ProcessSpec, Signal};
use crate::tools::{Tools, silent};

/// Until a server answers: milliseconds when new, more when it recovers a large store.
const READY: Duration = Duration::from_secs(30);
/// Until a server has ended in order. It waits for its clients (lame duck mode is not used), so this is short.
const STOP: Duration = Duration::from_secs(5);
/// New ports after a port was taken by a program that does not lease.
const PORT_ATTEMPTS: u32 = 5;

/// When a stream's file is synced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncInterval {
    /// The server's default: a power cut may lose what the last two minutes acknowledged (a killed process loses nothing).
    #[default]
    ServerDefault,
    /// Before each ack.
    Always,
}

/// How to run a nats-server.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Where it keeps its streams, configuration and log; a temporary folder, removed afterwards, when `None`.
    pub data_dir: Option<PathBuf>,
    /// When stream files are synced.
    pub sync: SyncInterval,
    /// First token of Rejoin's subjects.
    pub prefix: String,
    /// Streams per deployment (P): `<prefix>.pub.<ns>.<id>` is mapped to `<prefix>.msg.<p>.<ns>.<id>`. 0 for no mapping,
    /// which a server of operators and accounts does not allow.
    pub shards: u16,
    /// Whether to serve the monitoring pages; see [`NatsServer::monitor_url`].
    pub monitoring: bool,
    /// Text appended to the configuration file.
    pub extra_config: String,
    /// Whether `extra_config` lets nobody in without TLS: then a greeting is all that is waited for.
    pub requires_tls: bool,
    /// The program; found or installed when `None`.
    pub program: Option<PathBuf>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            data_dir: None,
            sync: SyncInterval::ServerDefault,
            prefix: "rejoin".to_owned(),
            shards: 1,
            monitoring: false,
            extra_config: String::new(),
            requires_tls: false,
            program: None,
        }
    }
}

/// A running nats-server on 127.0.0.1; dropping it kills it and removes temporary data.
///
/// The switches take `&self`, so that a test can use them from another task.
#[derive(Debug)]
pub struct NatsServer {
    daemon: Daemon,
    name: String,
    port: PortLease,
    monitor: Option<PortLease>,
    folder: PathBuf,
    temporary: Option<TempDir>,
}

impl NatsServer {
    /// Starts a server and returns when its JetStream answers.
    ///
    /// # Errors
    /// When the program cannot be had, or does not come up within 30 s (the error has the end of its log).
    pub async fn start(options: NatsOptions) -> Result<Self, StartError> {
        let mut attempt = 1;
        loop {
            let port = PortLease::take()?;
            let server = Self::prepare(&options, port, None).await?;
            let up = match options.requires_tls {
                true => server.greets(),
                false => server.jetstream_answers(),
            };
            match server.launch(up).await {
                Ok(()) => return Ok(server),
                Err(error) if error.is_port_taken() && attempt < PORT_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything up to the process itself.
    pub(super) async fn prepare(
        options: &NatsOptions,
        port: PortLease,
        cluster: Option<&str>,
    ) -> Result<Self, StartError> {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => tokio::task::spawn_blocking(|| Tools::nats_server(&silent()))
                .await
                .map_err(std::io::Error::other)??,
        };
        let (folder, temporary) = match &options.data_dir {
            Some(folder) => {
                fs::create_dir_all(folder)?;
                (std::path::absolute(folder)?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("rejoin-nats-").tempdir()?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        let monitor = options.monitoring.then(PortLease::take).transpose()?;
        // Unique, so that an answer on the port is known to come from this very server.
        let name = format!("devstack-{:016x}", rand::rng().random::<u64>());
        let config = folder.join("nats.conf");
        let text = configuration(options, &name, &port, monitor.as_ref(), &folder, cluster);
        fs::write(&config, text)?;
        let mut spec = ProcessSpec::new(program, folder.join("nats.log"))
            .arg("--config")
            .arg(&config);
        spec.remove_after = temporary.as_ref().map(|folder| folder.path().to_path_buf());
        Ok(Self {
            daemon: Daemon::new("nats-server", spec.orphan_signal(Signal::Terminate)),
            name,
            port,
            monitor,
            folder,
            temporary,
        })
    }

    /// Starts the process and waits until the sign shows.
    pub(super) async fn launch(&self, up: Sign) -> Result<(), StartError> {
        self.daemon.start(READY, up).await
    }

    /// Its port answers. All that can be asked of a cluster's first server: there is no JetStream without a leader.
    pub(super) fn greets(&self) -> Sign {
        Sign::NatsGreets {
            addr: self.port.addr(),
            name: self.name.clone(),
        }
    }

    /// Its JetStream answers (in a cluster: has a leader).
    pub(super) fn jetstream_answers(&self) -> Sign {
        Sign::JetStreamAnswers {
            addr: self.port.addr(),
            name: self.name.clone(),
        }
    }

    /// `nats://127.0.0.1:<port>`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.addr())
    }

    /// The client port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.port()
    }

    /// `http://127.0.0.1:<port>` of the monitoring pages, when asked for.
    #[must_use]
    pub fn monitor_url(&self) -> Option<String> {
        self.monitor
            .as_ref()
            .map(|port| format!("http://{}", port.addr()))
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// The server's own folder: `jetstream` (its store), `nats.conf`, `nats.log`. While the server is stopped, a test may
    /// change what is in it.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.folder
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// SIGKILL: the process is gone when this returns, its data stays.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// SIGTERM, and SIGKILL when it still runs after 5 s.
    pub async fn stop(&self) {
        self.daemon.stop(Signal::Terminate, STOP).await;
    }

    /// Starts the server again on the same port and data; stops it in order first when it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<(), StartError> {
        self.stop().await;
        self.launch(self.jetstream_answers()).await
    }

    /// SIGSTOP: connections stay open and nothing answers, like a host that hangs.
    pub fn pause(&self) {
        self.daemon.pause();
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.daemon.resume();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        match self.temporary {
            // Its data goes anyway.
            Some(_) => self.daemon.kill(),
            None => self.daemon.stop_blocking(Signal::Terminate, STOP),
        }
    }
}

fn configuration(
    options: &NatsOptions,
    name: &str,
    port: &PortLease,
    monitor: Option<&PortLease>,
    folder: &Path,
    cluster: Option<&str>,
) -> String {
    let mut text = format!("server_name: {name}\nlisten: \"{}\"\n", port.addr());
    if let Some(monitor) = monitor {
        push(&mut text, format_args!("http: \"{}\"\n", monitor.addr()));
    }
    let sync = match options.sync {
        SyncInterval::ServerDefault => "",
        SyncInterval::Always => "  sync_interval: always\n",
    };
    push(
        &mut text,
        format_args!(
            "jetstream {{\n  store_dir: \"{}\"\n{sync}}}\n",
            folder.display()
        ),
    );
    let (prefix, shards) = (&options.prefix, options.shards);
    if shards > 0 {
        push(
            &mut text,
            format_args!(
                "mappings = {{\n  \"{prefix}.pub.*.*\": \
                 \"{prefix}.msg.{{{{partition({shards},1,2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}\"\n}}\n"
            ),
        );
    }
    text.push_str(cluster.unwrap_or_default());
    text.push_str(&options.extra_config);
    text.push('\n');
    text
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _always_ok = text.write_fmt(part);
}
