//! A private Postgres.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use rand::distr::Alphanumeric;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::account::{Account, copy_private, make_private_dir};
use crate::daemon::{Daemon, Sign};
use crate::error::StartError;
use crate::port::PortLease;
use crate::process::{ProcessSpec, Signal};
use crate::tools::{Tools, exclusively, major_version, run, silent};

/// Until the server answers: 0.1 s when new, more when it recovers from a crash.
const READY: Duration = Duration::from_secs(60);
/// Until the server has ended in order, with its last checkpoint.
const STOP: Duration = Duration::from_secs(20);
/// Until initdb or psql have ended.
const HELPER: Duration = Duration::from_secs(60);
/// New ports after a port was taken by a program that does not lease.
const PORT_ATTEMPTS: u32 = 5;
/// The password is in the data folder (which only the server's account can enter), so that a kept folder can be used
/// again.
const PASSWORD_FILE: &str = "rejoin-devstack.password";
const USER: &str = "postgres";

/// How to run Postgres.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where it keeps its data: made when it does not exist, used as it is when it does; a temporary folder, removed
    /// afterwards, when `None`. As root, every folder above it must be open to the user `postgres`.
    pub data_dir: Option<PathBuf>,
    /// Whether commits reach the disk. Off, a killed server still loses nothing; a power cut may lose everything.
    pub durable: bool,
    /// Connections that it accepts.
    pub max_connections: u32,
    /// Further server settings, as name and value.
    pub settings: Vec<(String, String)>,
    /// The folder of the programs; found or installed when `None`.
    pub programs: Option<PathBuf>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            data_dir: None,
            durable: false,
            max_connections: 200,
            settings: Vec::new(),
            programs: None,
        }
    }
}

/// A running Postgres on 127.0.0.1, with a random password; dropping it stops it and removes temporary data.
///
/// The switches take `&self`, so that a test can use them from another task.
#[derive(Debug)]
pub struct Postgres {
    daemon: Daemon,
    port: PortLease,
    programs: PathBuf,
    password: String,
    // The data is one level below the folder, as the log must not be in it.
    folder: PathBuf,
    temporary: Option<TempDir>,
}

impl Postgres {
    /// Starts a server and returns when it takes connections.
    ///
    /// # Errors
    /// When the programs cannot be had, the data folder cannot be used, or the server does not come up within 60 s
    /// (the error has the end of its log).
    pub async fn start(options: PostgresOptions) -> Result<Self, StartError> {
        let mut attempt = 1;
        loop {
            let options = options.clone();
            let server = tokio::task::spawn_blocking(move || Self::prepare(&options))
                .await
                .map_err(io::Error::other)??;
            match server.launch().await {
                Ok(()) => return Ok(server),
                Err(error) if error.is_port_taken() && attempt < PORT_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// One server for all tests of a process, which take a database each ([`Self::scratch_database`]): that takes 0.1 s
    /// instead of 0.5. It ends with the process.
    ///
    /// # Errors
    /// As [`Self::start`]; the next call tries again.
    pub async fn shared() -> Result<&'static Self, StartError> {
        // Nothing in it belongs to the runtime of the test that came first. Statics are not dropped: the watchdog
        // (see `process`) stops the server and removes its data.
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| Self::start(PostgresOptions::default()))
            .await
    }

    /// Everything up to the process itself. Blocks for some 0.1 s, the first time on a machine for seconds.
    fn prepare(options: &PostgresOptions) -> Result<Self, StartError> {
        let programs = match &options.programs {
            Some(programs) => programs.clone(),
            None => Tools::postgres_bin(&silent())?,
        };
        let account = Account::for_postgres()?;
        let (folder, temporary) = match &options.data_dir {
            Some(folder) => (std::path::absolute(folder)?, None),
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("rejoin-postgres-")
                    .tempdir()?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        make_private_dir(&folder, account)?;
        check_reachable(&folder, account)?;
        let data = folder.join("data");
        if !data.join("PG_VERSION").exists() {
            copy_private(&template(&programs, account)?, &data, account)?;
        }
        check_version(&data, &programs)?;
        let password = fs::read_to_string(data.join(PASSWORD_FILE))?
            .trim()
            .to_owned();
        let port = PortLease::take()?;
        let log = folder.join("postgres.log");
        let mut spec = ProcessSpec::new(programs.join("postgres"), log)
            .arg("-D")
            .arg(&data)
            .args(server_arguments(options, &port))
            .env("LC_ALL", "C")
            .orphan_signal(Signal::Quit);
        spec.account = account;
        spec.remove_after = temporary.as_ref().map(|folder| folder.path().to_path_buf());
        Ok(Self {
            daemon: Daemon::new("Postgres", spec),
            port,
            programs,
            password,
            folder,
            temporary,
        })
    }

    async fn launch(&self) -> Result<(), StartError> {
        let up = Sign::PostgresTakesConnections {
            addr: self.port.addr(),
        };
        self.daemon.start(READY, up).await
    }

    /// `postgres://…@127.0.0.1:<port>/postgres`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// The URL of another database of this server.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{}@{}/{database}",
            self.password,
            self.port.addr()
        )
    }

