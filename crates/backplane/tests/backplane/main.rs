//! The backplane against a real nats-server.

mod archive;
mod faults;
mod live;
mod log;
mod provision;
mod signals;
mod support;
