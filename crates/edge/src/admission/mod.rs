//! Who is let in now, and when the others are to come back.
//!
//! Everybody comes at once after an edge was lost, and an edge that just
//! came back is the emptiest one: without a limit it would be knocked down
//! again. What is refused is refused before the upgrade, where it costs
//! next to nothing, and is told a moment of its own.
//!
//! - [`bucket`]: a token bucket that spreads those it refuses;
//! - `keyed`: a rate for each user or address; [`address`]: whose address a
//!   request comes from; `memory`: how much the process takes;
//! - [`config`]: the limits as an operator writes them.

pub mod address;
pub mod bucket;
pub mod config;
mod keyed;
mod memory;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use delivery::stats::Counter;
use protocol::{ErrorCode, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::exposition::Exposition;
use crate::http::error::ApiError;

use address::{AddressPlace, Addresses};
use keyed::KeyedRate;
use memory::Memory;

#[cfg(test)]
pub(crate) use memory::resident as resident_bytes;

pub use address::Peer;
pub use bucket::{Bucket, Rate};
pub use config::AdmissionConfig;

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Connects to this edge, its share of the fleet's included.
    Connects,
    /// Connects of one address.
    ConnectsPerIp,
    /// Open connections of one address.
    ConnectionsPerIp,
    /// Open connections of one user.
    ConnectionsPerUser,
    /// Messages and signals of one user.
    Publishes,
    /// Requests under way.
    Requests,
    /// The process's memory.
    Memory,
    /// Open sockets.
    Sockets,
    /// Open sockets of one address.
    SocketsPerIp,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 9] = [
        Self::Connects,
        Self::ConnectsPerIp,
        Self::ConnectionsPerIp,
        Self::ConnectionsPerUser,
        Self::Publishes,
        Self::Requests,
        Self::Memory,
        Self::Sockets,
        Self::SocketsPerIp,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connects => "connects",
            Self::ConnectsPerIp => "connects_per_ip",
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::Publishes => "publishes",
            Self::Requests => "requests",
            Self::Memory => "memory",
            Self::Sockets => "sockets",
            Self::SocketsPerIp => "sockets_per_ip",
        }
    }

    /// What who is refused is told.
    pub fn message(self) -> &'static str {
        match self {
            Self::Connects => "too many connects at the moment",
            Self::ConnectsPerIp => "too many connects from this address",
            Self::ConnectionsPerIp => "too many connections from this address",
            Self::ConnectionsPerUser => "too many connections of this user",
            Self::Publishes => "too many messages in a short time",
            Self::Requests => "too many requests at the moment",
            Self::Memory => "this edge is full",
            Self::Sockets | Self::SocketsPerIp => "too many connections",
        }
    }

    /// Whose doing it is: the client's own, or that of all together, for
    /// which another edge may be the better one.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Connects | Self::Requests | Self::Memory | Self::Sockets | Self::SocketsPerIp => {
                ErrorCode::Unavailable
            }
            Self::ConnectsPerIp
            | Self::ConnectionsPerIp
            | Self::ConnectionsPerUser
            | Self::Publishes => ErrorCode::RateLimited,
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
        Self::new(refused.limit.code(), refused.limit.message()).after(refused.retry_after)
    }
}

