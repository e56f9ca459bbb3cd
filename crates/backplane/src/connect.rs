//! The connections, and everything that hangs on them.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use protocol::Channel;
use tokio::sync::Semaphore;

use crate::api::{self, ApiError, code};
use crate::archive::StreamArchiveSource;
use crate::config::{BackplaneConfig, ConfigError};
use crate::fleet::{self, FleetBus};
use crate::link::Link;
use crate::lives::{Life, Witnesses};
use crate::log::StreamLog;
use crate::monitor::AbortOnDrop;
use crate::names::Names;
use crate::publisher::Publisher;
use crate::publisher::lane::Lane;
use crate::shard::{Shard, StreamState};
use crate::signals::{ControlBus, SignalBus};
use crate::stats::{BackplaneStats, Counters};
use crate::tail::{StreamTail, TailStart};
use crate::version::{OLDEST_SERVER, ServerVersion};
use delivery::stats::{Histogram, LATENCY_US};

/// Why the backplane could not be reached. Whether trying again helps is for
/// [`ConnectError::is_retryable`] to say; the caller decides how long.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No server answered.
    #[error("no NATS server at {urls}: {reason}")]
    Unreachable {
        /// The configured servers.
        urls: String,
        /// What the last attempt ended with.
        reason: String,
    },
    /// The server does not let us in.
    #[error("NATS refused the credentials in backplane.auth: {reason}")]
    Unauthorized {
        /// What the server or the credentials file said.
        reason: String,
    },
    /// The server lacks what Rejoin needs.
    #[error("nats-server {found} is too old, {needed} or newer is needed")]
    ServerTooOld {
        /// The server's version.
        found: String,
        /// The oldest version that is accepted.
        needed: String,
    },
    /// The server keeps no streams.
    #[error("JetStream is not available on this NATS server: {reason}")]
    NoJetStream {
        /// What the server said.
        reason: String,
    },
}

impl ConnectError {
    /// Whether the same call may succeed later without anybody changing the
    /// configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoJetStream { .. } => true,
            Self::Config(_) | Self::Unauthorized { .. } | Self::ServerTooOld { .. } => false,
        }
    }
}

/// A handle to the backplane, cheap to clone. The connections close when the
/// last handle and everything made from it are gone.
#[derive(Clone)]
pub struct Backplane {
    pub(crate) inner: Arc<Inner>,
}

/// What all parts share.
pub(crate) struct Inner {
    pub(crate) config: BackplaneConfig,
    pub(crate) names: Names,
    /// Publishes, signals and control messages.
    pub(crate) publish: Link,
    /// Deliveries to tails and to the archiver.
    pub(crate) tail: Link,
    /// Reads of older messages, and questions about streams: bulk data must
    /// not stand in the way of an acknowledgement or a live message.
    pub(crate) catchup: Link,
    pub(crate) shards: Vec<Shard>,
    /// One per shard.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) counters: Arc<Counters>,
    /// From a publish being asked for to its acknowledgement, in microseconds.
    pub(crate) publish_us: Histogram,
    pub(crate) publish_permits: Semaphore,
    pub(crate) catchup_permits: Semaphore,
    pub(crate) monitor: OnceLock<AbortOnDrop>,
    /// Of the process's heartbeats: a restarted edge keeps its name only.
    pub(crate) process: u64,
    /// What other edges say, where an archiver needs it.
    pub(crate) witnesses: Mutex<Witnesses>,
    pub(crate) listener: OnceLock<AbortOnDrop>,
}

impl Inner {
    /// The state of a shard's stream by its leader, asked after the call began.
    pub(crate) async fn fresh(&self, shard: &Shard) -> Result<StreamState, ApiError> {
        let timeout = self.config.request_timeout();
        shard.fresh(&self.catchup.client, timeout).await
    }

    /// How far this process has got in each life of the streams; see
    /// [`crate::lives`].
    pub(crate) fn lives(&self, leaving: bool) -> Vec<Life> {
        let reports = self.shards.iter().map(|shard| shard.report(leaving));
        reports.flatten().collect()
    }

    /// The shard with this number. Callers take numbers below `shards`.
    pub(crate) fn shard(&self, number: u16) -> &Shard {
        &self.shards[usize::from(number)]
    }
}

