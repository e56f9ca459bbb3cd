//! Gets and starts a private nats-server and Postgres for the demo, the tests and the benchmarks.
//!
//! - [`Tools`]: finds the servers on this machine, or installs pinned versions into the project's own folder.
//! - [`NatsServer`], [`NatsCluster`], [`Postgres`]: one running server each, with the switches that fault
//!   tests need (kill, stop, restart in place, pause).
//! - [`RoundRobinProxy`]: a balancer without affinity, which can also misbehave on request.
//! - [`Process`]: any child process that must not outlive this one, however this one ends.
//! - [`PortLease`]: a TCP port that no other user of this crate takes meanwhile.
//!
//! Everything listens on 127.0.0.1 only. The library prints nothing: long steps report to a [`Progress`].

mod account;
mod daemon;
mod error;
mod nats;
mod port;
mod postgres;
mod process;
mod proxy;
mod tools;

pub use error::{GetToolError, StartError};
pub use nats::{NatsCluster, NatsOptions, NatsServer, SyncInterval};
pub use port::PortLease;
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Process, ProcessSpec, Signal};
pub use proxy::{ProxyMode, RoundRobinProxy};
pub use tools::{Progress, Tools, silent};
