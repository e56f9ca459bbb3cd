//! Every edge's answer put together, and who did not answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use delivery::fleet::{Question, To};
use delivery::publish::{Publication, Publisher};
use protocol::{Channel, Cursor, ErrorCode, MessageId, UserId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::here::{self, Audience, ConnectionRow, Connections, Disconnected};
use super::{Operation, requests};
use crate::Edge;
use crate::http::error::ApiError;

/// The answers of the edges, in the order of their names, and who did not
/// answer.
#[derive(Debug, Serialize)]
struct Gathered<T> {
    edges: Vec<T>,
    missing: Vec<Box<str>>,
}

#[derive(Debug, Serialize)]
struct OfUser {
    user: UserId,
    connections: Vec<ConnectionRow>,
    more: bool,
    missing: Vec<Box<str>>,
}

#[derive(Debug, Serialize)]
struct Slow {
    connections: Vec<ConnectionRow>,
    more: bool,
    missing: Vec<Box<str>>,
}

#[derive(Debug, Serialize)]
struct OfChannel {
    channel: Channel,
    /// The newest position that any edge knows of the channel's shard.
    head: Option<Cursor>,
    readers: usize,
    users: BTreeSet<UserId>,
    more: bool,
    edges: Vec<ReadersOnEdge>,
    missing: Vec<Box<str>>,
}

#[derive(Debug, Serialize)]
struct ReadersOnEdge {
    edge: Box<str>,
    head: Cursor,
    readers: usize,
    users: usize,
}

#[derive(Debug, Serialize)]
struct DisconnectedAll {
    disconnected: usize,
    edges: Vec<Disconnected>,
    missing: Vec<Box<str>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Published {
    channel: Channel,
    id: MessageId,
    cursor: Cursor,
    duplicate: bool,
}

/// Who is present on a channel, on all edges.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) users: BTreeSet<UserId>,
    /// Whether there may be others: an edge did not answer, or they are too
    /// many.
    pub(crate) partial: bool,
}

pub(super) fn json(value: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "admin.not_encoded");
        ApiError::new(ErrorCode::Internal, "a defect of the edge; it was logged")
    })
}

pub(super) async fn administer(
    edge: &Edge,
    operation: Operation,
    body: &[u8],
) -> Result<Bytes, ApiError> {
    match operation {
        Operation::Edges => {
            let request: requests::Anyone = requests::parse(body)?;
            values(edge, operation, request.edge, body).await
        }
        Operation::Connections => connections(edge, body).await,
        Operation::Slow => {
            requests::parse::<requests::Anyone>(body)?;
            let gathered = gather::<Connections>(edge, operation, None, body).await?;
            let (connections, more) = merged(gathered.edges);
            json(&Slow {
                connections,
                more,
                missing: gathered.missing,
            })
        }
        Operation::Channel => channel(edge, body).await,
        Operation::Disconnect => disconnect(edge, body).await,
        Operation::Drain => {
            let request: requests::Drain = requests::parse(body)?;
            values(edge, operation, Some(request.edge), body).await
        }
        Operation::Undrain => {
            let request: requests::Undrain = requests::parse(body)?;
            values(edge, operation, Some(request.edge), body).await
        }
        Operation::Log => {
            let request: requests::Log = requests::parse(body)?;
            values(edge, operation, request.edge, body).await
        }
        Operation::Publish => publish(edge, body).await,
    }
}

/// The edges' answers as they are.
async fn values(
    edge: &Edge,
    operation: Operation,
    only: Option<requests::EdgeName>,
    body: &[u8],
) -> Result<Bytes, ApiError> {
    let name = only.as_ref().map(|only| &*only.0);
    let gathered = gather::<Box<RawValue>>(edge, operation, name, body).await?;
    if let (Some(name), true) = (name, gathered.edges.is_empty()) {
        return Err(silent(edge, name));
    }
    json(&gathered)
}

fn silent(edge: &Edge, name: &str) -> ApiError {
    let peers = edge.fleet().map(|fleet| fleet.peers()).unwrap_or_default();
    if peers.iter().any(|peer| *peer.name == *name) {
        return ApiError::new(ErrorCode::Unavailable, format!("{name} did not answer"));
    }
    let message = format!("no edge is known by the name of {name}");
    ApiError::new(ErrorCode::NotFound, message)
}

async fn connections(edge: &Edge, body: &[u8]) -> Result<Bytes, ApiError> {
    let request: requests::OfUser = requests::parse(body)?;
    let gathered = gather::<Connections>(edge, Operation::Connections, None, body).await?;
    let (connections, more) = merged(gathered.edges);
    json(&OfUser {
        user: request.user,
        connections,
        more,
        missing: gathered.missing,
    })
}

/// The longest connected first.
fn merged(edges: Vec<Connections>) -> (Vec<ConnectionRow>, bool) {
    let more = edges.iter().any(|edge| edge.more);
    let mut rows: Vec<_> = edges.into_iter().flat_map(|it| it.connections).collect();
    rows.sort_by_key(|row| row.since_ms);
    (rows, more)
}

