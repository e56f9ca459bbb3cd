//! The Postgres store: everything that must outlive the stream. The only
//! crate that knows SQL.
//!
//! - [`Store`]: the bounded pool and the embedded migrations ([`connect`]);
//! - [`archive`]: the message archive, as a [`delivery::Log`], as the
//!   archiver's sink and backwards for the history API;
//! - [`rooms`]: room members; [`receipts`]: what each user has received and read;
//! - [`outbox`]: messages published from SQL;
//! - [`once`]: retried publishes of any age yield one message;
//! - [`access`]: revocations, and tickets that were used.
//!
//! Invariants: no query stands on the path of a live message; with Postgres
//! away every call answers `Unavailable` within about a second; no queue or
//! pool grows without a bound; and nothing is ordered by a number that
//! Postgres gives out before commit.

pub mod access;
pub mod archive;
pub mod config;
pub mod connect;
pub mod error;
pub mod inspect;
pub mod once;
pub mod outbox;
pub mod receipts;
pub mod rooms;

mod batch;
mod listen;

pub use access::AccessStore;
pub use archive::{ArchiveLog, Sink};
pub use config::StoreConfig;
pub use connect::Store;
pub use error::StoreError;
pub use inspect::{Inspection, PoolState};
pub use once::OncePublisher;
pub use outbox::{OutboxRelay, OutboxStats};
pub use receipts::ReceiptStore;
pub use rooms::MemberStore;