impl Backplane {
    /// Connects to the first server that answers and checks that it can do
    /// what is needed. A connection that is lost later repairs itself.
    pub async fn connect(config: BackplaneConfig) -> Result<Self, ConnectError> {
        config.validate()?;
        let counters = Arc::new(Counters::default());
        let link = |role: &'static str| Link::connect(&config, role, counters.clone());
        let publish = link("publish").await.map_err(|e| refused(&config, &e))?;
        check_server(&publish, &config).await?;
        let tail = link("tail").await.map_err(|e| refused(&config, &e))?;
        let catchup = link("catch-up").await.map_err(|e| refused(&config, &e))?;
        let names = Names::new(&config.prefix, config.shards);
        let shards = (0..config.shards)
            .map(|number| Shard::new(number, names.stream(number)))
            .collect();
        // A batch is many messages' work for the server.
        let (timeout, capacity) = (config.request_timeout() * 3, config.publish_in_flight);
        let lanes = (0..config.shards)
            .map(|_| Lane::new(&publish, timeout, capacity, &counters))
            .collect();
        let inner = Arc::new(Inner {
            publish_permits: Semaphore::new(config.publish_in_flight),
            catchup_permits: Semaphore::new(config.catchup_in_flight),
            monitor: OnceLock::new(),
            process: rand::random(),
            witnesses: Mutex::default(),
            listener: OnceLock::new(),
            config,
            names,
            publish,
            tail,
            catchup,
            shards,
            lanes,
            counters,
            publish_us: Histogram::new(&LATENCY_US),
        });
        Ok(Self { inner })
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.inner.config.shards
    }

    /// When the present life of a channel's stream began, in milliseconds
    /// since the Unix epoch: it recognises no id that was published before.
    /// `None` until the stream was seen.
    pub fn began_ms(&self, channel: &Channel) -> Option<i64> {
        let shard = self.inner.shard(channel.shard(self.inner.config.shards));
        shard.known().map(|state| state.began_ms)
    }

    /// Whether all connections are up.
    pub fn connected(&self) -> bool {
        let inner = &self.inner;
        inner.publish.is_up() && inner.tail.is_up() && inner.catchup.is_up()
    }

    /// What has been done so far.
    pub fn stats(&self) -> BackplaneStats {
        self.inner.counters.snapshot()
    }

    /// From a publish being asked for to its acknowledgement, retries and
    /// waiting included, in microseconds.
    pub fn publish_us(&self) -> &Histogram {
        &self.inner.publish_us
    }

    /// Whether each connection is up, by what it is for.
    pub fn links(&self) -> [(&'static str, bool); 3] {
        let inner = &self.inner;
        [
            ("publish", inner.publish.is_up()),
            ("tail", inner.tail.is_up()),
            ("catch_up", inner.catchup.is_up()),
        ]
    }

    /// Stores messages.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.inner.clone())
    }

    /// The new messages of a shard below [`Backplane::shards`].
    pub fn tail(&self, shard: u16, start: TailStart) -> StreamTail {
        StreamTail::new(self.inner.clone(), shard, start)
    }

    /// The messages that the streams still hold.
    pub fn stream_log(&self) -> StreamLog {
        StreamLog::new(self.inner.clone())
    }

    /// A shard, below [`Backplane::shards`], as the archiver reads it. Only
    /// one at a time may be in use in the whole deployment.
    pub fn archive_source(&self, shard: u16) -> StreamArchiveSource {
        fleet::listen(&self.inner);
        StreamArchiveSource::new(self.inner.clone(), shard)
    }

    /// What is never stored, between users.
    pub fn signals(&self) -> SignalBus {
        SignalBus::new(self.inner.clone())
    }

    /// What is never stored, between edges.
    pub fn controls(&self) -> ControlBus {
        ControlBus::new(self.inner.clone())
    }

    /// The other edges, and operators.
    pub fn fleet(&self) -> FleetBus {
        FleetBus::new(self.inner.clone())
    }
}

fn refused(config: &BackplaneConfig, error: &async_nats::ConnectError) -> ConnectError {
    let reason = error.to_string();
    match error.kind() {
        async_nats::ConnectErrorKind::Authentication
        | async_nats::ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Unauthorized { reason }
        }
        async_nats::ConnectErrorKind::ServerParse
        | async_nats::ConnectErrorKind::Dns
        | async_nats::ConnectErrorKind::TimedOut
        | async_nats::ConnectErrorKind::Tls
        | async_nats::ConnectErrorKind::Io
        | async_nats::ConnectErrorKind::MaxReconnects => ConnectError::Unreachable {
            urls: config.urls.join(", "),
            reason,
        },
    }
}

async fn check_server(link: &Link, config: &BackplaneConfig) -> Result<(), ConnectError> {
    let found = link.client.server_info().version;
    if ServerVersion::parse(&found).is_none_or(|version| version < OLDEST_SERVER) {
        return Err(ConnectError::ServerTooOld {
            found,
            needed: OLDEST_SERVER.to_string(),
        });
    }
    let account: Result<serde_json::Value, ApiError> = api::call(
        &link.client,
        "INFO".into(),
        &serde_json::Value::Null,
        config.request_timeout(),
    )
    .await;
    match account {
        Ok(_) => Ok(()),
        Err(error) => Err(ConnectError::NoJetStream {
            reason: match &error {
                e if e.is(code::JETSTREAM_NOT_ENABLED) => "it is not enabled".into(),
                e if e.is(code::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT) => {
                    "it is not enabled for this account".into()
                }
                other => other.to_string(),
            },
        }),
    }
}
