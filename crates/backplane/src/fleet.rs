//! The edges among themselves, and operators with all of them: a NATS service
//! (ADR-32) with one instance per edge.
//!
//! | subject | who answers |
//! |---|---|
//! | `<prefix>.admin.<operation>` | one of the edges, for the whole fleet |
//! | `<prefix>.admin.edge.<edge>.<operation>` | that edge, for itself |
//! | `<prefix>.admin.every.<operation>` | every edge, for itself |
//! | `<prefix>.ctl.edge.beat`, `….bye` | nobody: an edge is there, or leaves, and has got so far ([`crate::lives`]) |

mod roster;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::header::{HeaderName, IntoHeaderName};
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{NATS_SERVICE_ERROR, Request, Service, ServiceExt, error};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use delivery::fleet::{Answers, Fleet, Office, Peer, Question, Refusal, Scope, To};
use delivery::signal::SignalError;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::connect::Inner;
use crate::lives::Life;
use crate::monitor::AbortOnDrop;
use roster::Roster;

/// How often an edge says that it is there.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer of another edge is waited for: one that lives answers
/// within milliseconds, and a person waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Questions that are answered at the same time, of each kind. More wait.
const CONCURRENT_MAX: usize = 32;

/// Which edge answers.
const EDGE: HeaderName = HeaderName::from_static("rejoin-edge");

/// Which edge asks; it answers itself without NATS.
const ASKER: HeaderName = HeaderName::from_static("rejoin-asker");

/// What an edge says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Beat {
    edge: Box<str>,
    takes_connections: bool,
    /// Which process it is; 0 of one that does not say.
    #[serde(default)]
    process: u64,
    /// How far it has got in each life of the streams.
    #[serde(default)]
    lives: Vec<Life>,
}

/// A handle to the other edges.
#[derive(Clone)]
pub struct FleetBus {
    inner: Arc<Inner>,
    roster: Arc<Mutex<Roster>>,
}

