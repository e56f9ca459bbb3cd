//! Catching up over HTTP: a channel's messages after a position.
//!
//! The same readers serve it as serve connections, so an answer here is
//! what a subscription would have got, cut off at the limit or at the head.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use delivery::{Entry, Output, Reset, ResetReason, Start};
use protocol::{Channel, Cursor, Encoding, Epoch, ErrorCode, From};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bearer::Bearer;
use super::error::ApiError;
use super::history::{self, Bounds, Order};
use crate::Edge;

/// Messages per request unless `limit` says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// The query of [`page`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    from: Option<String>,
    limit: Option<usize>,
    before: Option<String>,
    after: Option<String>,
    order: Option<Order>,
}

/// One page. `cursor` is where the next one starts.
#[derive(Debug, Serialize)]
pub(super) struct PageBody {
    channel: Channel,
    epoch: Epoch,
    pub(super) messages: Vec<Box<RawValue>>,
    cursor: Cursor,
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<ResetBody>,
}

#[derive(Debug, Serialize)]
struct ResetBody {
    reason: &'static str,
    head: Cursor,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest: Option<Cursor>,
}

/// `GET /v1/channels/{channel}/messages?from=<from>&limit=<n>`: messages
/// after `from` (default `tail`: none, and the cursor to start from), oldest
/// first. `live` says that the page reaches the head.
///
/// With `before`, `after` or `order` it is a page of history instead.
pub async fn page(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    channel: Result<Path<String>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Path(channel) = channel?;
    let Query(query) = query?;
    let channel = Channel::parse(&channel)
        .map_err(|error| ApiError::new(ErrorCode::BadChannel, error.to_string()))?;
    edge.check_read(&caller, &channel).await?;
    let most = edge.config().limits.page_messages;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT.min(most));
    if limit == 0 || limit > most {
        let message = format!("limit is 1 to {most}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let bounds = Bounds {
        before: cursor("before", query.before.as_deref())?,
        after: cursor("after", query.after.as_deref())?,
    };
    if bounds.before.is_some() || bounds.after.is_some() || query.order.is_some() {
        if query.from.is_some() {
            let message = "from does not go together with before, after and order";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        return history::page(&edge, channel, bounds, query.order, limit).await;
    }
    let start = start(query.from.as_deref())?;
    answer(&read(&edge, channel, start, limit).await?)
}

/// A page as the answer.
pub(super) fn answer(page: &impl Serialize) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(page)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let content_type = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from(json)).into_response())
}

fn cursor(field: &str, text: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    text.map(Cursor::parse)
        .transpose()
        .map_err(|error| ApiError::new(ErrorCode::BadCursor, format!("{field}: {error}")))
}

fn start(from: Option<&str>) -> Result<Start, ApiError> {
    let from = From::parse(from.unwrap_or("tail"))
        .map_err(|error| ApiError::new(ErrorCode::BadCursor, format!("from: {error}")))?;
    Start::from_wire(from).ok_or_else(|| {
        ApiError::new(
            ErrorCode::BadRequest,
            "from=acked needs a connection: a request has no device",
        )
    })
}

/// Collects a subscription's output until the limit, the head, or the end of
/// an epoch: sequences of two epochs do not belong into one page.
pub(super) async fn read(
    edge: &Edge,
    channel: Channel,
    start: Start,
    limit: usize,
) -> Result<PageBody, ApiError> {
    let mut feed = edge.hub().feed(None);
    // A feed's first subscription cannot be one too many.
    feed.subscribe(channel.clone(), start, None, 0)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let mut page: Option<PageBody> = None;
    loop {
        let output = feed.next().await;
        let page = match &mut page {
            None => match output {
                Output::Subscribed { cursor, .. } => {
                    page = Some(PageBody::starting(channel.clone(), cursor));
                    continue;
                }
                Output::Refused { error, .. } => return Err(error.into()),
                Output::Messages { .. }
                | Output::Live { .. }
                | Output::Reset { .. }
                | Output::Delayed { .. }
                | Output::Signal(_) => continue,
            },
            Some(page) => page,
        };
        let done = match output {
            Output::Messages { epoch, entries, .. } => page.take(epoch, &entries, limit)?,
            Output::Live { cursor, .. } => page.live_at(cursor),
            Output::Reset { reset, .. } => page.reset_to(reset),
            // What was collected so far is an answer; nothing is not.
            Output::Delayed { .. } if !page.messages.is_empty() => true,
            Output::Delayed { retry_after, .. } => {
                let message = "older messages cannot be read for the time being";
                return Err(ApiError::new(ErrorCode::Unavailable, message).after(retry_after));
            }
            Output::Subscribed { .. } | Output::Refused { .. } | Output::Signal(_) => false,
        };
        if done {
            // Cheap: a handful of fields and the messages' vector.
            return Ok(std::mem::replace(
                page,
                PageBody::starting(channel.clone(), page.cursor),
            ));
        }
    }
}

impl PageBody {
    fn starting(channel: Channel, cursor: Cursor) -> Self {
        Self {
            channel,
            epoch: cursor.epoch,
            messages: Vec::new(),
            cursor,
            live: false,
            reset: None,
        }
    }

    /// Adds messages; whether the page is complete.
    fn take(
        &mut self,
        epoch: Epoch,
        entries: &[Arc<Entry>],
        limit: usize,
    ) -> Result<bool, ApiError> {
        if epoch != self.epoch {
            if !self.messages.is_empty() {
                return Ok(true);
            }
            self.epoch = epoch;
        }
        for entry in entries.iter().take(limit - self.messages.len()) {
            self.messages.push(element(entry)?);
            self.cursor = entry.message().position;
        }
        Ok(self.messages.len() >= limit)
    }

    fn live_at(&mut self, cursor: Cursor) -> bool {
        if cursor.epoch == self.epoch || self.messages.is_empty() {
            self.epoch = cursor.epoch;
            self.cursor = cursor;
            self.live = true;
        }
        true
    }

    /// A reset comes before messages; after some, the next page tells it.
    fn reset_to(&mut self, reset: Reset) -> bool {
        if !self.messages.is_empty() {
            return true;
        }
        self.epoch = reset.head.epoch;
        self.cursor = reset.head;
        self.reset = Some(ResetBody {
            reason: reason(reset.reason),
            head: reset.head,
            earliest: reset.earliest,
        });
        false
    }
}

/// A message as it stands in a page.
pub(super) fn element(entry: &Entry) -> Result<Box<RawValue>, ApiError> {
    std::str::from_utf8(entry.element(Encoding::Json))
        .ok()
        .and_then(|text| RawValue::from_string(text.to_owned()).ok())
        .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a message could not be encoded"))
}

/// The reason on the wire, the same as in a `reset` frame.
fn reason(reason: ResetReason) -> &'static str {
    match reason {
        ResetReason::Expired => "expired",
        ResetReason::Epoch => "epoch",
        ResetReason::Ahead => "ahead",
        ResetReason::TooFarBehind => "too_far_behind",
    }
}
