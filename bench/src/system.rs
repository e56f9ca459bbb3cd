//! The systems that are measured: two servers each and what joins them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use devstack::{
    NatsOptions, NatsServer, PortLease, Postgres, PostgresOptions, Process, ProcessSpec, Signal,
    SyncInterval,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::measure::{self, Side};
use crate::swarm::{Dialect, Spec};

const SECRET: &str = "benchmark-secret-of-more-than-32-bytes";

/// Until a server answers.
const READY: Duration = Duration::from_secs(60);

/// Which system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Edges on a nats-server.
    Rejoin,
    /// Socket.IO with @socket.io/redis-adapter.
    Redis,
    /// Socket.IO with @socket.io/redis-streams-adapter and connection state recovery.
    Streams,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Rejoin, Self::Redis, Self::Streams];

    /// As tables call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rejoin => "Rejoin",
            Self::Redis => "Socket.IO, Redis",
            Self::Streams => "Socket.IO, Streams + CSR",
        }
    }

    pub(crate) const fn dialect(self) -> Dialect {
        match self {
            Self::Rejoin => Dialect::Rejoin,
            Self::Redis | Self::Streams => Dialect::SocketIo,
        }
    }
}

/// What to start beyond the usual.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) servers: usize,
    /// When NATS syncs. The default is the server's own, because Redis does not sync either.
    pub(crate) sync: SyncInterval,
    /// Whether Rejoin has a Postgres.
    pub(crate) archive: bool,
    /// More lines of `[edge.limits]` and `[backplane]`.
    pub(crate) limits: String,
    pub(crate) backplane: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            servers: 2,
            sync: SyncInterval::ServerDefault,
            archive: false,
            limits: String::new(),
            backplane: String::new(),
        }
    }
}

enum Broker {
    Nats(NatsServer),
    Redis {
        process: Process,
        spec: ProcessSpec,
        port: PortLease,
    },
}

struct Server {
    process: Process,
    port: PortLease,
}

/// A running system; ends with it.
pub(crate) struct System {
    pub(crate) kind: Kind,
    // In this order, so that servers end before what they need.
    servers: Vec<Server>,
    broker: Broker,
    _postgres: Option<Postgres>,
    _folder: TempDir,
    runtime: Runtime,
}

impl System {
    /// Starts it on the servers' half of the machine and waits until it takes connections.
    pub(crate) fn start(kind: Kind, setup: &Setup) -> anyhow::Result<Self> {
        measure::pin(Side::Servers)?;
        let started = Self::start_here(kind, setup);
        measure::pin(Side::Clients)?;
        started.with_context(|| format!("starting {}", kind.name()))
    }

    fn start_here(kind: Kind, setup: &Setup) -> anyhow::Result<Self> {
        // Current-thread: what it spawns inherits this thread's processors.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let folder = tempfile::Builder::new().prefix("rejoin-bench-").tempdir()?;
        let postgres = match setup.archive {
            true => Some(
                runtime.block_on(async { Postgres::start(PostgresOptions::default()).await })?,
            ),
            false => None,
        };
        let broker = match kind {
            Kind::Rejoin => {
                let options = NatsOptions {
                    sync: setup.sync,
                    ..NatsOptions::default()
                };
                Broker::Nats(runtime.block_on(async { NatsServer::start(options).await })?)
            }
            Kind::Redis | Kind::Streams => start_redis(folder.path())?,
        };
        let mut system = Self {
            kind,
            servers: Vec::new(),
            broker,
            _postgres: postgres,
            _folder: folder,
            runtime,
        };
        let config = system._folder.path().join("edge.toml");
        if let Broker::Nats(nats) = &system.broker {
            let store = system._postgres.as_ref().map(Postgres::url);
            std::fs::write(&config, configuration(setup, &nats.url(), store.as_deref()))?;
        }
        for number in 0..setup.servers {
            let server = system.start_server(number, &config)?;
            system.servers.push(server);
        }
        system.wait_ready()?;
        Ok(system)
    }

    fn start_server(&self, number: usize, config: &Path) -> anyhow::Result<Server> {
        let port = PortLease::take()?;
        let log = self._folder.path().join(format!("server-{number}.log"));
        let spec = match &self.broker {
            Broker::Nats(_) => ProcessSpec::new(rejoin_program()?, log)
                .arg("serve")
                .arg("--config")
                .arg(config)
                .env("REJOIN_EDGE__NAME", format!("edge-{number}"))
                .env("REJOIN_EDGE__LISTEN__ADDRESS", port.addr().to_string()),
            Broker::Redis { port: redis, .. } => {
                let kind = if self.kind == Kind::Streams {
                    "streams"
                } else {
                    "redis"
                };
                ProcessSpec::new("node", log)
                    .arg(peers_folder().join("server.mjs"))
                    .arg(port.port().to_string())
                    .arg(kind)
                    .arg(format!("redis://{}", redis.addr()))
                    .arg(SECRET)
                    .env("NODE_ENV", "production")
            }
        };
        Ok(Server {
            process: Process::spawn(&spec)?,
            port,
        })
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + READY;
        for number in 0..self.servers.len() {
            while !self.answers(number) {
                if Instant::now() > end || self.servers[number].process.exited().is_some() {
                    let log = self._folder.path().join(format!("server-{number}.log"));
                    let log = std::fs::read_to_string(log).unwrap_or_default();
                    bail!("server {number} does not answer:\n{log}");
                }
                self.pause(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn answers(&self, number: usize) -> bool {
        use std::io::{Read, Write};
        let ask = || -> std::io::Result<bool> {
            let mut stream = std::net::TcpStream::connect(self.address(number))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let path = if self.kind == Kind::Rejoin {
                "/readyz"
            } else {
                "/socket.io/?EIO=4&transport=websocket"
            };
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            // Socket.IO answers 400 to what is no upgrade; that it answers is enough.
            Ok(self.kind != Kind::Rejoin || &answer == b"HTTP/1.1 200")
        };
        ask().unwrap_or(false)
    }

    /// Where server `number` listens.
    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        self.servers[number % self.servers.len()].port.addr()
    }

    /// The servers' process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers
            .iter()
            .map(|server| server.process.pid())
            .collect()
    }

    /// Memory that is the servers' own, together, in bytes: see [`measure::memory_bytes`].
    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        self.pids().into_iter().map(measure::memory_bytes).sum()
    }

    /// The servers' highest resident memory, summed, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        self.pids()
            .into_iter()
            .map(measure::peak_memory_bytes)
            .sum()
    }

