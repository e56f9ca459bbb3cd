//! Who is let in now, and when the others are to come back.
//!
//! Everybody comes at once after an edge was lost, and an edge that just
//! came back is the emptiest one: without a limit it would be knocked down
//! again. What is refused is refused before the upgrade, where it costs
//! next to nothing, and is told a moment of its own.
//!
//! - [`bucket`]: a token bucket that spreads those it refuses;
//! - [`config`]: the limits as an operator writes them.

pub mod bucket;
pub mod config;

use std::time::Duration;

use delivery::stats::Counter;
use protocol::ErrorCode;

use crate::exposition::Exposition;
use crate::http::error::ApiError;

pub use bucket::{Bucket, Rate};
pub use config::AdmissionConfig;

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Connects to this edge, its share of the fleet's included.
    Connects,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 1] = [Self::Connects];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connects => "connects",
        }
    }
}

/// Not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What refused.
    pub limit: Limit,
    /// When to come back; another moment for each who is told.
    pub retry_after: Duration,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = match refused.limit {
            Limit::Connects => "too many connects at the moment",
        };
        Self::new(ErrorCode::Unavailable, message).after(refused.retry_after)
    }
}

/// The limits of one edge and what they have refused.
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    /// None where connects are not limited.
    connects: Option<Bucket>,
    refused: [Counter; Limit::ALL.len()],
}

impl Admission {
    /// Lets in what the configuration says, as if this edge were alone in
    /// its fleet. Nobody is told to wait for longer than `longest_wait`.
    pub fn new(config: &AdmissionConfig, longest_wait: Duration) -> Self {
        let connects = config.connect_rate(1);
        Self {
            config: config.clone(),
            connects: connects.map(|rate| Bucket::new(rate, longest_wait)),
            refused: Default::default(),
        }
    }

    /// So many edges share the fleet's rate from now on, this one included.
    pub fn set_edges(&self, edges: usize) {
        if let (Some(bucket), Some(rate)) = (&self.connects, self.config.connect_rate(edges)) {
            bucket.set_rate(rate);
        }
    }

    /// Takes one connection's place among the connects of this second.
    pub fn connect(&self) -> Result<(), Refused> {
        let Some(bucket) = &self.connects else {
            return Ok(());
        };
        bucket.take().map_err(|retry_after| {
            let limit = Limit::Connects;
            self.refused[limit as usize].add(1);
            Refused { limit, retry_after }
        })
    }

    pub(crate) fn write(&self, out: &mut Exposition) {
        let help = "Clients that were told to come back later, by the limit that refused.";
        let mut family = out.counter("rejoin_refusals_total", help);
        for limit in Limit::ALL {
            let count = self.refused[limit as usize].get();
            family.sample(&[("limit", limit.as_str())], count);
        }
        let help = "Connects per second that this edge takes, its share of the fleet's included; \
                    0 if they are not limited.";
        let rate = self.connects.as_ref().map_or(0, |it| it.rate().per_s.get());
        out.gauge("rejoin_connect_rate_limit", help)
            .value(u64::from(rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(admission: &Admission) -> usize {
        (0..1_000)
            .take_while(|_| admission.connect().is_ok())
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_fleets_rate_is_shared_by_the_edges_that_live() {
        let config = AdmissionConfig {
            connects_per_s: 100,
            connects_burst: 50,
            fleet_connects_per_s: 120,
        };
        let admission = Admission::new(&config, Duration::from_secs(30));
        assert_eq!(admitted(&admission), 50, "alone: its own limit");
        admission.set_edges(4);
        let second = Duration::from_secs(1);
        tokio::time::sleep(second).await;
        assert_eq!(admitted(&admission), 30, "one of four: 120 / 4");
        let refused = admission.connect().unwrap_err();
        assert_eq!(refused.limit, Limit::Connects);
        let mut out = Exposition::default();
        admission.write(&mut out);
        let text = out.into_text();
        assert!(text.contains("rejoin_refusals_total{limit=\"connects\"} 3"));
        assert!(text.contains("rejoin_connect_rate_limit 30"), "{text}");
    }

    #[tokio::test]
    async fn nothing_is_limited_where_nothing_is_configured() {
        let config = AdmissionConfig {
            connects_per_s: 0,
            ..AdmissionConfig::default()
        };
        let admission = Admission::new(&config, Duration::from_secs(30));
        assert_eq!(admitted(&admission), 1_000);
    }
}
