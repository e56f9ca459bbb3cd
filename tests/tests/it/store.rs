//! With Postgres: weeks away, killed archivers, an outage, rooms, receipts, retries of any age, publishing from SQL.

mod archive;
mod cursors;
mod measure;
mod once;
mod people;

use std::time::{SystemTime, UNIX_EPOCH};

use devstack::Postgres;
use protocol::Channel;

use crate::harness::{Stack, StackOptions, until};

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// A deployment with a database of its own on the shared server.
pub(crate) async fn with_store(shards: u16, config: &str) -> StackOptions {
    let postgres = Postgres::shared().await.expect("Postgres");
    let database = postgres.scratch_database().await.expect("a database");
    StackOptions {
        shards,
        // The smallest: whatever is not new is not in it.
        limits: "window_bytes = 1048576".to_owned(),
        store: Some(format!(
            "url = \"{database}\"\n\n[store.archive]\nlease_ms = 1000\n{config}"
        )),
        ..StackOptions::default()
    }
}

/// Waits until the archive has everything of the channel's shard up to a position.
async fn archived(stack: &Stack) {
    let comparison = async || {
        let report = stack.check_archive().await;
        let complete = report
            .lines()
            .filter(|line| line.ends_with("; 0 not archived yet"));
        complete.count() == usize::from(stack.shards)
    };
    until("the archive is complete", comparison).await;
}

fn now_us() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_micros()
}
