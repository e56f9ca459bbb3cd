//! The binary `rejoin`: puts the parts together and runs them.
//!
//! - [`cli`]: what can be said on the command line;
//! - [`config`]: a file and the environment become one checked value;
//! - [`compose`]: the one place where parts are wired to each other;
//! - [`storage`]: the store's parts of a process;
//! - [`metrics`]: what the edge does not know about, for `/metrics`;
//! - [`lifecycle`]: from the first socket to the exit code;
//! - logs: [`telemetry`]; spans for a collector: [`traces`];
//! - [`commands`]: `serve`, `token`, `check`;
//! - [`dev`]: `dev`, the demonstration.

pub mod cli;
pub mod commands;
pub mod compose;
pub mod config;
pub mod dev;
pub mod lifecycle;
pub mod metrics;
pub mod storage;
pub mod telemetry;
pub mod traces;
