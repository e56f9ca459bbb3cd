//! A look at a deployment without changing it, for operators.

mod permissions;

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Request};
use delivery::archive::SourceState;
use protocol::{Channel, Epoch};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::{self, ApiError, SequencePair, StreamInfo, code};
use crate::archive::session::CONSUMER as ARCHIVER;
use crate::connect::{Backplane, Inner};
use crate::provision::{Provisioned, warn_about};
use crate::shard::{self, SHARDS_KEY, Shard, StreamState};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The server's version.
    pub server_version: String,
    /// The way there and back.
    pub round_trip: Duration,
    /// Largest message that the server takes, in bytes, headers included.
    pub max_payload_bytes: usize,
    /// The streams, by shard.
    pub streams: Vec<StreamInspection>,
    /// Whether `<prefix>.pub.<namespace>.<id>` reaches the streams.
    pub public_subject: PublicSubject,
    /// How far the server's clock is ahead of ours, in milliseconds, to within
    /// half a round trip; `None` without a stream to ask about.
    pub clock_ahead_ms: Option<i64>,
    /// What this user may not do and an edge has to, each by the subject;
    /// empty without a stream.
    pub forbidden: Vec<String>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInspection {
    /// Its name.
    pub name: String,
    /// Its state; `None` if it does not exist.
    pub state: Option<SourceState>,
    /// Copies of each message.
    pub replicas: u64,
    /// How many shards it says that its deployment has, where it says so.
    pub shards: Option<String>,
    /// What weakens the delivery contract.
    pub warnings: Vec<String>,
    /// The archiver's consumer; `None` if it does not exist, or this user may
    /// not look at it.
    pub archiver: Option<ArchiverConsumer>,
}

/// The archiver's consumer of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverConsumer {
    /// Everything up to this sequence was acknowledged.
    pub acknowledged: u64,
    /// Whether an archiver asks it for messages now.
    pub in_use: bool,
    /// What is not as the archiver makes it.
    pub warnings: Vec<String>,
}

/// Whether services and operators can publish without knowing the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicSubject {
    /// Mapped to the right streams.
    Mapped,
    /// The server has no such mapping.
    NotMapped,
    /// Mapped to other streams than edges look into: messages would not
    /// reach anybody.
    WrongStream,
    /// There is no stream yet, or no answer.
    Unknown,
}

/// Why nothing could be found out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("stream {stream}: {reason}")]
pub struct InspectError {
    /// The stream that was asked for.
    pub stream: String,
    /// What happened.
    pub reason: String,
}

/// So many channels are tried for [`PublicSubject`]: with four shards, a
/// wrong function is right about all of them once in 65,536 times.
const PROBED_CHANNELS: u32 = 8;

impl Backplane {
    /// Looks at the server and at every stream, as an edge that `archives` or
    /// not. Nothing is created, stored or changed.
    pub async fn inspect(&self, archives: bool) -> Result<Inspection, InspectError> {
        let inner = &self.inner;
        let mut streams = Vec::new();
        for shard in &inner.shards {
            streams.push(inspect_stream(inner, shard).await?);
        }
        let all_there = streams.iter().all(|stream| stream.state.is_some());
        let server = inner.publish.client.server_info();
        let begin = Instant::now();
        // Any answer will do; it has answered just now.
        let answer = stream_info(inner, &inner.shards[0]).await;
        let round_trip = begin.elapsed();
        let clock_ahead_ms = answer
            .ok()
            .and_then(|info| clock_ahead_ms(&info, round_trip));
        Ok(Inspection {
            server_version: server.version,
            round_trip,
            clock_ahead_ms,
            forbidden: match all_there {
                true => permissions::forbidden(inner, archives).await,
                false => Vec::new(),
            },
            max_payload_bytes: server.max_payload,
            streams,
            public_subject: match all_there {
                true => probe_public_subject(inner).await,
                false => PublicSubject::Unknown,
            },
        })
    }
}

async fn stream_info(inner: &Inner, shard: &Shard) -> Result<StreamInfo, ApiError> {
    let timeout = inner.config.request_timeout();
    shard::stream_info(&inner.catchup.client, &shard.stream, timeout).await
}

/// The middle of the round trip against what the server wrote.
fn clock_ahead_ms(info: &StreamInfo, round_trip: Duration) -> Option<i64> {
    let theirs = OffsetDateTime::parse(info.ts.as_deref()?, &Rfc3339).ok()?;
    let ours = OffsetDateTime::now_utc() - round_trip / 2;
    i64::try_from((theirs - ours).whole_milliseconds()).ok()
}