/// The limits of one edge and what they have refused.
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    /// None where connects are not limited.
    connects: Option<Bucket>,
    connects_per_ip: Option<KeyedRate<IpAddr>>,
    addresses: Addresses,
    publishes: Option<KeyedRate<UserId>>,
    requests: Arc<Semaphore>,
    memory: Memory,
    longest_wait: Duration,
    admitted: Counter,
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
            connects_per_ip: NonZeroU32::new(config.connects_per_ip_per_s)
                .map(|per_s| KeyedRate::new(per_s, per_s)),
            addresses: Addresses::default(),
            publishes: NonZeroU32::new(config.publishes_per_user_per_s).map(|per_s| {
                let burst = NonZeroU32::new(config.publishes_burst).unwrap_or(per_s);
                KeyedRate::new(per_s, burst)
            }),
            requests: Arc::new(Semaphore::new(config.requests_in_flight)),
            memory: Memory::new(config.memory_bytes, config.memory_share),
            longest_wait,
            admitted: Counter::default(),
            refused: Default::default(),
        }
    }

    /// So many edges share the fleet's rate from now on, this one included.
    pub fn set_edges(&self, edges: usize) {
        if let (Some(bucket), Some(rate)) = (&self.connects, self.config.connect_rate(edges)) {
            bucket.set_rate(rate);
        }
    }

    /// Takes one connection's place among the connects of this second, of
    /// its address where that is known. The place among the connections of
    /// the address is to be kept for as long as the connection lives.
    pub fn connect(&self, address: Option<IpAddr>) -> Result<Option<AddressPlace>, Refused> {
        if self.memory.is_over() {
            return Err(self.refuse(Limit::Memory, self.sometime()));
        }
        if let (Some(rate), Some(address)) = (&self.connects_per_ip, address) {
            let taken = rate.take(&address);
            taken.map_err(|wait| self.refuse(Limit::ConnectsPerIp, wait))?;
        }
        let most = self.config.connections_per_ip;
        let place = match address {
            Some(address) if most > 0 => {
                let place = self.addresses.take(address, most);
                let refused = || self.refuse(Limit::ConnectionsPerIp, self.sometime());
                Some(place.ok_or_else(refused)?)
            }
            Some(_) | None => None,
        };
        if let Some(bucket) = &self.connects {
            let taken = bucket.take();
            taken.map_err(|wait| self.refuse(Limit::Connects, wait))?;
        }
        self.admitted.add(1);
        Ok(place)
    }

    /// Whether a user who has so many connections may have one more.
    pub fn another_of_user(&self, open: usize) -> Result<(), Refused> {
        let most = self.config.connections_per_user;
        if most > 0 && open >= most {
            return Err(self.refuse(Limit::ConnectionsPerUser, self.sometime()));
        }
        Ok(())
    }

    /// Takes one message's place among the user's of this second.
    pub fn publish(&self, user: &UserId) -> Result<(), Refused> {
        let Some(rate) = &self.publishes else {
            return Ok(());
        };
        let taken = rate.take(user);
        taken.map_err(|wait| self.refuse(Limit::Publishes, wait))
    }

    /// Takes one request's place among those under way.
    pub fn request(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map_err(|_full| self.refuse(Limit::Requests, Duration::from_secs(1)))
    }

    /// Counts a refusal by the listener, which knows of no request yet.
    pub fn note_refusal(&self, limit: Limit) {
        self.refused[limit as usize].add(1);
    }

    fn refuse(&self, limit: Limit, retry_after: Duration) -> Refused {
        self.note_refusal(limit);
        Refused { limit, retry_after }
    }

    /// When it cannot be known, any time: those who are refused together do
    /// not come back together.
    fn sometime(&self) -> Duration {
        self.longest_wait.mul_f64(0.1 + 0.9 * rand::random::<f64>())
    }

    /// Connects that were let in, whatever became of them.
    pub fn admitted(&self) -> u64 {
        self.admitted.get()
    }

    /// Refusals of all limits together.
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(Counter::get).sum()
    }

    /// Connects per second that this edge takes; `None` for no limit.
    pub fn connect_rate(&self) -> Option<u32> {
        let bucket = self.connects.as_ref()?;
        Some(bucket.rate().per_s.get())
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
        let rate = self.connect_rate().unwrap_or(0);
        out.gauge("rejoin_connect_rate_limit", help)
            .value(u64::from(rate));
        let help = "Memory of the process from which on new connections are refused, in bytes; \
                    0 where there is no such mark.";
        out.gauge("rejoin_memory_limit_bytes", help)
            .value(self.memory.mark());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(admission: &Admission) -> usize {
        (0..1_000)
            .take_while(|_| admission.connect(None).is_ok())
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_fleets_rate_is_shared_by_the_edges_that_live() {
        let config = AdmissionConfig {
            connects_per_s: 100,
            connects_burst: 50,
            fleet_connects_per_s: 120,
            ..AdmissionConfig::default()
        };
        let admission = Admission::new(&config, Duration::from_secs(30));
        assert_eq!(admitted(&admission), 50, "alone: its own limit");
        admission.set_edges(4);
        let second = Duration::from_secs(1);
        tokio::time::sleep(second).await;
        assert_eq!(admitted(&admission), 30, "one of four: 120 / 4");
        let refused = admission.connect(None).unwrap_err();
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
