//! The store's parts of a process: its archivers, its outbox relay, and what
//! an edge asks of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use backplane::Backplane;
use delivery::archiver::{Archiver, ArchiverStats, Clock};
use delivery::publish::Publish;
use edge::{Drain, Phase};
use protocol::Channel;
use store::{OncePublisher, OutboxRelay, OutboxStats, Sink, Store};
use tokio::sync::SetOnce;
use tokio::task::JoinSet;

use crate::config::Config;

/// Between two attempts to bring the schema up to date.
const MIGRATE_PAUSE: Duration = Duration::from_secs(1);

/// The store of a process, if it has one. It needs no Postgres to be there:
/// until it is, what needs it answers `unavailable`.
pub fn open(config: &Config) -> anyhow::Result<Option<Store>> {
    if !config.store.is_set() {
        return Ok(None);
    }
    let store =
        Store::new(config.store.store_config(config.backplane.shards)).context("store.url")?;
    Ok(Some(store))
}

/// Whether the schema is up to date; a cheap handle.
#[derive(Clone, Default)]
pub struct Schema(Arc<SetOnce<()>>);

impl Schema {
    /// Waits until it is.
    async fn up_to_date(&self) {
        self.0.wait().await;
    }
}

/// Brings the schema up to date, for as long as it takes, and then stays
/// until the process leaves.
pub async fn keep_migrated(store: Store, schema: Schema, drain: Drain) -> &'static str {
    while let Err(error) = store.migrate().await {
        tracing::warn!(%error, "waiting for Postgres");
        tokio::time::sleep(MIGRATE_PAUSE).await;
    }
    tracing::info!("the schema in Postgres is up to date");
    // It fails only if it is set, and nobody else sets it.
    let _ = schema.0.set(());
    drain.reached(Phase::Leaving).await;
    "migrations"
}

/// One archiver per shard, as tasks of the process; returns what they count.
/// When the process leaves they give their leases back.
pub fn spawn_archivers(
    config: &Config,
    backplane: &Backplane,
    store: &Store,
    schema: &Schema,
    drain: &Drain,
    tasks: &mut JoinSet<&'static str>,
) -> Vec<Arc<ArchiverStats>> {
    // Unique to this process, also after a restart of the same edge: a lease
    // must not be mistaken for one's own.
    let holder = format!("{}-{:08x}", config.edge.name, rand::random::<u32>());
    let archivers = (0..backplane.shards()).map(|shard| {
        let archiver = Archiver::new(
            shard,
            config.store.archiver_config(holder.clone()),
            backplane.archive_source(shard),
            Sink::new(store),
            clock(),
        );
        let stats = archiver.stats();
        let (schema, drain) = (schema.clone(), drain.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = schema.up_to_date() => archiver.run(leaving(drain)).await,
                () = drain.reached(Phase::Leaving) => {}
            }
            "archiver"
        });
        stats
    });
    archivers.collect()
}

/// Publishing such that a retry of any age yields one message.
pub fn publisher(
    config: &Config,
    backplane: &Backplane,
    store: Option<&Store>,
) -> Arc<dyn Publish> {
    let stream: Arc<dyn Publish> = Arc::new(backplane.publisher());
    match store {
        None => stream,
        Some(store) => {
            let window = Duration::from_millis(config.backplane.duplicate_window_ms);
            let backplane = backplane.clone();
            let began = Arc::new(move |channel: &Channel| backplane.began_ms(channel));
            Arc::new(OncePublisher::new(store, stream, window, clock()).remembering_since(began))
        }
    }
}

/// Relays what was published from SQL, until the process leaves.
pub fn spawn_outbox(
    config: &Config,
    store: &Store,
    publish: Arc<dyn Publish>,
    schema: &Schema,
    drain: &Drain,
    tasks: &mut JoinSet<&'static str>,
) -> Arc<OutboxStats> {
    let relay = OutboxRelay::new(store, publish, config.edge.limits.message_bytes);
    let stats = relay.stats();
    let (schema, drain) = (schema.clone(), drain.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = schema.up_to_date() => relay.run(leaving(drain)).await,
            () = drain.reached(Phase::Leaving) => {}
        }
        "outbox"
    });
    stats
}

async fn leaving(drain: Drain) {
    drain.reached(Phase::Leaving).await;
}

fn clock() -> Clock {
    Arc::new(|| {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    })
}
