//! The limits as an operator writes them.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Rate;
use crate::config::ConfigError;
use crate::limits::within;

/// How fast clients are let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// WebSockets and event streams that this edge lets in per second; at
    /// most 1000000, and 0 for no limit. More are told 503 and when to come
    /// back, before the upgrade. Default: 10000, about what one core
    /// verifies.
    pub connects_per_s: u32,
    /// How many may come at one moment after a quiet time; 1 to 1000000.
    /// Default: 10000.
    pub connects_burst: u32,
    /// The same per second for all edges together; at most 1000000, and 0
    /// for no limit. Each edge takes its share: this, divided by the edges
    /// that it hears of. Default: 0.
    pub fleet_connects_per_s: u32,
    /// Connections that one address has on this edge at a time; at most
    /// 1000000, and 0 for no limit. IPv6 counts by /64. Default: 0, because
    /// a company or a mobile network may be one address, and a proxy that is
    /// not in `listen.trusted_proxies` certainly is.
    pub connections_per_ip: usize,
    /// Connects of one address per second, as many at one moment; at most
    /// 1000000, and 0 for no limit. Default: 0, for the same reason.
    pub connects_per_ip_per_s: u32,
    /// Connections, event streams and polls that one user has on this edge at
    /// a time; at most 1000000, and 0 for no limit. Default: 200, many more
    /// than a person's devices and tabs.
    pub connections_per_user: usize,
    /// Messages and signals that one user publishes on this edge per second;
    /// at most 1000000, and 0 for no limit. Services are not limited.
    /// Default: 1000, which no person reaches and a runaway script does.
    pub publishes_per_user_per_s: u32,
    /// How many of them at one moment; 1 to 1000000. Default: 5000, an outbox
    /// of a long time offline.
    pub publishes_burst: u32,
    /// Requests that this edge works on at a time, apart from polls, event
    /// streams and WebSockets; 1 to 1000000. More are told 503. Default: 4096,
    /// as many publishes as the backplane takes at once.
    pub requests_in_flight: usize,
    /// Memory of the process from which on new connections are told 503, in
    /// bytes; 0 for `memory_share`. Default: 0.
    pub memory_bytes: u64,
    /// The same as a share of what the process may take (its control group's
    /// limit, else the machine's memory); 0.1 to 1.0. Default: 0.85, which
    /// leaves the rest for what the open connections still need.
    pub memory_share: f64,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            connects_per_s: 10_000,
            connects_burst: 10_000,
            fleet_connects_per_s: 0,
            connections_per_ip: 0,
            connects_per_ip_per_s: 0,
            connections_per_user: 200,
            publishes_per_user_per_s: 1_000,
            publishes_burst: 5_000,
            requests_in_flight: 4_096,
            memory_bytes: 0,
            memory_share: 0.85,
        }
    }
}

/// No fleet lets in more, per second or at once.
const CONNECTS_MAX: u32 = 1_000_000;

impl AdmissionConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let rate = 0..=CONNECTS_MAX;
        within(
            "admission.connects_per_s",
            self.connects_per_s,
            rate.clone(),
        )?;
        within(
            "admission.connects_burst",
            self.connects_burst,
            1..=CONNECTS_MAX,
        )?;
        let rates = [
            ("fleet_connects_per_s", self.fleet_connects_per_s),
            ("connects_per_ip_per_s", self.connects_per_ip_per_s),
            ("publishes_per_user_per_s", self.publishes_per_user_per_s),
        ];
        for (field, value) in rates {
            within(&format!("admission.{field}"), value, rate.clone())?;
        }
        let most = CONNECTS_MAX as usize;
        let counts = [
            ("connections_per_ip", self.connections_per_ip, 0),
            ("connections_per_user", self.connections_per_user, 0),
            ("requests_in_flight", self.requests_in_flight, 1),
        ];
        for (field, value, least) in counts {
            within(&format!("admission.{field}"), value, least..=most)?;
        }
        within(
            "admission.publishes_burst",
            self.publishes_burst,
            1..=CONNECTS_MAX,
        )?;
        within("admission.memory_share", self.memory_share, 0.1..=1.0)
    }

    /// The connects of one of `edges` edges; `None` where there is no limit.
    /// A share of the fleet's is at least 1 per second, and its burst is what
    /// comes in a second, so that no second has twice the fleet's rate.
    pub(crate) fn connect_rate(&self, edges: usize) -> Option<Rate> {
        let edges = u32::try_from(edges.max(1)).unwrap_or(u32::MAX);
        let own = NonZeroU32::new(self.connects_per_s);
        let share = NonZeroU32::new(self.fleet_connects_per_s)
            .map(|fleet| NonZeroU32::new(fleet.get() / edges).unwrap_or(NonZeroU32::MIN));
        let per_s = match (own, share) {
            (None, None) => return None,
            (Some(only), None) | (None, Some(only)) => only,
            (Some(own), Some(share)) => own.min(share),
        };
        let burst = NonZeroU32::new(self.connects_burst).unwrap_or(NonZeroU32::MIN);
        let burst = share.map_or(burst, |share| burst.min(share));
        Some(Rate { per_s, burst })
    }
}
