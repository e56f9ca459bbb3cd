//! Settings of the store, and of what moves the stream into it.

use std::path::PathBuf;
use std::time::Duration;

use delivery::archive::ArchiveRetention;
use delivery::archiver::ArchiverConfig;
use serde::{Deserialize, Serialize};
use store::StoreConfig;

use super::ConfigError;

/// Postgres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// `postgres://user:password@host:port/database`. Default: empty, which
    /// means no store: no archive, rooms, receipts or outbox, and the stream
    /// alone says how far back a cursor reaches.
    pub url: String,
    /// A file with the password, in place of one in the URL; a final newline
    /// is not part of it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file with the authorities to trust, as PEM. With it, only TLS is
    /// spoken, and the server's certificate has to be of one of them and for
    /// the URL's host. Default: none; then the URL's `sslmode` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Connections that this process may open; 3 to 100. Default: 10.
    pub max_connections: u32,
    /// How long a lookup waits for an answer before it says `unavailable`, in
    /// milliseconds; 100 to 60000. Default: 900.
    pub query_timeout_ms: u64,
    /// The archiver.
    pub archive: ArchiveSection,
    /// Whether this process relays what was published from SQL. Default: true.
    pub outbox: bool,
}

/// Moving the stream into the archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveSection {
    /// Whether this process archives, or stands by while another does.
    /// Default: true.
    pub enabled: bool,
    /// Messages of one transaction; 1 to 50000. Default: 5000.
    pub batch_messages: usize,
    /// Archived messages stay in the stream for this long, in seconds.
    /// Default: 3600.
    pub hot_time_s: u64,
    /// Archived messages leave the stream sooner when it holds more than this
    /// share of its byte limit; 0.0 to 1.0. Default: 0.25, so that three
    /// quarters are there for an outage of Postgres.
    pub hot_byte_share: f64,
    /// Messages leave the archive after so many days; 0 keeps them for ever.
    /// Default: 90.
    pub keep_days: u64,
    /// Hours of messages in one partition, the unit in which they leave;
    /// 1 to 8760. Default: 24.
    pub partition_hours: u32,
    /// Another archiver takes over this long after the active one's last
    /// sign of life, in milliseconds; 1000 to 600000. Default: 10000.
    pub lease_ms: u64,
}

impl Default for StoreSection {
    fn default() -> Self {
        let defaults = StoreConfig::default();
        Self {
            url: String::new(),
            password_file: None,
            ca_file: None,
            max_connections: defaults.max_connections,
            query_timeout_ms: defaults.query_timeout_ms,
            archive: ArchiveSection::default(),
            outbox: true,
        }
    }
}

impl Default for ArchiveSection {
    fn default() -> Self {
        let defaults = ArchiverConfig::new("");
        Self {
            enabled: true,
            batch_messages: defaults.max_batch_messages,
            hot_time_s: defaults.hot_time.as_secs(),
            hot_byte_share: defaults.hot_byte_share,
            keep_days: defaults
                .retention
                .keep
                .map_or(0, |keep| keep.as_secs() / DAY_S),
            partition_hours: defaults.retention.partition_hours,
            lease_ms: u64::try_from(defaults.lease_ttl.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

const DAY_S: u64 = 86_400;

impl StoreSection {
    /// Whether there is a store.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// What the store needs to know.
    pub fn store_config(&self, shards: u16) -> StoreConfig {
        StoreConfig {
            shards,
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
            max_connections: self.max_connections,
            query_timeout_ms: self.query_timeout_ms,
            ..StoreConfig::new(self.url.clone())
        }
    }

    /// What an archiver of this process needs to know. `holder` is unique to
    /// the process.
    pub fn archiver_config(&self, holder: String) -> ArchiverConfig {
        let archive = &self.archive;
        let defaults = ArchiverConfig::new(holder);
        ArchiverConfig {
            lease_ttl: Duration::from_millis(archive.lease_ms),
            max_batch_messages: archive.batch_messages,
            hot_time: Duration::from_secs(archive.hot_time_s),
            hot_byte_share: archive.hot_byte_share,
            retention: ArchiveRetention {
                keep: (archive.keep_days > 0)
                    .then(|| Duration::from_secs(archive.keep_days.saturating_mul(DAY_S))),
                partition_hours: archive.partition_hours,
                ..defaults.retention
            },
            ..defaults
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bound = |field: &str, good: bool, reason: &str| match good {
            true => Ok(()),
            false => Err(ConfigError::Bound {
                field: format!("store.{field}"),
                reason: reason.to_owned(),
            }),
        };
        let archive = &self.archive;
        let connections = 3..=100;
        bound(
            "max_connections",
            connections.contains(&self.max_connections),
            "3 to 100",
        )?;
        let timeout = 100..=60_000;
        bound(
            "query_timeout_ms",
            timeout.contains(&self.query_timeout_ms),
            "100 to 60000",
        )?;
        let batch = 1..=50_000;
        bound(
            "archive.batch_messages",
            batch.contains(&archive.batch_messages),
            "1 to 50000",
        )?;
        let share = 0.0..=1.0;
        bound(
            "archive.hot_byte_share",
            share.contains(&archive.hot_byte_share),
            "0.0 to 1.0",
        )?;
        let hours = 1..=8_760;
        bound(
            "archive.partition_hours",
            hours.contains(&archive.partition_hours),
            "1 to 8760",
        )?;
        let lease = 1_000..=600_000;
        bound(
            "archive.lease_ms",
            lease.contains(&archive.lease_ms),
            "1000 to 600000",
        )
    }
}
