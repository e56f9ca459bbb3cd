//! What the store needs to know.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Configuration of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// A file with the password, which then stands in no URL.
    pub password_file: Option<PathBuf>,
    /// A file with the authorities to trust, as PEM. With it, only TLS is
    /// spoken, and the server's certificate has to be of one of them and for
    /// the host in `url` (`sslmode=verify-full`).
    pub ca_file: Option<PathBuf>,
    /// Number of shards, as provisioned in the backplane.
    pub shards: u16,
    /// Connections that this process may open, 3 to 100. Few are enough:
    /// lookups share queries. The archiver and the outbox relay use one each.
    pub max_connections: u32,
    /// How long a call waits for a connection before it answers `Unavailable`.
    pub acquire_timeout_ms: u64,
    /// How long a call waits for an answer before it answers `Unavailable`.
    pub query_timeout_ms: u64,
    /// How long writing one archive batch may take before it is abandoned and
    /// tried again.
    pub write_timeout_ms: u64,
    /// At most this many lookups share one query (1 to 1,000).
    pub batch_lookups: usize,
    /// At most this many lookup queries of a kind run at a time (1 to 16).
    pub batch_queries: usize,
    /// At most this many lookups of a kind wait; beyond, they are refused as
    /// `Unavailable`.
    pub batch_queue: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: String::from("postgres://localhost/rejoin"),
            password_file: None,
            ca_file: None,
            shards: 1,
            max_connections: 10,
            acquire_timeout_ms: 500,
            query_timeout_ms: 900,
            write_timeout_ms: 10_000,
            batch_lookups: 128,
            // Two keep Postgres busy while answers are taken apart.
            batch_queries: 2,
            // 16,384 waiting lookups take some 2 MiB and about a second.
            batch_queue: 16_384,
        }
    }
}

impl StoreConfig {
    /// The defaults for this database.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }

    pub(crate) fn query_timeout(&self) -> Duration {
        Duration::from_millis(self.query_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}
