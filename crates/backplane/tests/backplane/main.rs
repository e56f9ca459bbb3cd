//! The backplane against a real nats-server.

mod archive;
mod batches;
mod cluster;
mod credentials;
mod faults;
mod fleet;
mod live;
mod log;
mod permissions;
mod provision;
mod signals;
mod support;
mod tls;
