//! Everything at once, for real: edges as processes, nats-server, a balancer without affinity.
//!
//! - [`contract`]: what is published arrives, once, in order, on every edge;
//! - [`resume`]: who was away gets what was missed;
//! - [`storm`]: everybody comes back at once;
//! - [`bad_input`]: what hostile and broken clients get;
//! - [`faults`]: what happens when a part is away;
//! - [`rust_client`]: the Rust client comes back by itself;
//! - [`store`]: with Postgres;
//! - [`stock_client`]: a client that is not ours.
//!
//! Environment: `REJOIN_TEST_REPEATS` (repetitions of the reconnect under load, 50), `REJOIN_TEST_STORM` (connections of
//! the storm, 2000), `REJOIN_TEST_LOGS=1` (shows the edges' logs of a failed test).

mod harness;

mod bad_input;

mod contract;
mod faults;
mod resume;
mod rust_client;
mod stock_client;
mod store;
mod storm;
