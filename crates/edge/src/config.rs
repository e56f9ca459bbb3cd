//! What an operator can set about an edge: plain data with defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::admission::AdmissionConfig;
use crate::auth::{AuthConfig, AuthConfigError, Secret};
use crate::limits::{Limits, within};
use crate::origin::OriginConfig;
use crate::pages::PagesConfig;

/// One edge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// How the edge is called in `connected` frames, logs and metrics,
    /// `[A-Za-z0-9_-]{1,64}`. Default: empty, which stands for the host's
    /// name.
    pub name: String,
    /// Serves the demonstration page at `/`, gives anyone a token for it, and
    /// lets pages from localhost in. For development only, on a loopback
    /// address only. Default: false.
    pub dev: bool,
    /// Where the demonstration page can have edges killed and servers
    /// stopped; `rejoin dev` sets it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev_controls: Option<DevControls>,
    /// Where and how it listens.
    pub listen: ListenConfig,
    /// Which web pages may use it.
    pub origins: OriginConfig,
    /// The inspector.
    pub pages: PagesConfig,
    /// Who is let in.
    pub auth: AuthConfig,
    /// How fast clients are let in.
    pub admission: AdmissionConfig,
    /// What one connection, request or window may take.
    pub limits: Limits,
    /// How it leaves.
    pub drain: DrainConfig,
}

/// Where `rejoin dev` takes orders from the demonstration page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevControls {
    /// `http://127.0.0.1:<port>`.
    pub url: String,
    /// What the page has to show there.
    pub token: Secret,
    /// An administrative API key of this edge, which the pages use without
    /// asking for one.
    pub api_key: Secret,
}

/// Where and how an edge listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Address and port; port 0 takes a free one. Default: 127.0.0.1:8080,
    /// so that nothing is exposed unasked.
    pub address: SocketAddr,
    /// Open connections, plain and upgraded together; at least 1. More are
    /// told 503 and closed. Default: 100000, for which the process needs as
    /// many file descriptors.
    pub connections: usize,
    /// Time for a whole request header, which also bounds how long a
    /// connection stays open between two requests, in milliseconds; 100 to
    /// 120000. Default: 10000.
    pub header_timeout_ms: u32,
    /// Longest request header, in bytes; 8192 to 1048576. Default: 16384, a
    /// token of the longest kind and as much again.
    pub header_bytes: usize,
    /// Time that a socket may take nothing of what is written to it before
    /// its connection is cut, in milliseconds; at least
    /// `limits.write_timeout_ms`, so that a WebSocket gets its close code
    /// first, and at most 600000. Default: 60000. Bounds event streams and
    /// answers that nobody reads.
    pub stall_timeout_ms: u32,
    /// Open connections of one address, half-open ones and those in the
    /// middle of a handshake included; at most 10000000, and 0 for no limit.
    /// Addresses in `trusted_proxies` are not limited. Default: 0, because a
    /// proxy that is not named there has everybody's connections.
    pub sockets_per_ip: usize,
    /// Networks of proxies whose `X-Forwarded-For` is believed, like
    /// `10.0.0.0/8`; at most 64. Default: none, so that nobody can give
    /// itself another address.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS with an own certificate. Default: none, for a proxy that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

/// The certificate of an edge that speaks TLS (1.2 and 1.3) itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those between it and the root, in PEM.
    pub cert_file: PathBuf,
    /// Its private key, in PEM.
    pub key_file: PathBuf,
    /// How often the files are looked at, in milliseconds; 100 to 86400000.
    /// What has changed is used for new connections; open ones go on. Default:
    /// 10000.
    #[serde(default = "TlsConfig::default_reload_ms")]
    pub reload_ms: u32,
}

impl TlsConfig {
    fn default_reload_ms() -> u32 {
        10_000
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            connections: 100_000,
            header_timeout_ms: 10_000,
            header_bytes: 16 * 1024,
            stall_timeout_ms: 60_000,
            sockets_per_ip: 0,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

impl ListenConfig {
    /// [`Self::header_timeout_ms`] as a duration.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms.into())
    }

    /// [`Self::stall_timeout_ms`] as a duration.
    pub fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms.into())
    }
}

/// How an edge leaves when it is told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// Time between answering "not ready" and sending connections away, in
    /// milliseconds; at most 120000. Load balancers take a probe or two to
    /// notice. Default: 2000.
    pub unready_ms: u32,
    /// Time over which connections are sent away, in milliseconds; at most
    /// 600000. Each picks a random moment, so that the other edges see a
    /// steady stream and no storm. Default: 10000.
    pub spread_ms: u32,
    /// Time after that for what is still under way, in milliseconds; at most
    /// 600000. Then everything is cut. Default: 10000.
    pub deadline_ms: u32,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            unready_ms: 2_000,
            spread_ms: 10_000,
            deadline_ms: 10_000,
        }
    }
}