impl FleetBus {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let roster = Roster::new(&inner.config.edge);
        Self {
            inner,
            roster: Arc::new(Mutex::new(roster)),
        }
    }

    fn own_name(&self) -> &str {
        &self.inner.config.edge
    }

    async fn beat(&self, takes_connections: bool) {
        self.say("edge.beat", takes_connections, false).await;
    }

    /// Best effort: the next beat comes in a second, and an edge that leaves
    /// without a word is found out about a little later.
    async fn say(&self, control: &str, takes_connections: bool, leaving: bool) {
        let link = &self.inner.catchup;
        if !link.is_up() {
            return;
        }
        let beat = Beat {
            edge: self.own_name().into(),
            takes_connections,
            process: self.inner.process,
            lives: self.inner.lives(leaving),
        };
        let Ok(body) = serde_json::to_vec(&beat) else {
            return;
        };
        let subject = self.inner.names.control(control);
        let said = link.client.publish(subject, body.into());
        if tokio::time::timeout(BEAT_INTERVAL, said).await.is_err() {
            tracing::debug!("fleet.beat_not_sent");
        }
    }

    /// Says and hears who is there. Ends with the connection.
    async fn keep_roster(&self, office: &dyn Office, mut heard: Subscriber) {
        let mut ticks = tokio::time::interval(BEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.beat(office.takes_connections()).await,
                message = heard.next() => {
                    let Some(message) = message else { return };
                    if self.hear(&message) {
                        // It knows nobody yet.
                        self.beat(office.takes_connections()).await;
                    }
                }
            }
        }
    }

    /// Returns whether that edge was not known.
    fn hear(&self, message: &Message) -> bool {
        let Ok(beat) = serde_json::from_slice::<Beat>(&message.payload) else {
            return false;
        };
        let mut roster = self.roster.lock();
        if message.subject.ends_with(".bye") {
            roster.gone(&beat.edge);
            return false;
        }
        roster.heard(&beat.edge, beat.takes_connections, Instant::now())
    }

    async fn start(&self, office: &Arc<dyn Office>) -> Result<Running, async_nats::Error> {
        let config = &self.inner.config;
        let names = &self.inner.names;
        let client = &self.inner.catchup.client;
        let numbers = Arc::clone(office);
        let metadata = [
            ("edge", config.edge.clone()),
            ("prefix", config.prefix.clone()),
            ("shards", config.shards.to_string()),
        ];
        let service = client
            .service_builder()
            .description("Durable messages to web and mobile clients: one instance per edge")
            .metadata(metadata.map(|(key, value)| (key.to_owned(), value)).into())
            .stats_handler(move |_, _| {
                serde_json::from_slice(&numbers.numbers()).unwrap_or_default()
            })
            .start(&config.prefix, env!("CARGO_PKG_VERSION"))
            .await?;
        let mut for_fleet = Vec::new();
        for (operation, about) in office.operations() {
            let endpoint = endpoint(&service, operation, names.admin(operation), about, "q");
            for_fleet.push(endpoint.await?);
        }
        let about = "the same operations by one edge, for itself";
        let own = names.admin_edge(&config.edge, "*");
        let mine = endpoint(&service, "edge", own, about, "q").await?;
        let about = "the same operations by every edge, each for itself";
        // A queue group of one: everybody gets it.
        let queue = format!("{}-{:08x}", config.edge, rand::random::<u32>());
        let every = names.admin_every("*");
        let everybody = endpoint(&service, "every", every, about, &queue).await?;
        Ok(Running {
            heard: client.subscribe(names.control("edge.*")).await?,
            service,
            for_fleet,
            for_edge: vec![mine, everybody],
        })
    }

    async fn answer_all(&self, office: &dyn Office, scope: Scope, endpoints: Vec<Endpoint>) {
        stream::select_all(endpoints)
            .for_each_concurrent(CONCURRENT_MAX, |request| async move {
                self.answer(office, scope, request).await;
            })
            .await;
    }

    async fn answer(&self, office: &dyn Office, scope: Scope, request: Request) {
        let message = &request.message;
        let asker = header(message, ASKER);
        if asker.as_deref() == Some(self.own_name()) {
            return;
        }
        let operation = message.subject.rsplit('.').next().unwrap_or_default();
        let body = message.payload.clone();
        let answer = office.answer(scope, operation, body).await;
        let answer = answer.map_err(|Refusal { status, message }| error::Error {
            status: message.replace(|c: char| c.is_control(), " "),
            code: usize::from(status),
        });
        let mut headers = HeaderMap::new();
        headers.insert(EDGE, self.own_name());
        if let Err(error) = request.respond_with_headers(answer, headers).await {
            tracing::debug!(%error, "admin.not_answered");
        }
    }

    /// Those who did not answer stay in `waiting`.
    async fn ask_these(
        &self,
        question: Question,
        waiting: &mut Vec<Box<str>>,
        given: &mut Vec<(Box<str>, Result<Bytes, String>)>,
    ) -> Result<(), async_nats::Error> {
        let names = &self.inner.names;
        let client = &self.inner.catchup.client;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let subject = match &question.to {
            To::Others => names.admin_every(question.operation),
            To::One(edge) => names.admin_edge(edge, question.operation),
        };
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let mut headers = HeaderMap::new();
        headers.insert(ASKER, self.own_name());
        client
            .publish_with_reply_and_headers(subject, inbox, headers, question.body)
            .await?;
        while !waiting.is_empty() {
            let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await else {
                return Ok(());
            };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                return Ok(());
            }
            let Some(edge) = header(&answer, EDGE) else {
                continue;
            };
            waiting.retain(|name| *name != edge);
            let failed = header(&answer, NATS_SERVICE_ERROR);
            given.push((edge, failed.map_or(Ok(answer.payload), |it| Err(it.into()))));
        }
        Ok(())
    }
}