    /// Creates an empty database and returns its URL. The name: `a-z`, `0-9` and `_`, at most 63.
    ///
    /// # Errors
    /// When the name is not one, or is taken, or the server does not answer.
    pub async fn create_database(&self, name: &str) -> Result<String, StartError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            return Err(StartError::Io(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a database name"),
            )));
        }
        self.execute(&format!("CREATE DATABASE \"{name}\"")).await?;
        Ok(self.database_url(name))
    }

    /// Creates an empty database of a name that nobody else has, and returns its URL.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn scratch_database(&self) -> Result<String, StartError> {
        let number: u64 = rand::rng().random();
        self.create_database(&format!("scratch_{number:016x}"))
            .await
    }

    /// Runs SQL in the database `postgres` with psql and returns what it prints (rows only, unaligned).
    ///
    /// # Errors
    /// When psql or the statement fails.
    pub async fn execute(&self, sql: &str) -> Result<String, StartError> {
        let mut command = Command::new(self.programs.join("psql"));
        for name in [
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGDATABASE",
            "PGSERVICE",
            "PGOPTIONS",
            "PGPASSFILE",
        ] {
            command.env_remove(name);
        }
        command
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set",
                "ON_ERROR_STOP=1",
            ])
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &self.port.port().to_string(),
            ])
            .args(["--username", USER, "--dbname", "postgres", "--command", sql])
            .env("PGPASSWORD", &self.password)
            .current_dir("/");
        tokio::task::spawn_blocking(move || helper("psql", &mut command))
            .await
            .map_err(io::Error::other)?
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.port()
    }

    /// The process id of the server's first process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// The server's own folder, with `data` and `postgres.log`.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.folder
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// SIGKILL to all its processes: gone when this returns, the data stays and is recovered at the next start.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Ends connections and stops in order ("fast"); SIGKILL when it still runs after 20 s.
    pub async fn stop(&self) {
        self.daemon.stop(Signal::Interrupt, STOP).await;
    }

    /// Starts the server again on the same port and data; stops it in order first when it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<(), StartError> {
        self.stop().await;
        self.launch().await
    }

    /// SIGSTOP to all its processes: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.daemon.pause();
    }

    /// Ends a [`Self::pause`].
    pub fn resume(&self) {
        self.daemon.resume();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let ask = match self.temporary {
            // Without a last checkpoint, but in order: a killed server leaves a System V memory segment behind.
            Some(_) => Signal::Quit,
            None => Signal::Interrupt,
        };
        self.daemon.stop_blocking(ask, STOP);
    }
}

fn server_arguments(options: &PostgresOptions, port: &PortLease) -> Vec<String> {
    let mut settings = vec![
        ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
        ("port".to_owned(), port.port().to_string()),
        ("unix_socket_directories".to_owned(), String::new()),
        (
            "max_connections".to_owned(),
            options.max_connections.to_string(),
        ),
        ("logging_collector".to_owned(), "off".to_owned()),
    ];
    if !options.durable {
        for name in ["fsync", "full_page_writes"] {
            settings.push((name.to_owned(), "off".to_owned()));
        }
    }
    settings.extend(options.settings.iter().cloned());
    settings
        .into_iter()
        .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
        .collect()
}

