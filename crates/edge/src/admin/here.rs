//! What this edge alone answers, and does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use delivery::Place;
use protocol::{Channel, CloseCode, Cursor, ErrorCode, UserId};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::fleet::json;
use super::report::SLOW_AFTER_MS;
use super::{Operation, Report, requests};
use crate::Edge;
use crate::http::error::ApiError;
use crate::registry::{Command, ConnectionHandle, Describe};

/// Connections that one edge tells of at a time; a user has a few.
const CONNECTIONS_MAX: usize = 200;

/// How long the tasks of connections may take to say where they stand. An
/// event stream whose client does not read does not get to it.
const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(250);

/// Users that one edge names for a channel: as many as a `presence` frame.
pub(super) const USERS_MAX: usize = protocol::limits::PRESENCE_USERS_MAX;

/// A connection, for an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ConnectionRow {
    pub(super) edge: Box<str>,
    pub(super) session: String,
    pub(super) user: UserId,
    pub(super) device: Option<protocol::Device>,
    pub(super) transport: Box<str>,
    pub(super) since_ms: u64,
    /// Since when the client takes nothing.
    pub(super) slow_since_ms: Option<u64>,
    /// Left out where the connection did not get to tell.
    pub(super) channels: Option<Vec<ChannelRow>>,
}

/// Where one of its subscriptions stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChannelRow {
    channel: Channel,
    position: Cursor,
    live: bool,
    /// In messages; `None` for more than the window holds.
    lag: Option<usize>,
}

/// Connections of one edge.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Connections {
    pub(super) connections: Vec<ConnectionRow>,
    /// Whether there are more than are told of.
    pub(super) more: bool,
}

/// Who reads a channel on one edge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Audience {
    pub(super) edge: Box<str>,
    pub(super) head: Cursor,
    pub(super) readers: usize,
    pub(super) users: BTreeSet<UserId>,
    pub(super) more: bool,
}

/// Connections closed on one edge.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Disconnected {
    pub(super) edge: Box<str>,
    pub(super) disconnected: usize,
}

#[derive(Debug, Serialize)]
struct Drained {
    edge: Box<str>,
    draining: bool,
    connections: usize,
}

#[derive(Debug, Serialize)]
struct Logging {
    edge: Box<str>,
    filter: String,
}

/// Answers for this edge.
pub(super) async fn answer_json(
    edge: &Edge,
    operation: Operation,
    body: &[u8],
) -> Result<Bytes, ApiError> {
    match operation {
        Operation::Edges => json(&Report::of(edge)),
        Operation::Connections => json(&connections_of(edge, requests::parse(body)?).await),
        Operation::Slow => json(&slow(edge).await),
        Operation::Channel => json(&audience(edge, &requests::parse(body)?)),
        Operation::Disconnect => json(&disconnect(edge, &requests::parse(body)?)),
        Operation::Drain => {
            let requests::Drain {
                edge: name,
                spread_ms,
            } = requests::parse(body)?;
            meant(edge, &name)?;
            edge.drain()
                .rest(spread_ms.map(|ms| Duration::from_millis(ms.into())));
            json(&drained(edge))
        }
        Operation::Undrain => {
            let requests::Undrain { edge: name } = requests::parse(body)?;
            meant(edge, &name)?;
            edge.drain().resume();
            json(&drained(edge))
        }
        Operation::Log => json(&log(edge, requests::parse(body)?)?),
        // Asked of every edge, it would be stored once for each.
        Operation::Publish => Err(ApiError::new(
            ErrorCode::BadRequest,
            "one edge publishes for all: ask the fleet",
        )),
    }
}

/// An edge that all are asked to drain at once is none that is named.
fn meant(edge: &Edge, named: &requests::EdgeName) -> Result<(), ApiError> {
    if *named.0 == *edge.config().name {
        return Ok(());
    }
    let message = format!("this is {}", edge.config().name);
    Err(ApiError::new(ErrorCode::BadRequest, message))
}

