//! The one place where parts are wired to each other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backplane::{Backplane, TailStart};
use delivery::access::AccessRecords;
use delivery::members::Members;
use delivery::receipts::Receipts;
use delivery::{DeliveryLimits, Hub, Log, window};
use edge::admin::{self, LogFilter};
use edge::auth::Authenticator;
use edge::auth::jwks::Jwks;
use edge::{Edge, EdgeParts, remote, revocations};
use store::{AccessStore, ArchiveLog, MemberStore, ReceiptStore};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::traces::Traces;
use crate::{metrics, storage};

/// How often the connection to NATS is looked at for `/readyz`; an edge that
/// lost it should be out of the balancer's rotation within a probe.
const READINESS_INTERVAL: Duration = Duration::from_millis(250);

/// How often an edge looks how many share the fleet's rate: for so long one
/// that has just started takes the whole.
const RATE_INTERVAL: Duration = Duration::from_millis(50);

/// Between two attempts to subscribe to what is never stored.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// A composed edge: what it answers with, and the tasks that keep it alive.
pub struct Composed {
    /// The edge, ready to get a router and a listener.
    pub edge: Edge,
    /// Tasks that run for as long as the process does. Crash policy: none of
    /// them ever ends by itself, so if one does, the process stops with an
    /// error.
    pub critical: JoinSet<&'static str>,
    /// Tasks that end by themselves once the edge is leaving, and are given
    /// a moment to put things in order. Same crash policy until then.
    pub orderly: JoinSet<&'static str>,
}

/// Builds an edge on a connected and provisioned backplane. Windows fill in
/// the background; `/readyz` tells when. Postgres may be away: what needs it
/// answers `unavailable` until it is there.
pub fn compose(
    config: &Config,
    backplane: &Backplane,
    log: Arc<dyn LogFilter>,
) -> anyhow::Result<Composed> {
    let auth = Authenticator::new(&config.edge.auth).context("edge.auth")?;
    let store = storage::open(config)?;
    let archive = store.as_ref().map(|store| Arc::new(ArchiveLog::new(store)));
    let hub = Hub::new(
        backplane.shards(),
        archive.map(|archive| archive as Arc<dyn Log>),
        Arc::new(backplane.stream_log()),
        delivery_limits(config),
    );
    let traces = Traces::new(&config.trace, &config.edge.name)?;
    let publish = storage::publisher(config, backplane, store.as_ref());
    let publish = match &traces {
        Some(traces) => traces.publisher(publish),
        None => publish,
    };
    let members = store
        .as_ref()
        .map(|store| Arc::new(MemberStore::new(store)));
    let receipts = store
        .as_ref()
        .map(|store| Arc::new(ReceiptStore::new(store)));
    let access = store
        .as_ref()
        .map(|store| Arc::new(AccessStore::new(store)));
    let edge = Edge::new(EdgeParts {
        config: config.edge.clone(),
        auth,
        hub,
        publish: publish.clone(),
        signals: Some(Arc::new(backplane.signals())),
        controls: Some(Arc::new(backplane.controls())),
        members: members.map(|members| members as Arc<dyn Members>),
        receipts: receipts.map(|receipts| receipts as Arc<dyn Receipts>),
        access: access.map(|access| access as Arc<dyn AccessRecords>),
        fleet: Some(Arc::new(backplane.fleet())),
        log: Some(log),
    });
    metrics::add_backplane(&edge, backplane);
    metrics::add_process(&edge);
    let mut critical = JoinSet::new();
    fill_windows(config, backplane, &edge, traces.as_ref(), &mut critical);
    critical.spawn(report_connection(backplane.clone(), edge.clone()));
    critical.spawn(pass_signals(edge.clone()));
    critical.spawn(obey_controls(edge.clone()));
    critical.spawn(answer_the_fleet(edge.clone()));
    critical.spawn(share_the_rate(edge.clone()));
    if let Some(members) = edge.members().cloned() {
        critical.spawn(watch_members(edge.clone(), members));
    }
    if let Some(jwks) = edge.auth().jwks().cloned() {
        critical.spawn(keep_keys(edge.clone(), jwks));
    }
    if let Some(access) = edge.access().cloned() {
        critical.spawn(watch_revocations(edge.clone(), access));
    }
    let mut orderly = JoinSet::new();
    if let Some(store) = store {
        let drain = edge.drain();
        let schema = storage::Schema::default();
        orderly.spawn(storage::keep_migrated(
            store.clone(),
            schema.clone(),
            drain.clone(),
        ));
        orderly.spawn(metrics::watch_postgres(
            edge.clone(),
            store.clone(),
            drain.clone(),
        ));
        if config.store.outbox {
            let outbox =
                storage::spawn_outbox(config, &store, publish, &schema, drain, &mut orderly);
            metrics::add_outbox(&edge, outbox);
        }
        if config.store.archive.enabled {
            let archivers =
                storage::spawn_archivers(config, backplane, &store, &schema, drain, &mut orderly);
            edge.set_archivers(archivers.clone());
            metrics::add_archivers(&edge, archivers);
        }
    }
    Ok(Composed {
        edge,
        critical,
        orderly,
    })
}