/// Listens to what edges say of the streams' lives, once per backplane.
pub(crate) fn listen(inner: &Arc<Inner>) {
    inner
        .listener
        .get_or_init(|| AbortOnDrop::new(tokio::spawn(listen_to_all(Arc::downgrade(inner)))));
}

async fn listen_to_all(weak: Weak<Inner>) {
    let Some(inner) = weak.upgrade() else { return };
    let client = inner.catchup.client.clone();
    let subject = inner.names.control("edge.*");
    drop(inner);
    // Only a closed connection refuses a subscription; without it there is
    // doubt about every ended life.
    let Ok(mut heard) = client.subscribe(subject).await else {
        return;
    };
    if client.flush().await.is_err() {
        return;
    }
    if let Some(inner) = weak.upgrade() {
        inner.witnesses.lock().listen(Instant::now());
    }
    while let Some(message) = heard.next().await {
        let Some(inner) = weak.upgrade() else { return };
        if let Ok(beat) = serde_json::from_slice::<Beat>(&message.payload) {
            let leaves = message.subject.ends_with(".bye");
            let mut witnesses = inner.witnesses.lock();
            witnesses.heard(&beat.edge, beat.process, beat.lives, leaves, Instant::now());
        }
    }
}

/// A service and what it listens to.
struct Running {
    heard: Subscriber,
    /// Answers `PING`, `INFO` and `STATS`.
    service: Service,
    for_fleet: Vec<Endpoint>,
    for_edge: Vec<Endpoint>,
}

async fn endpoint(
    service: &Service,
    name: &str,
    subject: String,
    about: &str,
    queue: &str,
) -> Result<Endpoint, async_nats::Error> {
    let metadata = HashMap::from([("about".to_owned(), about.to_owned())]);
    let builder = service.endpoint_builder().name(name).metadata(metadata);
    builder.queue_group(queue).add(subject).await
}

fn header(message: &Message, name: impl IntoHeaderName) -> Option<Box<str>> {
    let value = message.headers.as_ref()?.get_last(name)?;
    Some(value.as_str().into())
}

impl Fleet for FleetBus {
    fn peers(&self) -> Vec<Peer> {
        self.roster.lock().peers()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Answers> {
        Box::pin(async move {
            let (mut waiting, mut missing) = (Vec::new(), Vec::new());
            match &question.to {
                To::One(edge) => waiting.push(edge.clone()),
                To::Others => {
                    for peer in self.peers() {
                        let list = if peer.alive {
                            &mut waiting
                        } else {
                            &mut missing
                        };
                        list.push(peer.name);
                    }
                }
            }
            let mut given = Vec::new();
            if self.inner.catchup.is_up() {
                let asked = self.ask_these(question, &mut waiting, &mut given).await;
                if let Err(error) = asked {
                    tracing::debug!(%error, "fleet.not_asked");
                }
            }
            missing.append(&mut waiting);
            missing.retain(|name| given.iter().all(|(edge, _)| edge != name));
            missing.sort_unstable();
            Answers { given, missing }
        })
    }

    fn serve(&self, office: Arc<dyn Office>) -> BoxFuture<'_, Result<(), SignalError>> {
        Box::pin(async move {
            let Running {
                heard,
                service,
                for_fleet,
                for_edge,
            } = self.start(&office).await.map_err(|error| SignalError {
                reason: error.to_string(),
            })?;
            // Apart, so that questions to this edge never wait for questions
            // to the fleet, which wait for other edges.
            tokio::select! {
                () = self.keep_roster(&*office, heard) => {}
                () = self.answer_all(&*office, Scope::Fleet, for_fleet) => {}
                () = self.answer_all(&*office, Scope::Edge, for_edge) => {}
            }
            // Its own task would answer for ever.
            service.stop().await.map_err(|error| SignalError {
                reason: error.to_string(),
            })
        })
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.say("edge.bye", false, true).await;
            // Best effort, like the word itself.
            let flush = self.inner.catchup.client.flush();
            let _ = tokio::time::timeout(BEAT_INTERVAL, flush).await;
        })
    }
}
