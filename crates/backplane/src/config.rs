//! What the backplane needs to know, as plain data.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most shards a deployment can have. Every edge reads every shard with a
/// consumer of its own, and a stream has a fixed cost on the server.
pub const SHARDS_MAX: u16 = 64;

/// Configuration of the backplane. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackplaneConfig {
    /// NATS servers, `nats://host:port`. Default: `nats://127.0.0.1:4222`.
    pub urls: Vec<String>,
    /// How to authenticate. Default: not at all.
    pub auth: Auth,
    /// TLS of the connections. Default: only where a URL says `tls://`.
    pub tls: Tls,
    /// This edge's name, shown to operators in the names of its connections
    /// and consumers: `[A-Za-z0-9_-]{1,64}`. Default: `edge`.
    pub edge: String,
    /// First token of every subject and, in upper case, of every stream's
    /// name, so that deployments can share one NATS: `[A-Za-z0-9_-]{1,32}`.
    /// Default: `rejoin`.
    pub prefix: String,
    /// Number of streams, fixed once they exist; 1 to [`SHARDS_MAX`].
    /// Default: 1.
    pub shards: u16,
    /// Replicas of each stream at creation: 1, 3 or 5. Default: 1.
    pub replicas: u8,
    /// Byte limit of each stream at creation. Publishing is refused beyond
    /// it, so it is sized for several times the outage of the archive that is
    /// to be survived. The server reserves it on its disk. Default: 4 GiB.
    pub stream_max_bytes: u64,
    /// Largest stored message, headers included, at creation. Default: 1 MiB.
    pub message_max_bytes: u32,
    /// How long the stream itself recognises a message id again, at
    /// creation. Default: 120,000 ms.
    pub duplicate_window_ms: u64,
    /// How long one request waits for its answer. Default: 1,000 ms.
    pub request_timeout_ms: u64,
    /// How long a publish is retried under its id before it is reported
    /// unavailable; less than a quarter of `duplicate_window_ms`, so that the
    /// stream recognises the last try. Default: 5,000 ms.
    pub publish_timeout_ms: u64,
    /// Publishes in flight at once; more wait. Default: 4,096.
    pub publish_in_flight: usize,
    /// Whether publishes that happen at the same time may be stored in one
    /// batch where the server is slow to store them one by one. Default: true.
    pub group_commit: bool,
    /// Heartbeat of a tail. A tail that hears nothing for twice this long is
    /// replaced. Default: 400 ms.
    pub tail_heartbeat_ms: u64,
    /// Reads of the stream in flight at once for catch-up; they make writers
    /// wait, so they are few. Default: 4.
    pub catchup_in_flight: usize,
    /// How long one read of the stream for catch-up may take; the server
    /// scans everything between the position and the head. Default: 5,000 ms.
    pub catchup_timeout_ms: u64,
    /// How often each stream's state is asked for. Default: 1,000 ms.
    pub refresh_interval_ms: u64,
}

impl Default for BackplaneConfig {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".into()],
            auth: Auth::default(),
            tls: Tls::default(),
            edge: "edge".into(),
            prefix: "rejoin".into(),
            shards: 1,
            replicas: 1,
            stream_max_bytes: 4 << 30,
            message_max_bytes: 1 << 20,
            duplicate_window_ms: 120_000,
            request_timeout_ms: 1_000,
            publish_timeout_ms: 5_000,
            publish_in_flight: 4_096,
            group_commit: true,
            tail_heartbeat_ms: 400,
            catchup_in_flight: 4,
            catchup_timeout_ms: 5_000,
            refresh_interval_ms: 1_000,
        }
    }
}

/// How the backplane authenticates to NATS; the first one that is set counts.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// The seed of an nkey.
    pub nkey_seed: Option<String>,
    /// A file with the same; a final newline is not part of it.
    pub nkey_seed_file: Option<PathBuf>,
    /// A token.
    pub token: Option<String>,
    /// A file with the same.
    pub token_file: Option<PathBuf>,
    /// A user, with `password`.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<String>,
    /// A file with the same.
    pub password_file: Option<PathBuf>,
}