fn fill_windows(
    config: &Config,
    backplane: &Backplane,
    edge: &Edge,
    traces: Option<&Traces>,
    critical: &mut JoinSet<&'static str>,
) {
    for window in edge.hub().windows() {
        let window = Arc::clone(window);
        let tail = backplane.tail(window.shard(), tail_start(config));
        let traces = traces.cloned();
        critical.spawn(async move {
            match traces {
                Some(traces) => window::fill(traces.tail(tail), &window).await,
                None => window::fill(tail, &window).await,
            }
            "window"
        });
    }
}

fn delivery_limits(config: &Config) -> DeliveryLimits {
    DeliveryLimits {
        window_bytes: config.edge.limits.window_bytes,
        subscriptions: config.edge.limits.subscriptions,
        ..DeliveryLimits::default()
    }
}

/// A window charges a message at about three times its size, and what does
/// not fit is evicted while filling: half is surely enough.
fn tail_start(config: &Config) -> TailStart {
    TailStart::Fill {
        budget_bytes: config.edge.limits.window_bytes as u64 / 2,
        max_age: None,
    }
}

async fn report_connection(backplane: Backplane, edge: Edge) -> &'static str {
    const PART: &str = "nats";
    let mut was_connected = true;
    loop {
        let connected = backplane.connected();
        match connected {
            true => edge.readiness().ready(PART),
            false => edge.readiness().not_ready(PART, "not connected"),
        }
        // Told here once: the client library would tell each of its attempts.
        match (was_connected, connected) {
            (true, false) => tracing::warn!("NATS is not connected"),
            (false, true) => tracing::info!("NATS is connected again"),
            (true, true) | (false, false) => {}
        }
        was_connected = connected;
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
}

async fn watch_members(edge: Edge, members: Arc<dyn Members>) -> &'static str {
    remote::watch_members(edge, members).await;
    "members"
}

/// Users cannot be let in before the issuer's keys are known; afterwards the
/// last ones do for a while.
async fn keep_keys(edge: Edge, jwks: Arc<Jwks>) -> &'static str {
    const PART: &str = "jwks";
    edge.readiness().not_ready(PART, "not read yet");
    jwks.keep(|| edge.readiness().ready(PART)).await;
    "jwks"
}

async fn watch_revocations(edge: Edge, access: Arc<dyn AccessRecords>) -> &'static str {
    revocations::watch_revocations(edge, access).await;
    "revocations"
}

async fn pass_signals(edge: Edge) -> &'static str {
    if let Some(signals) = edge.signals().cloned() {
        loop {
            match signals.subscribe().await {
                Ok(incoming) => remote::pass_signals(edge.clone(), incoming).await,
                Err(error) => tracing::warn!(%error, "signals cannot be received yet"),
            }
            tokio::time::sleep(SUBSCRIBE_PAUSE).await;
        }
    }
    "signals"
}

async fn obey_controls(edge: Edge) -> &'static str {
    if let Some(controls) = edge.controls().cloned() {
        loop {
            match controls.subscribe().await {
                Ok(incoming) => remote::obey_controls(edge.clone(), incoming).await,
                Err(error) => tracing::warn!(%error, "controls cannot be received yet"),
            }
            tokio::time::sleep(SUBSCRIBE_PAUSE).await;
        }
    }
    "controls"
}

async fn answer_the_fleet(edge: Edge) -> &'static str {
    if let Some(fleet) = edge.fleet().cloned() {
        loop {
            admin::serve(edge.clone(), Arc::clone(&fleet)).await;
            tokio::time::sleep(SUBSCRIBE_PAUSE).await;
        }
    }
    "fleet"
}

/// Keeps this edge's share of the fleet's connects up to date.
async fn share_the_rate(edge: Edge) -> &'static str {
    if let Some(fleet) = edge.fleet().cloned() {
        loop {
            let peers = fleet.peers().into_iter();
            let others = peers.filter(|peer| peer.alive && peer.takes_connections);
            edge.admission().set_edges(others.count() + 1);
            tokio::time::sleep(RATE_INTERVAL).await;
        }
    }
    "rate"
}