async fn inspect_stream(inner: &Inner, shard: &Shard) -> Result<StreamInspection, InspectError> {
    let failed = |error: ApiError| InspectError {
        stream: shard.stream.clone(),
        reason: error.to_string(),
    };
    let mut found = StreamInspection {
        name: shard.stream.clone(),
        state: None,
        replicas: 0,
        shards: None,
        warnings: Vec::new(),
        archiver: None,
    };
    let info = match stream_info(inner, shard).await {
        Ok(info) => info,
        Err(error) if error.is(code::STREAM_NOT_FOUND) => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    let state = StreamState::read(&info).map_err(failed)?;
    let mut report = Provisioned::default();
    warn_about(&info.config, &shard.stream, &inner.config, &mut report);
    found.warnings = report.warnings;
    found.replicas = state.replicas;
    found.archiver = inspect_archiver(inner, shard).await.map_err(failed)?;
    found.shards = info.metadata(SHARDS_KEY).map(str::to_owned);
    found.state = Some(SourceState {
        epoch: Epoch(state.epoch.0),
        first: state.first,
        last: state.last,
        bytes: state.bytes,
        max_bytes: state.max_bytes,
    });
    Ok(found)
}

async fn inspect_archiver(
    inner: &Inner,
    shard: &Shard,
) -> Result<Option<ArchiverConsumer>, ApiError> {
    #[derive(Deserialize)]
    struct Info {
        config: Value,
        ack_floor: SequencePair,
        #[serde(default)]
        num_waiting: u64,
    }
    let method = format!("CONSUMER.INFO.{}.{ARCHIVER}", shard.stream);
    let timeout = inner.config.request_timeout();
    let answer = api::call::<Info>(&inner.catchup.client, method, &Value::Null, timeout).await;
    let info = match answer {
        Ok(info) => info,
        Err(error) if error.is(code::CONSUMER_NOT_FOUND) => return Ok(None),
        // An edge that does not archive need not be allowed to ask.
        Err(ApiError::Timeout(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut warnings = Vec::new();
    if info.config.get("ack_policy").and_then(Value::as_str) != Some("all") {
        warnings.push("ack_policy is not `all`".to_owned());
    }
    for filter in ["filter_subject", "filter_subjects"] {
        if info.config.get(filter).is_some() {
            warnings.push(format!(
                "{filter} is set: other messages are never archived"
            ));
        }
    }
    Ok(Some(ArchiverConsumer {
        acknowledged: info.ack_floor.stream_seq,
        in_use: info.num_waiting > 0,
        warnings,
    }))
}

/// Publishes messages that no stream can accept: they expect a last sequence
/// that there never is. The refusal tells which stream would have stored
/// them.
async fn probe_public_subject(inner: &Inner) -> PublicSubject {
    for number in 0..PROBED_CHANNELS {
        let Ok(channel) = Channel::from_parts("rejoin-check", &number.to_string()) else {
            return PublicSubject::Unknown;
        };
        let stream = &inner.shard(channel.shard(inner.config.shards)).stream;
        match probe(inner, &channel, stream).await {
            PublicSubject::Mapped => {}
            other => return other,
        }
    }
    PublicSubject::Mapped
}

async fn probe(inner: &Inner, channel: &Channel, stream: &str) -> PublicSubject {
    #[derive(Deserialize)]
    struct Never {}
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", stream);
    headers.insert("Nats-Expected-Last-Sequence", u64::MAX.to_string());
    let subject = inner.names.public(channel);
    let request = Request::new().headers(headers);
    let timeout = inner.config.request_timeout();
    let answer = api::request(&inner.publish.client, subject, request, timeout).await;
    let refusal = match answer {
        Ok(message) => api::decode::<Never>(&message.payload).err(),
        Err(ApiError::NoResponders) => return PublicSubject::NotMapped,
        Err(_) => None,
    };
    match refusal {
        Some(error) if error.is(code::EXPECTED_STREAM_DIFFERS) => PublicSubject::WrongStream,
        Some(error)
            if error.is(code::WRONG_LAST_SEQUENCE) || error.is(code::WRONG_LAST_SEQUENCE_PLAIN) =>
        {
            PublicSubject::Mapped
        }
        Some(_) | None => PublicSubject::Unknown,
    }
}

/// Whether what is published is on the disk before it is acknowledged, as
/// the monitoring page `/jsz` of a nats-server tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is.
    SyncAlways,
    /// The disk is up to so much behind.
    SyncEvery(Duration),
}

impl Durability {
    /// Reads the body of `GET /jsz?config=1`; `None` if it is something else.
    pub fn from_monitoring(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let config = body.get("config")?;
        if config.get("sync_always").and_then(Value::as_bool) == Some(true) {
            return Some(Self::SyncAlways);
        }
        let interval = config.get("sync_interval")?.as_u64()?;
        Some(Self::SyncEvery(Duration::from_nanos(interval)))
    }
}
