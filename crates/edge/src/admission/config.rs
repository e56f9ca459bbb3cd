//! The limits as an operator writes them.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Rate;
use crate::config::ConfigError;
use crate::limits::within;

/// How fast clients are let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            connects_per_s: 10_000,
            connects_burst: 10_000,
            fleet_connects_per_s: 0,
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
        within(
            "admission.fleet_connects_per_s",
            self.fleet_connects_per_s,
            rate,
        )
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
