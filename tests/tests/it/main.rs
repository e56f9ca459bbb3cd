//! Everything at once, for real: edges as processes, nats-server, a balancer without affinity.
//!
//! - [`contract`]: what is published arrives, once, in order, on every edge;
//! - [`resume`]: who was away gets what was missed;
//! - [`storm`]: everybody comes back at once;
//! - [`access`]: who is let in, and for how long;
//! - [`bad_input`]: what hostile and broken clients get;
//! - [`faults`]: what happens when a part is away;
//! - [`operators`]: what operators do to running edges;
//! - [`rust_client`]: the Rust client comes back by itself;
//! - [`store`]: with Postgres;
//! - [`operations`]: what operators see and use;
//! - [`stock_client`]: a client that is not ours.
//!
//! Environment, each with what a plain run takes: `REJOIN_TEST_REPEATS` (reconnects while messages are published, 50),
//! `REJOIN_TEST_STORM` (clients of the storm, 2000), `REJOIN_TEST_ROLL`
//! (connections of the rolling restart, 400), `REJOIN_TEST_AWAY` (messages missed by who was away for weeks, 20000),
//! `REJOIN_TEST_KILLS` (of archivers, 8), `REJOIN_TEST_OUTAGE_S` (seconds without Postgres, 4), `REJOIN_TEST_RETRIES`
//! (messages published again and again, 400), `REJOIN_TEST_LOGS=1` (shows the edges' logs of a failed test). With
//! `--nocapture` the tests print what they counted.

mod harness;

mod access;
mod bad_input;

mod contract;
mod faults;
mod operations;
mod operators;
mod resume;
mod rust_client;
mod stock_client;
mod store;
mod storm;
