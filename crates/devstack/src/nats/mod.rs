//! Private nats-servers with JetStream.

mod cluster;
mod probe;
mod server;

pub(crate) use probe::{greets, jetstream_answers};

pub use cluster::NatsCluster;
pub use server::{NatsOptions, NatsServer, SyncInterval};
