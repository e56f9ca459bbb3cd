//! Starts a deployment for one test and speaks with it.

mod cli;
mod edge;
mod http;
mod nats;
mod observe;
mod python;
pub(crate) mod raw;
mod stack;
mod token;

pub(crate) use cli::NatsCli;
pub(crate) use http::{API_KEY, Http};
pub(crate) use nats::Nats;
pub(crate) use observe::{Watch, until};
pub(crate) use python::{python, run};
pub(crate) use stack::{Stack, StackOptions, connect};
pub(crate) use token::{TokenSpec, sign};

use std::time::Duration;

/// Longest wait for anything that happens at once on an idle machine. Test machines are not idle.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// `<name>-0`, `<name>-1` …: payloads that tell which is missing.
pub(crate) fn texts(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name}-{number}"))
        .collect()
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().expect(name),
        Err(_) => default,
    }
}

/// Runs each test with one stream and with four.
macro_rules! with_one_and_four_shards {
    ($($name:ident),+ $(,)?) => {
        mod one_shard {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(1).await; })+
        }
        mod four_shards {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(4).await; })+
        }
    };
}
pub(crate) use with_one_and_four_shards;
