//! Records what clients and publishers of Rejoin saw while parts of it failed, and finds what breaks the contract.
//!
//! - [`history`]: what happened, on one monotonic clock;
//! - [`checker`]: counts the anomalies of a history against what is stored, without any I/O;
//! - [`table`]: the figures of many runs, one line for each fault.
//!
//! The program of this package starts real edges, nats-servers and Postgres, breaks them in every way that it knows,
//! and hands the histories to the checker. `docs/RELIABILITY.md` says what it tests and what came out.

pub mod checker;
pub mod history;
pub mod table;