/// A secret that is given as it is, or in a file.
pub(crate) fn secret(
    given: Option<&String>,
    file: Option<&PathBuf>,
) -> std::io::Result<Option<String>> {
    let Some(path) = file else {
        return Ok(given.cloned());
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

impl std::fmt::Debug for Auth {
    /// Says which kind is set and never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("credentials_file", &self.credentials_file)
            .field("nkey_seed", &self.nkey_seed.is_some())
            .field("nkey_seed_file", &self.nkey_seed_file)
            .field("token", &self.token.is_some())
            .field("token_file", &self.token_file)
            .field("user", &self.user)
            .field("password", &self.password.is_some())
            .field("password_file", &self.password_file)
            .finish()
    }
}

/// TLS settings of the connections to NATS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Refuse to speak without TLS. Default: false.
    pub required: bool,
    /// A file of certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A client certificate, with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("backplane.{field}: {problem}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl BackplaneConfig {
    /// Checks every field against its documented range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |field, problem| Err(ConfigError { field, problem });
        if self.urls.is_empty() {
            return fail("urls", "needs at least one server");
        }
        let auth = &self.auth;
        for (field, given, file) in [
            ("auth.nkey_seed", &auth.nkey_seed, &auth.nkey_seed_file),
            ("auth.token", &auth.token, &auth.token_file),
            ("auth.password", &auth.password, &auth.password_file),
        ] {
            if given.is_some() && file.is_some() {
                return fail(field, "is given twice: as it is, and in a file");
            }
        }
        if !is_token(&self.edge, 64) {
            return fail("edge", "must be 1 to 64 of A-Z a-z 0-9 _ -");
        }
        if !is_token(&self.prefix, 32) {
            return fail("prefix", "must be 1 to 32 of A-Z a-z 0-9 _ -");
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return fail("shards", "must be 1 to 64");
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return fail("replicas", "must be 1, 3 or 5");
        }
        if !(1 << 20..=i64::MAX as u64).contains(&self.stream_max_bytes) {
            return fail("stream_max_bytes", "must be at least 1 MiB");
        }
        if !(1024..=64 << 20).contains(&self.message_max_bytes) {
            return fail("message_max_bytes", "must be 1 KiB to 64 MiB");
        }
        if !(1_000..=3_600_000).contains(&self.duplicate_window_ms) {
            return fail("duplicate_window_ms", "must be 1,000 to 3,600,000");
        }
        if !(50..=60_000).contains(&self.request_timeout_ms) {
            return fail("request_timeout_ms", "must be 50 to 60,000");
        }
        if self.publish_timeout_ms < self.request_timeout_ms {
            return fail("publish_timeout_ms", "must be at least request_timeout_ms");
        }
        // Half of the window is for clocks of clients, a quarter for those of
        // servers; a publish that took longer than the rest could be doubled.
        if self.publish_timeout_ms >= self.duplicate_window_ms / 4 {
            return fail(
                "publish_timeout_ms",
                "must be less than a quarter of duplicate_window_ms",
            );
        }
        if !(1..=65_536).contains(&self.publish_in_flight) {
            return fail("publish_in_flight", "must be 1 to 65,536");
        }
        if !(100..=5_000).contains(&self.tail_heartbeat_ms) {
            return fail("tail_heartbeat_ms", "must be 100 to 5,000");
        }
        if !(1..=64).contains(&self.catchup_in_flight) {
            return fail("catchup_in_flight", "must be 1 to 64");
        }
        if !(100..=60_000).contains(&self.catchup_timeout_ms) {
            return fail("catchup_timeout_ms", "must be 100 to 60,000");
        }
        if !(100..=60_000).contains(&self.refresh_interval_ms) {
            return fail("refresh_interval_ms", "must be 100 to 60,000");
        }
        Ok(())
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn tail_heartbeat(&self) -> Duration {
        Duration::from_millis(self.tail_heartbeat_ms)
    }
}

/// One subject token that needs no escaping anywhere.
fn is_token(text: &str, max_bytes: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    !text.is_empty() && text.len() <= max_bytes && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        BackplaneConfig::default().validate().unwrap();
    }

    #[test]
    fn an_error_names_its_field() {
        let config = BackplaneConfig {
            prefix: "a.b".into(),
            ..BackplaneConfig::default()
        };
        let error = config.validate().unwrap_err();
        assert!(error.to_string().starts_with("backplane.prefix:"));
    }

    #[test]
    fn a_publish_ends_while_the_stream_still_knows_its_id() {
        let config = |publish_timeout_ms| BackplaneConfig {
            duplicate_window_ms: 20_000,
            publish_timeout_ms,
            ..BackplaneConfig::default()
        };
        config(4_999).validate().unwrap();
        let error = config(5_000).validate().unwrap_err();
        assert_eq!(error.field, "publish_timeout_ms");
        assert!(error.problem.contains("duplicate_window_ms"), "{error}");
    }

    #[test]
    fn a_secret_is_given_once() {
        let config = BackplaneConfig {
            auth: Auth {
                token: Some("t".into()),
                token_file: Some("t".into()),
                ..Auth::default()
            },
            ..BackplaneConfig::default()
        };
        assert_eq!(config.validate().unwrap_err().field, "auth.token");
    }

    #[test]
    fn secrets_are_not_shown() {
        let auth = Auth {
            password: Some("hunter2".into()),
            token: Some("hunter2".into()),
            nkey_seed: Some("hunter2".into()),
            ..Auth::default()
        };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
