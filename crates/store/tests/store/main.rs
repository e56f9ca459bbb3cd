//! The store on a real Postgres.

mod access;
mod archive;
mod epochs;
mod faults;
mod kills;
mod measure;
mod members;
mod once;
mod outage;
mod outbox;
mod receipts;
mod retention;
mod stream;
mod tls;
mod world;