    /// The broker's.
    pub(crate) fn broker_pid(&self) -> u32 {
        match &self.broker {
            Broker::Nats(nats) => nats.pid().unwrap_or_default(),
            Broker::Redis { process, .. } => process.pid(),
        }
    }

    /// Where its NATS is, if it has one.
    pub(crate) fn nats_url(&self) -> Option<String> {
        match &self.broker {
            Broker::Nats(nats) => Some(nats.url()),
            Broker::Redis { .. } => None,
        }
    }

    /// SIGKILL to a server.
    pub(crate) fn kill_server(&mut self, number: usize) {
        self.servers[number].process.kill();
    }

    /// Stops the broker in order, as for an update.
    pub(crate) fn stop_broker(&mut self) -> anyhow::Result<()> {
        match &mut self.broker {
            Broker::Nats(nats) => self.runtime.block_on(async { nats.stop().await }),
            Broker::Redis { process, .. } => {
                process.signal(Signal::Terminate)?;
                self.runtime
                    .block_on(async { process.wait(Duration::from_secs(5)).await });
                process.kill();
            }
        }
        Ok(())
    }

    /// Starts it again, on the same port and data.
    pub(crate) fn restart_broker(&mut self) -> anyhow::Result<()> {
        measure::pin(Side::Servers)?;
        match &mut self.broker {
            Broker::Nats(nats) => self.runtime.block_on(async { nats.restart().await })?,
            Broker::Redis { process, spec, .. } => *process = Process::spawn(spec)?,
        }
        measure::pin(Side::Clients)
    }

    /// Blocks this thread.
    pub(crate) fn pause(&self, duration: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(duration).await });
    }

    /// Waits until servers and broker have nothing to do: under 5% of a processor for a fifth of a second.
    pub(crate) fn wait_quiet(&self, timeout: Duration) {
        const SLICE: Duration = Duration::from_millis(200);
        let mut pids = self.pids();
        pids.push(self.broker_pid());
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            let before = measure::cpu_time_of(&pids);
            self.pause(SLICE);
            if measure::cpu_time_of(&pids).saturating_sub(before) < SLICE / 20 {
                return;
            }
        }
    }

    /// A client of server `number` that is in `rooms`.
    pub(crate) fn client(
        &self,
        number: usize,
        user: &str,
        rooms: &[String],
    ) -> anyhow::Result<Spec> {
        client_of(self.address(number), user, rooms)
    }
}

/// A client of a server, whoever started that.
pub(crate) fn client_of(server: SocketAddr, user: &str, rooms: &[String]) -> anyhow::Result<Spec> {
    Ok(Spec {
        server,
        token: token(user)?,
        rooms: rooms.to_vec(),
        from: None,
    })
}

/// A token that both kinds of system accept: of a user who may do everything in rooms and the own inbox.
fn token(user: &str) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let channels = [format!("user:{user}"), "room:*".to_owned()];
    let claims = serde_json::json!({
        "sub": user,
        "exp": now + 24 * 3_600,
        "rejoin": { "subscribe": channels, "publish": ["room:*", "user:*"] },
    });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}

fn start_redis(folder: &Path) -> anyhow::Result<Broker> {
    let port = PortLease::take()?;
    // Debian's settings but for the place: it saves when it is stopped in order.
    let spec = ProcessSpec::new("redis-server", folder.join("redis.log"))
        .args(["--bind", "127.0.0.1", "--port"])
        .arg(port.port().to_string())
        .arg("--dir")
        .arg(folder);
    let process = Process::spawn(&spec)?;
    let end = Instant::now() + READY;
    while std::net::TcpStream::connect(port.addr()).is_err() {
        if Instant::now() > end {
            bail!("redis-server does not answer:\n{}", spec.log_tail(20));
        }
        std::thread::yield_now();
    }
    Ok(Broker::Redis {
        process,
        spec,
        port,
    })
}

/// The program next to this one.
fn rejoin_program() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os("REJOIN_BIN") {
        Some(program) => PathBuf::from(program),
        None => std::env::current_exe()?.with_file_name("rejoin"),
    };
    if !program.exists() {
        bail!("{} is not there; `make bench` builds it", program.display());
    }
    Ok(program)
}

fn peers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn configuration(setup: &Setup, nats: &str, store: Option<&str>) -> String {
    let Setup {
        limits, backplane, ..
    } = setup;
    let store = store
        .map(|url| format!("url = \"{url}\""))
        .unwrap_or_default();
    format!(
        r#"
[log]
filter = "warn"

# The load comes from a few addresses, and all that is published from one user.
[edge.admission]
connects_per_s = 0
publishes_per_user_per_s = 0

[edge.limits]
{limits}

[[edge.auth.keys]]
alg = "HS256"
secret = "{SECRET}"

[store]
{store}

[backplane]
urls = ["{nats}"]
{backplane}
"#
    )
}
