//! Private nats-servers with JetStream.

mod cluster;
mod probe;
mod server;

pub use cluster::NatsCluster;
pub use server::{NatsOptions, NatsServer, SyncInterval};
