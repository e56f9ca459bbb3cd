//! The one place where parts are wired to each other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backplane::{Backplane, TailStart};
use delivery::{DeliveryLimits, Hub, window};
use edge::auth::Authenticator;
use edge::{Edge, EdgeParts, remote};
use tokio::task::JoinSet;

use crate::config::Config;

/// How often the connection to NATS is looked at for `/readyz`; an edge that
/// lost it should be out of the balancer's rotation within a probe.
const READINESS_INTERVAL: Duration = Duration::from_millis(250);

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
}

/// Builds an edge on a connected and provisioned backplane. Windows fill in
/// the background; `/readyz` tells when.
pub fn compose(config: &Config, backplane: &Backplane) -> anyhow::Result<Composed> {
    let auth = Authenticator::new(&config.edge.auth).context("edge.auth")?;
    let stream = Arc::new(backplane.stream_log());
    let hub = Hub::new(backplane.shards(), None, stream, delivery_limits(config));
    let edge = Edge::new(EdgeParts {
        config: config.edge.clone(),
        auth,
        hub: hub.clone(),
        publish: Arc::new(backplane.publisher()),
        signals: Some(Arc::new(backplane.signals())),
        controls: Some(Arc::new(backplane.controls())),
        members: None,
        receipts: None,
    });
    let mut critical = JoinSet::new();
    for window in hub.windows() {
        let window = Arc::clone(window);
        let tail = backplane.tail(window.shard(), tail_start(config));
        critical.spawn(async move {
            window::fill(tail, &window).await;
            "window"
        });
    }
    critical.spawn(report_connection(backplane.clone(), edge.clone()));
    critical.spawn(pass_signals(edge.clone()));
    critical.spawn(obey_controls(edge.clone()));
    Ok(Composed { edge, critical })
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
    loop {
        match backplane.connected() {
            true => edge.readiness().ready(PART),
            false => edge.readiness().not_ready(PART, "not connected"),
        }
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
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