fn name(edge: &Edge) -> Box<str> {
    edge.config().name.as_str().into()
}

async fn connections_of(edge: &Edge, request: requests::OfUser) -> Connections {
    rows(edge, edge.registry().of(&request.user)).await
}

async fn slow(edge: &Edge) -> Connections {
    rows(edge, edge.registry().slow(SLOW_AFTER_MS)).await
}

async fn rows(edge: &Edge, mut handles: Vec<Arc<ConnectionHandle>>) -> Connections {
    let more = handles.len() > CONNECTIONS_MAX;
    handles.truncate(CONNECTIONS_MAX);
    let mut places = places_of(&handles).await;
    let row = |handle: &Arc<ConnectionHandle>| ConnectionRow {
        edge: name(edge),
        session: format!("{}-{}", edge.config().name, handle.id()),
        user: handle.user().clone(),
        device: handle.device().cloned(),
        transport: handle.transport().as_str().into(),
        since_ms: handle.since_ms(),
        slow_since_ms: handle.stalled_since_ms(),
        channels: places
            .remove(&handle.id())
            .map(|places| places.into_iter().map(channel_row).collect()),
    };
    Connections {
        connections: handles.iter().map(row).collect(),
        more,
    }
}

fn channel_row(place: Place) -> ChannelRow {
    let Place {
        channel,
        position,
        live,
        lag,
    } = place;
    ChannelRow {
        channel,
        position,
        live,
        lag,
    }
}

/// Asks the tasks of the connections, and does not wait for long.
async fn places_of(handles: &[Arc<ConnectionHandle>]) -> BTreeMap<u64, Vec<Place>> {
    let (describe, mut told) = Describe::new(handles.len());
    for handle in handles {
        handle.send(Command::Describe(describe.clone()));
    }
    drop(describe);
    let deadline = Instant::now() + DESCRIBE_TIMEOUT;
    let mut places = BTreeMap::new();
    while let Ok(Some((id, of_this))) = timeout_at(deadline, told.recv()).await {
        places.insert(id, of_this);
    }
    places
}

pub(super) fn audience(edge: &Edge, request: &requests::OfChannel) -> Audience {
    let audience = edge.hub().audience(&request.channel);
    Audience {
        edge: name(edge),
        head: edge.hub().head_of(&request.channel),
        readers: audience.readers,
        more: audience.more || audience.users.len() > USERS_MAX,
        users: audience.users.into_iter().take(USERS_MAX).collect(),
    }
}

fn disconnect(edge: &Edge, request: &requests::Disconnect) -> Disconnected {
    let handles = match (&request.user, &request.session) {
        (Some(user), None) => edge.registry().of(user),
        (None, Some(session)) if *session.edge.0 == *edge.config().name => edge
            .registry()
            .find(session.connection)
            .into_iter()
            .collect(),
        (None, Some(_)) | (Some(_), Some(_)) | (None, None) => Vec::new(),
    };
    for handle in &handles {
        handle.send(Command::Close(CloseCode::Disconnected));
    }
    Disconnected {
        edge: name(edge),
        disconnected: handles.len(),
    }
}

fn drained(edge: &Edge) -> Drained {
    let transports = crate::registry::Transport::ALL;
    Drained {
        edge: name(edge),
        draining: !edge.drain().takes_connections(),
        connections: transports
            .map(|it| edge.registry().connections(it))
            .iter()
            .sum(),
    }
}

fn log(edge: &Edge, request: requests::Log) -> Result<Logging, ApiError> {
    let Some(log) = edge.log() else {
        let message = "this edge's log cannot be changed while it runs";
        return Err(ApiError::new(ErrorCode::Unsupported, message));
    };
    if let Some(filter) = &request.filter {
        log.set(filter)
            .map_err(|problem| ApiError::new(ErrorCode::BadRequest, problem))?;
    }
    Ok(Logging {
        edge: name(edge),
        filter: log.get(),
    })
}