/// A fresh data folder to copy, made once per machine and version: initdb takes some seconds, a copy 0.1 s.
fn template(programs: &Path, account: Option<Account>) -> Result<PathBuf, StartError> {
    let major = major_version(programs).unwrap_or(0);
    exclusively("postgres-template", |tools| {
        let template = tools.join(format!("pg-template-{major}"));
        if template.join(PASSWORD_FILE).exists() {
            return Ok(template);
        }
        // initdb runs under the server's account, which may be unable to enter the tools folder.
        let work = tempfile::Builder::new()
            .prefix("rejoin-initdb-")
            .tempdir()?;
        make_private_dir(work.path(), account)?;
        let password: String = rand::rng()
            .sample_iter(Alphanumeric)
            .take(24)
            .map(char::from)
            .collect();
        let (made, secret) = (work.path().join("data"), work.path().join("password"));
        write_secret(&secret, &password)?;
        if let Some(account) = account {
            account.own(&secret)?;
        }
        let mut command = Command::new(programs.join("initdb"));
        command
            .arg("--pgdata")
            .arg(&made)
            .arg("--pwfile")
            .arg(&secret)
            // In clear text over loopback, checked against a SCRAM secret: a handshake that costs the client nothing.
            .args([
                "--auth=password",
                "--username",
                USER,
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .env("LC_ALL", "C")
            .current_dir(work.path());
        if let Some(account) = account {
            use std::os::unix::process::CommandExt;
            command.uid(account.uid).gid(account.gid);
        }
        helper("initdb", &mut command)?;
        // Its password file is written last: it says that the copy is complete.
        if template.exists() {
            fs::remove_dir_all(&template)?;
        }
        copy_private(&made, &template, None)?;
        write_secret(&template.join(PASSWORD_FILE), &password)?;
        Ok(template)
    })
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.as_bytes())
}

fn helper(program: &str, command: &mut Command) -> Result<String, StartError> {
    run(command, HELPER).map_err(|output| StartError::Helper {
        program: program.to_owned(),
        output,
    })
}

/// As root: can the server's account get to the folder at all? A checkout below /root is the usual reason why not.
fn check_reachable(folder: &Path, account: Option<Account>) -> Result<(), StartError> {
    use std::os::unix::process::CommandExt;
    let Some(account) = account else {
        return Ok(());
    };
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "test -w \"$1\"", "devstack"])
        .arg(folder)
        .current_dir("/");
    command.uid(account.uid).gid(account.gid);
    run(&mut command, HELPER).map(drop).map_err(|_| StartError::DataDir {
        path: folder.to_path_buf(),
        reason: "Postgres refuses to run as root, and its own user cannot enter a folder above this one; \
                 choose a data folder elsewhere, or run this as another user"
            .to_owned(),
    })
}

fn check_version(data: &Path, programs: &Path) -> Result<(), StartError> {
    let has = fs::read_to_string(data.join("PG_VERSION"))?
        .trim()
        .to_owned();
    let runs = major_version(programs).unwrap_or(0).to_string();
    if has == runs {
        return Ok(());
    }
    Err(StartError::DataDir {
        path: data.to_path_buf(),
        reason: format!(
            "it was made by Postgres {has}, the programs here are {runs}: remove it or install {has}"
        ),
    })
}

/// Sends a start-up message and looks at the kind of answer: a request for a password means that the server is up,
/// an error (code 57P03) that it is starting or recovering.
pub(crate) async fn takes_connections(addr: std::net::SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await.ok()?;
        let body = b"\x00\x03\x00\x00user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(body.len() + 4).ok()?;
        stream.write_all(&length.to_be_bytes()).await.ok()?;
        stream.write_all(body).await.ok()?;
        stream.read_u8().await.ok()
    };
    timeout(Duration::from_secs(2), ask).await.ok().flatten() == Some(b'R')
}