async fn channel(edge: &Edge, body: &[u8]) -> Result<Bytes, ApiError> {
    let request: requests::OfChannel = requests::parse(body)?;
    let gathered = gather::<Audience>(edge, Operation::Channel, None, body).await?;
    let edges = &gathered.edges;
    let users: BTreeSet<UserId> = edges.iter().flat_map(|it| it.users.clone()).collect();
    json(&OfChannel {
        channel: request.channel,
        head: edges.iter().map(|it| it.head).max_by_key(|head| head.seq),
        readers: edges.iter().map(|it| it.readers).sum(),
        more: edges.iter().any(|it| it.more) || users.len() > here::USERS_MAX,
        users: users.into_iter().take(here::USERS_MAX).collect(),
        edges: edges
            .iter()
            .map(|it| ReadersOnEdge {
                edge: it.edge.clone(),
                head: it.head,
                readers: it.readers,
                users: it.users.len(),
            })
            .collect(),
        missing: gathered.missing,
    })
}

/// Who is present on a channel.
pub(crate) async fn present(edge: &Edge, channel: &Channel) -> Result<Present, ApiError> {
    let body = json(&serde_json::json!({ "channel": channel }))?;
    let gathered = gather::<Audience>(edge, Operation::Channel, None, &body).await?;
    let told = gathered.edges.iter();
    let users: BTreeSet<UserId> = told.clone().flat_map(|it| it.users.clone()).collect();
    let too_many = users.len() > here::USERS_MAX || told.clone().any(|it| it.more);
    Ok(Present {
        users: users.into_iter().take(here::USERS_MAX).collect(),
        partial: too_many || !gathered.missing.is_empty(),
    })
}

async fn disconnect(edge: &Edge, body: &[u8]) -> Result<Bytes, ApiError> {
    let request: requests::Disconnect = requests::parse(body)?;
    let only = match (&request.user, &request.session) {
        (Some(_), None) => None,
        (None, Some(session)) => Some(&*session.edge.0),
        (Some(_), Some(_)) | (None, None) => {
            let message = r#"expected {"user": …} or {"session": …}"#;
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    };
    let gathered = gather::<Disconnected>(edge, Operation::Disconnect, only, body).await?;
    if let (Some(name), true) = (only, gathered.edges.is_empty()) {
        return Err(silent(edge, name));
    }
    json(&DisconnectedAll {
        disconnected: gathered.edges.iter().map(|it| it.disconnected).sum(),
        edges: gathered.edges,
        missing: gathered.missing,
    })
}

/// Stores a message, as the service `admin`.
async fn publish(edge: &Edge, body: &[u8]) -> Result<Bytes, ApiError> {
    let requests::Publish {
        channel,
        data,
        id,
        kind,
    } = requests::parse(body)?;
    let most = edge.config().limits.message_bytes;
    if data.get().len() > most {
        let message = format!("a message has at most {most} bytes of data");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    protocol::names::check_type(&kind)
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("type: {error}")))?;
    let id = id.unwrap_or_else(MessageId::random);
    let stored = edge
        .publish()
        .publish(Publication {
            channel: channel.clone(),
            id: id.clone(),
            publisher: Publisher::Service("admin".into()),
            kind: kind.into(),
            sender: None,
            data: Bytes::copy_from_slice(data.get().as_bytes()),
            traceparent: None,
        })
        .await?;
    json(&Published {
        channel,
        id,
        cursor: stored.cursor,
        duplicate: stored.duplicate,
    })
}

/// Asks one edge or all, this one without any transport.
async fn gather<T: DeserializeOwned>(
    edge: &Edge,
    operation: Operation,
    only: Option<&str>,
    body: &[u8],
) -> Result<Gathered<T>, ApiError> {
    let own = edge.config().name.as_str();
    let others = async {
        let fleet = edge.fleet().filter(|_| only != Some(own))?;
        let question = Question {
            operation: operation.as_str(),
            to: only.map_or(To::Others, |name| To::One(name.into())),
            body: Bytes::copy_from_slice(body),
        };
        Some(fleet.ask(question).await)
    };
    let here = async {
        match only {
            Some(name) if name != own => Ok(None),
            Some(_) | None => here::answer_json(edge, operation, body).await.map(Some),
        }
    };
    let (others, here) = futures_util::future::join(others, here).await;
    let others = others.unwrap_or_default();
    let mut missing = others.missing;
    let mut answers = Vec::new();
    if let Some(own_answer) = here? {
        answers.push((Box::from(own), own_answer));
    }
    for (name, answer) in others.given {
        match answer {
            Ok(answer) => answers.push((name, answer)),
            // What an edge cannot answer is as good as no answer.
            Err(problem) => {
                tracing::warn!(edge = &*name, problem, "admin.edge_refused");
                missing.push(name);
            }
        }
    }
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut edges = Vec::with_capacity(answers.len());
    for (name, answer) in answers {
        match serde_json::from_slice(&answer) {
            Ok(answer) => edges.push(answer),
            Err(error) => {
                // Another version, perhaps.
                tracing::warn!(edge = &*name, %error, "admin.answer_not_understood");
                missing.push(name);
            }
        }
    }
    missing.sort_unstable();
    Ok(Gathered { edges, missing })
}
