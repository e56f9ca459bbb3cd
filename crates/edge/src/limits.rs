//! Bounds of one edge. Every default says why it is that number.

use std::time::Duration;

use protocol::limits;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// What one connection, request or window may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest payload of a message, in bytes; 1 to 524288. Default: 65536.
    pub message_bytes: usize,
    /// Subscriptions of one connection; 1 to 4096. Default: 128.
    pub subscriptions: usize,
    /// Messages in one batch publish; 1 to 1000. Default: 100, a page of
    /// work that is done within some milliseconds.
    pub batch_messages: usize,
    /// Longest body of a batch publish, in bytes; at least `message_bytes`.
    /// Default: 1 MiB.
    pub batch_bytes: usize,
    /// Most messages that one HTTP catch-up request gets; 1 to 10000.
    /// Default: 1000.
    pub page_messages: usize,
    /// Memory for the newest messages of each shard, in bytes; at least
    /// 1 MiB. Default: 64 MiB, minutes of a busy stream.
    pub window_bytes: usize,
    /// Time between two pings, in milliseconds; 1000 to 55000. Default:
    /// 25000, under the 60 s idle timeout of common load balancers with one
    /// ping to spare.
    pub ping_ms: u32,
    /// Time a new connection has for its `connect` frame, in milliseconds;
    /// 1000 to 60000. Default: 8000, enough for a phone on a bad network.
    pub connect_timeout_ms: u32,
    /// Time that one socket write may take before its client counts as
    /// gone, in milliseconds; 1000 to 300000. Default: 30000.
    pub write_timeout_ms: u32,
    /// Time an HTTP request may take from its header to its answer, in
    /// milliseconds; 1000 to 300000. Default: 15000, above the time that a
    /// publish waits for its acknowledgement.
    pub request_timeout_ms: u32,
    /// Longest life of a connection, in milliseconds; 1000 to 604800000 (a
    /// week), and 0 for no end. Each ends at a random moment in the last
    /// quarter of it, with `goaway` and code 4005, and comes back to whichever
    /// edge the balancer picks: so new edges get their share. Default: 0.
    pub lifetime_ms: u32,
    /// What one WebSocket is sent at the most in the long run, in bytes per
    /// second; at least 16384, and 0 for no limit. More waits in the log, as
    /// it does behind a slow socket. Default: 0, because connections take
    /// turns as it is; for links that cost by the byte.
    pub send_bytes_per_s: u32,
    /// First reconnect delay that clients are told, in milliseconds; at
    /// least 100. Default: 1000.
    pub retry_min_ms: u32,
    /// Longest reconnect delay that clients are told, in milliseconds; at
    /// least `retry_min_ms`. Default: 30000.
    pub retry_max_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: limits::MESSAGE_BYTES_DEFAULT,
            subscriptions: limits::SUBSCRIPTIONS_DEFAULT,
            batch_messages: 100,
            batch_bytes: 1024 * 1024,
            page_messages: 1_000,
            window_bytes: 64 * 1024 * 1024,
            ping_ms: limits::PING_MS_DEFAULT,
            connect_timeout_ms: 8_000,
            write_timeout_ms: 30_000,
            request_timeout_ms: 15_000,
            lifetime_ms: 0,
            send_bytes_per_s: 0,
            retry_min_ms: limits::RETRY_MIN_MS_DEFAULT,
            retry_max_ms: limits::RETRY_MAX_MS_DEFAULT,
        }
    }
}

impl Limits {
    /// [`Self::ping_ms`] as a duration.
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_ms.into())
    }

    /// [`Self::connect_timeout_ms`] as a duration.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    /// [`Self::write_timeout_ms`] as a duration.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms.into())
    }

    /// [`Self::request_timeout_ms`] as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.into())
    }

    /// How long a new connection may live: at most [`Self::lifetime_ms`], a
    /// quarter less at the least; `None` for no end.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        let longest = Duration::from_millis(self.lifetime_ms.into());
        let part = 0.75 + rand::random::<f64>() / 4.0;
        (self.lifetime_ms > 0).then(|| longest.mul_f64(part))
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        const MIB: usize = 1024 * 1024;
        let message = 1..=limits::MESSAGE_BYTES_MAX;
        within("limits.message_bytes", self.message_bytes, message)?;
        let subscriptions = 1..=limits::SUBSCRIPTIONS_MAX;
        within("limits.subscriptions", self.subscriptions, subscriptions)?;
        within("limits.batch_messages", self.batch_messages, 1..=1_000)?;
        let batch = self.message_bytes..=64 * MIB;
        within("limits.batch_bytes", self.batch_bytes, batch)?;
        within("limits.page_messages", self.page_messages, 1..=10_000)?;
        within("limits.window_bytes", self.window_bytes, MIB..=usize::MAX)?;
        within("limits.ping_ms", self.ping_ms, 1_000..=55_000)?;
        let connect = 1_000..=60_000;
        within(
            "limits.connect_timeout_ms",
            self.connect_timeout_ms,
            connect,
        )?;
        let long = 1_000..=300_000;
        within(
            "limits.write_timeout_ms",
            self.write_timeout_ms,
            long.clone(),
        )?;
        within("limits.request_timeout_ms", self.request_timeout_ms, long)?;
        if self.lifetime_ms != 0 {
            let lifetime = 1_000..=604_800_000;
            within("limits.lifetime_ms", self.lifetime_ms, lifetime)?;
        }
        if self.send_bytes_per_s > 0 {
            let least = 16_384..=u32::MAX;
            within("limits.send_bytes_per_s", self.send_bytes_per_s, least)?;
        }
        within("limits.retry_min_ms", self.retry_min_ms, 100..=600_000)?;
        let longest = self.retry_min_ms..=3_600_000;
        within("limits.retry_max_ms", self.retry_max_ms, longest)
    }
}

/// Checks a bound and names the field that breaks it.
pub(crate) fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::new(
        field,
        format!("{value} is not within {} to {}", range.start(), range.end()),
    ))
}
