//! What every request and connection of an edge shares.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use delivery::Hub;
use delivery::access::AccessRecords;
use delivery::archiver::ArchiverStats;
use delivery::fleet::Fleet;
use delivery::members::Members;
use delivery::publish::Publish;
use delivery::receipts::Receipts;
use delivery::signal::{Controls, Signals};
use delivery::stats::Counter;
use tokio::time::Instant;

use crate::admin::LogFilter;
use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::config::EdgeConfig;
use crate::drain::Drain;
use crate::exposition::Metrics;
use crate::http;
use crate::origin::OriginPolicy;
use crate::presence::PresenceDesk;
use crate::published::Counted;
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::ws::WsCounters;

/// What an edge is made of; the composition root fills it in.
pub struct EdgeParts {
    /// Settings and limits.
    pub config: EdgeConfig,
    /// Who may do what.
    pub auth: Authenticator,
    /// The windows and the logs below them.
    pub hub: Hub,
    /// Where messages are stored.
    pub publish: Arc<dyn Publish>,
    /// How signals travel between users; without it they are refused.
    pub signals: Option<Arc<dyn Signals>>,
    /// How edges tell each other things; without it only this edge is told.
    pub controls: Option<Arc<dyn Controls>>,
    /// Who is in which room; without it only tokens grant rooms.
    pub members: Option<Arc<dyn Members>>,
    /// What users have received and read; without it acks are refused.
    pub receipts: Option<Arc<dyn Receipts>>,
    /// What is revoked; without it nothing can be, and tickets are taken once
    /// per edge.
    pub access: Option<Arc<dyn AccessRecords>>,
    /// The other edges; without it this one speaks for itself alone.
    pub fleet: Option<Arc<dyn Fleet>>,
    /// What is logged; without it an operator cannot change that.
    pub log: Option<Arc<dyn LogFilter>>,
}

/// A cheap handle to an edge.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
}

struct Shared {
    parts: EdgeParts,
    origins: OriginPolicy,
    admission: Admission,
    drain: Drain,
    readiness: Readiness,
    registry: Registry,
    counters: WsCounters,
    metrics: Metrics,
    started: Instant,
    published: Arc<Counter>,
    presence: PresenceDesk,
    archivers: OnceLock<Vec<Arc<ArchiverStats>>>,
}

impl Edge {
    /// An edge that serves until its [`Drain`] says otherwise.
    pub fn new(mut parts: EdgeParts) -> Self {
        let published = Arc::<Counter>::default();
        parts.publish = Arc::new(Counted::new(parts.publish, Arc::clone(&published)));
        let config = &parts.config;
        let longest_wait = Duration::from_millis(config.limits.retry_max_ms.into());
        let readiness = Readiness::new();
        if parts.access.is_some() {
            // Until `watch_revocations` has read them.
            parts.auth.revocations().await_all();
            readiness.not_ready(crate::revocations::PART, "not read yet");
        }
        let shared = Shared {
            admission: Admission::new(&config.admission, longest_wait),
            origins: OriginPolicy::new(&config.origins, config.dev),
            drain: Drain::new(config.drain.spread()),
            readiness,
            registry: Registry::default(),
            counters: WsCounters::default(),
            metrics: Metrics::default(),
            started: Instant::now(),
            published,
            presence: PresenceDesk::default(),
            archivers: OnceLock::new(),
            parts,
        };
        let registry = shared.registry.clone();
        shared.drain.wake_with(move || registry.wake_all());
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Settings and limits.
    pub fn config(&self) -> &EdgeConfig {
        &self.shared.parts.config
    }

    /// Who may do what.
    pub fn auth(&self) -> &Authenticator {
        &self.shared.parts.auth
    }

    /// The windows and the logs below them.
    pub fn hub(&self) -> &Hub {
        &self.shared.parts.hub
    }

    /// Where messages are stored.
    pub fn publish(&self) -> &Arc<dyn Publish> {
        &self.shared.parts.publish
    }

    /// How signals travel between users.
    pub fn signals(&self) -> Option<&Arc<dyn Signals>> {
        self.shared.parts.signals.as_ref()
    }

    /// How edges tell each other things.
    pub fn controls(&self) -> Option<&Arc<dyn Controls>> {
        self.shared.parts.controls.as_ref()
    }

    /// Who is in which room.
    pub fn members(&self) -> Option<&Arc<dyn Members>> {
        self.shared.parts.members.as_ref()
    }

    /// What users have received and read.
    pub fn receipts(&self) -> Option<&Arc<dyn Receipts>> {
        self.shared.parts.receipts.as_ref()
    }

    /// What is revoked, and which tickets were used.
    pub fn access(&self) -> Option<&Arc<dyn AccessRecords>> {
        self.shared.parts.access.as_ref()
    }

    /// The other edges.
    pub fn fleet(&self) -> Option<&Arc<dyn Fleet>> {
        self.shared.parts.fleet.as_ref()
    }

    /// What is logged.
    pub fn log(&self) -> Option<&Arc<dyn LogFilter>> {
        self.shared.parts.log.as_ref()
    }

    /// How long the edge has been there.
    pub fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Messages stored through this edge.
    pub fn published(&self) -> u64 {
        self.shared.published.get()
    }

    pub(crate) fn presence_desk(&self) -> &PresenceDesk {
        &self.shared.presence
    }

    /// Shows operators what the archivers of this process do, in the order
    /// of their shards. Once.
    pub fn set_archivers(&self, archivers: Vec<Arc<ArchiverStats>>) {
        if self.shared.archivers.set(archivers).is_err() {
            tracing::error!("edge.archivers_set_twice");
        }
    }

    /// The archivers of this process, in the order of their shards.
    pub fn archivers(&self) -> &[Arc<ArchiverStats>] {
        self.shared.archivers.get().map_or(&[], Vec::as_slice)
    }

    /// What connections have done so far.
    pub fn counters(&self) -> &WsCounters {
        &self.shared.counters
    }

    /// Who is let in now.
    pub fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// Serving, leaving or stopped, and the connections that are open.
    pub fn drain(&self) -> &Drain {
        &self.shared.drain
    }

    /// Where parts of the process report whether they can do their work.
    pub fn readiness(&self) -> &Readiness {
        &self.shared.readiness
    }

    /// Where parts of the process show their numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Which web pages may use this edge.
    pub fn origins(&self) -> &OriginPolicy {
        &self.shared.origins
    }

    /// Everything this edge answers, as one service.
    pub fn router(&self) -> Router {
        http::layered(self, http::routes(self))
    }

    /// The live connections by user.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }
}
