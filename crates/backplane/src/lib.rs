//! The NATS JetStream backplane: durable streams of messages, and the only
//! crate that knows about NATS.
//!
//! - [`BackplaneConfig`]: what it needs to know ([`config`]);
//! - [`Backplane`]: the connections and everything that hangs on them
//!   ([`connect`]); made ready by [`Backplane::provision`] ([`provision`]);
//! - [`Publisher`]: stores a message ([`publisher`]);
//! - [`StreamTail`]: new messages as they are stored ([`tail`]);
//! - [`StreamLog`]: older messages by channel and position ([`log`]);
//! - [`StreamArchiveSource`]: the stream as the archiver reads it ([`archive`]);
//! - [`SignalBus`], [`ControlBus`]: what is never stored ([`signals`]);
//! - [`FleetBus`]: the other edges, and the service for operators ([`fleet`]);
//! - [`Inspection`]: a look at all of it for operators ([`inspect`]).
//!
//! Inside, [`api`](self) calls are raw JSON requests with a short timeout of
//! our own: the client library's typed calls have timeouts that turn a second
//! of outage into thirteen, and its typed stream configuration would revert
//! the settings it does not know.

pub mod archive;
pub mod config;
pub mod connect;
pub mod fleet;
pub mod inspect;
pub mod log;
pub mod provision;
pub mod publisher;
pub mod signals;
pub mod stats;
pub mod tail;
pub mod usage;

mod api;
mod direct;
mod link;
mod lives;
mod message;
mod monitor;
mod names;
mod pull;
mod shard;
mod version;

pub use archive::StreamArchiveSource;
pub use config::{Auth, BackplaneConfig, Tls};
pub use connect::{Backplane, ConnectError};
pub use fleet::FleetBus;
pub use inspect::{
    ArchiverConsumer, Durability, InspectError, Inspection, PublicSubject, StreamInspection,
};
pub use log::StreamLog;
pub use provision::{ProvisionError, Provisioned};
pub use publisher::Publisher;
pub use signals::{ControlBus, SignalBus};
pub use stats::BackplaneStats;
pub use tail::{StreamTail, TailStart};
pub use usage::StreamUsage;
