//! Publishing over HTTP: one message, or a batch.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use delivery::publish::{Publication, Publisher};
use futures_util::future::join_all;
use protocol::names::{check_traceparent, check_type};
use protocol::{Channel, Cursor, ErrorCode, MessageId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bearer::Bearer;
use super::error::{ApiError, ErrorBody};
use super::{MESSAGE_ID_HEADER, MESSAGE_TYPE_HEADER, TRACEPARENT_HEADER};
use crate::Edge;
use crate::auth::Caller;

/// The durable acknowledgement of one message.
#[derive(Debug, Serialize)]
pub struct Acknowledged {
    id: MessageId,
    channel: Channel,
    cursor: Cursor,
    duplicate: bool,
}

/// The query of [`one`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneQuery {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// `POST /v1/channels/{channel}/messages`: the body is the data, as it is.
/// Answers after the stream's acknowledgement.
pub async fn one(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    channel: Result<Path<String>, PathRejection>,
    query: Result<Query<OneQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Acknowledged>, ApiError> {
    let Path(channel) = channel?;
    let Query(query) = query?;
    let id = header_or_query(&headers, MESSAGE_ID_HEADER, query.id)?;
    let kind = header_or_query(&headers, MESSAGE_TYPE_HEADER, query.kind)?;
    let item = Item {
        channel,
        id,
        kind,
        traceparent: traceparent(&headers),
    };
    let publication = item.check(&edge, &caller, body?)?;
    edge.check_publish(&caller, &publication.channel).await?;
    Ok(Json(publish(&edge, publication).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchItem {
    channel: String,
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    traceparent: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
}

/// What became of the items of a batch, in their order.
#[derive(Debug, Serialize)]
pub struct BatchResults {
    results: Vec<ItemResult>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ItemResult {
    Acknowledged(Acknowledged),
    Failed(ErrorBody),
}

/// `POST /v1/messages`: an array of `{channel, id?, type?, traceparent?, data
/// | data_base64}`. Channels are published to side by side, the messages of
/// one channel one after the other: when one of them is not known to be
/// stored, the later ones of its channel are not tried, so that a retry of
/// the failed ones keeps their order.
pub async fn batch(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<BatchResults>, ApiError> {
    let items: Vec<BatchItem> = serde_json::from_slice(&body?).map_err(|error| {
        let expected = "expected an array of {channel, id?, type?, data}";
        ApiError::new(ErrorCode::BadRequest, format!("{expected}: {error}"))
    })?;
    let most = edge.config().limits.batch_messages;
    if items.len() > most {
        let message = format!("a batch has at most {most} messages");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    let mut results: Vec<Option<ItemResult>> = Vec::new();
    let mut by_channel: HashMap<Channel, Vec<(usize, Publication)>> = HashMap::new();
    for (index, item) in items.into_iter().enumerate() {
        match item.check(&edge, &caller) {
            Ok(publication) => {
                results.push(None);
                let channel = publication.channel.clone();
                by_channel
                    .entry(channel)
                    .or_default()
                    .push((index, publication));
            }
            Err(error) => results.push(Some(ItemResult::Failed(error.body()))),
        }
    }
    let channels = by_channel
        .into_iter()
        .map(|(channel, items)| in_order(&edge, &caller, channel, items));
    for (index, result) in join_all(channels).await.into_iter().flatten() {
        results[index] = Some(result);
    }
    // Every place is filled: each item failed its check or was published.
    let results = results.into_iter().flatten().collect();
    Ok(Json(BatchResults { results }))
}

/// Publishes messages of one channel in their order.
async fn in_order(
    edge: &Edge,
    caller: &Caller,
    channel: Channel,
    items: Vec<(usize, Publication)>,
) -> Vec<(usize, ItemResult)> {
    let mut results = Vec::with_capacity(items.len());
    let mut stopped = edge.check_publish(caller, &channel).await.err();
    for (index, publication) in items {
        let result = match &stopped {
            Some(error) => Err(error.clone()),
            None => publish(edge, publication).await,
        };
        results.push((
            index,
            match result {
                Ok(acknowledged) => ItemResult::Acknowledged(acknowledged),
                Err(error) => {
                    if error.code().is_retryable() {
                        stopped = Some(error.clone());
                    }
                    ItemResult::Failed(error.body())
                }
            },
        ));
    }
    results
}

async fn publish(edge: &Edge, publication: Publication) -> Result<Acknowledged, ApiError> {
    let id = publication.id.clone();
    let channel = publication.channel.clone();
    if let Publisher::User(user) = &publication.publisher {
        edge.admission().publish(user)?;
    }
    let published = edge.publish().publish(publication).await?;
    Ok(Acknowledged {
        id,
        channel,
        cursor: published.cursor,
        duplicate: published.duplicate,
    })
}

/// A message's names, not yet checked.
struct Item {
    channel: String,
    id: Option<String>,
    kind: Option<String>,
    traceparent: Option<Box<str>>,
}

impl Item {
    fn check(self, edge: &Edge, caller: &Caller, data: Bytes) -> Result<Publication, ApiError> {
        let channel = Channel::parse(&self.channel)
            .map_err(|error| ApiError::new(ErrorCode::BadChannel, error.to_string()))?;
        let bad =
            |error: protocol::NameError| ApiError::new(ErrorCode::BadRequest, error.to_string());
        let id = match self.id {
            Some(id) => MessageId::parse(&id).map_err(bad)?,
            None => MessageId::random(),
        };
        let kind = self.kind.unwrap_or_default();
        check_type(&kind).map_err(bad)?;
        let most = edge.config().limits.message_bytes;
        if data.len() > most {
            let message = format!("a message has at most {most} bytes");
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        Ok(Publication {
            channel,
            id,
            publisher: caller.publisher(),
            kind: kind.into(),
            sender: caller.sender(),
            data,
            traceparent: self.traceparent,
        })
    }
}

impl BatchItem {
    fn check(self, edge: &Edge, caller: &Caller) -> Result<Publication, ApiError> {
        let bad = |message: &'static str| ApiError::new(ErrorCode::BadRequest, message);
        let data = match (self.data, self.data_base64) {
            (Some(json), None) => Bytes::from(String::from(Box::<str>::from(json))),
            (None, Some(text)) => STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|_| bad("data_base64 is not base64"))?,
            (None, None) | (Some(_), Some(_)) => {
                return Err(bad("expected either data or data_base64"));
            }
        };
        let traceparent = match self.traceparent {
            Some(text) => match check_traceparent(&text) {
                Ok(()) => Some(text.into()),
                Err(error) => {
                    return Err(ApiError::new(ErrorCode::BadRequest, error.to_string()));
                }
            },
            None => None,
        };
        let item = Item {
            channel: self.channel,
            id: self.id,
            kind: self.kind,
            traceparent,
        };
        item.check(edge, caller, data)
    }
}

/// `"data": null` is a message whose data is `null`.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// A value that a header or the query gives; both only if they agree.
fn header_or_query(
    headers: &HeaderMap,
    name: &'static str,
    query: Option<String>,
) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let header = match (values.next(), values.next()) {
        (None, _) => return Ok(query),
        (Some(only), None) => only.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    match (header, query) {
        (Some(header), None) => Ok(Some(header.to_owned())),
        (Some(header), Some(query)) if header == query => Ok(Some(query)),
        (Some(_), Some(_)) | (None, _) => {
            let message = format!("{name} must be given once, as visible ASCII");
            Err(ApiError::new(ErrorCode::BadRequest, message))
        }
    }
}

/// A malformed `traceparent` header is ignored, as W3C Trace Context
/// (section 3.2) asks: proxies set it, and the publisher may not know.
fn traceparent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get(TRACEPARENT_HEADER)?.to_str().ok()?;
    check_traceparent(text).ok().map(|()| text.into())
}