impl DrainConfig {
    /// [`Self::unready_ms`] as a duration.
    pub fn unready(&self) -> Duration {
        Duration::from_millis(self.unready_ms.into())
    }

    /// [`Self::spread_ms`] as a duration.
    pub fn spread(&self) -> Duration {
        Duration::from_millis(self.spread_ms.into())
    }

    /// [`Self::deadline_ms`] as a duration.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.into())
    }
}

/// A value that cannot be used; names its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// The field, like `limits.ping_ms`, relative to the edge's section.
    pub field: String,
    /// What is wrong with it and what it should be.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl From<AuthConfigError> for ConfigError {
    fn from(error: AuthConfigError) -> Self {
        Self::new(format!("auth.{}", error.field), error.reason)
    }
}

impl EdgeConfig {
    /// Checks every bound. Keys are checked by
    /// [`Authenticator::new`](crate::auth::Authenticator::new).
    pub fn check(&self) -> Result<(), ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if self.name.len() > 64 || !self.name.bytes().all(allowed) {
            let reason = "up to 64 of A-Z a-z 0-9 _ -";
            return Err(ConfigError::new("name", reason));
        }
        let listen = &self.listen;
        if self.dev && !listen.address.ip().is_loopback() {
            let reason = format!(
                "gives a token to anyone who can reach {}, so listen.address has to be a loopback \
                 address, like 127.0.0.1:8080",
                listen.address
            );
            return Err(ConfigError::new("dev", reason));
        }
        within("listen.connections", listen.connections, 1..=10_000_000)?;
        let timeout = 100..=120_000;
        within(
            "listen.header_timeout_ms",
            listen.header_timeout_ms,
            timeout,
        )?;
        let header = 8_192..=1_048_576;
        within("listen.header_bytes", listen.header_bytes, header)?;
        let stall = self.limits.write_timeout_ms..=600_000;
        within("listen.stall_timeout_ms", listen.stall_timeout_ms, stall)?;
        within(
            "listen.sockets_per_ip",
            listen.sockets_per_ip,
            0..=10_000_000,
        )?;
        let proxies = listen.trusted_proxies.len();
        within("listen.trusted_proxies", proxies, 0..=64)?;
        if let Some(tls) = &listen.tls {
            within("listen.tls.reload_ms", tls.reload_ms, 100..=86_400_000)?;
        }
        within("drain.unready_ms", self.drain.unready_ms, 0..=120_000)?;
        within("drain.spread_ms", self.drain.spread_ms, 0..=600_000)?;
        within("drain.deadline_ms", self.drain.deadline_ms, 0..=600_000)?;
        self.origins.check()?;
        self.admission.check()?;
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(EdgeConfig::default().check(), Ok(()));
    }

    #[test]
    fn every_bound_names_its_field() {
        type Break = fn(&mut EdgeConfig);
        let cases: [(&str, Break); 15] = [
            ("dev", |c| {
                c.dev = true;
                c.listen.address = SocketAddr::from(([0, 0, 0, 0], 8080));
            }),
            ("name", |c| c.name = "edge 1".to_owned()),
            ("listen.connections", |c| c.listen.connections = 0),
            ("listen.header_bytes", |c| c.listen.header_bytes = 100),
            ("listen.stall_timeout_ms", |c| {
                c.listen.stall_timeout_ms = c.limits.write_timeout_ms - 1;
            }),
            ("drain.spread_ms", |c| c.drain.spread_ms = 600_001),
            ("origins.allowed[0]", |c| {
                c.origins.allowed = vec!["*".to_owned()];
            }),
            ("admission.connects_burst", |c| {
                c.admission.connects_burst = 0;
            }),
            ("limits.lifetime_ms", |c| c.limits.lifetime_ms = 1),
            ("limits.message_bytes", |c| c.limits.message_bytes = 0),
            ("limits.message_bytes", |c| {
                c.limits.message_bytes = 524_289;
            }),
            ("limits.batch_bytes", |c| c.limits.batch_bytes = 65_535),
            ("limits.window_bytes", |c| c.limits.window_bytes = 1),
            ("limits.ping_ms", |c| c.limits.ping_ms = 60_000),
            ("limits.retry_max_ms", |c| c.limits.retry_max_ms = 999),
        ];
        for (field, break_it) in cases {
            let mut config = EdgeConfig::default();
            break_it(&mut config);
            let error = config.check().unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
    }
}
