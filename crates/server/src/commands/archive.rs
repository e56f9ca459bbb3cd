//! `rejoin archive`: moves streams into Postgres, without an edge, where
//! archiving should have a machine of its own. Edges then say
//! `store.archive.enabled = false`, or stand by.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use edge::{Drain, Phase};
use tokio::task::JoinSet;

use crate::cli::ArchiveArgs;
use crate::{commands, lifecycle, storage, telemetry};

/// Archives until told to stop.
pub async fn run(arguments: ArchiveArgs) -> anyhow::Result<ExitCode> {
    let config = commands::load(&arguments.config)?;
    telemetry::start(&config.log)?;
    let store = storage::open(&config)?.context("store.url is not set")?;
    let mut stop = lifecycle::Stop::new()?;
    let backplane = tokio::select! {
        connected = lifecycle::connect(&config) => connected?,
        signal = stop.asked() => {
            tracing::info!(signal, "stopping before NATS was reached");
            return Ok(ExitCode::SUCCESS);
        }
    };
    // There are no connections to drain; only its phases are used.
    let drain = Drain::new(Duration::ZERO);
    let mut orderly = JoinSet::new();
    let schema = storage::Schema::default();
    orderly.spawn(storage::keep_migrated(
        store.clone(),
        schema.clone(),
        drain.clone(),
    ));
    storage::spawn_archivers(&config, &backplane, &store, &schema, &drain, &mut orderly);
    let verdict = tokio::select! {
        signal = stop.asked() => {
            tracing::info!(signal, "stopping");
            ExitCode::SUCCESS
        }
        dead = orderly.join_next() => lifecycle::dead_part(dead),
    };
    drain.advance(Phase::Leaving);
    lifecycle::put_in_order(&mut orderly).await;
    tracing::info!("stopped");
    Ok(verdict)
}
