//! A channel's messages page by page, backwards or forwards, over archive,
//! stream and window together.
//!
//! There is no reading backwards below: the position from which so many
//! messages follow is looked up, and from there everything is read forwards,
//! as everywhere.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::response::Response;
use delivery::{Entry, Output, Start};
use protocol::{Channel, Cursor, Epoch, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::catch_up;
use super::error::ApiError;
use crate::Edge;

/// In which order a page's messages stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    Desc,
}

/// Which messages: at most one of the two.
pub(super) struct Bounds {
    pub(super) before: Option<Cursor>,
    pub(super) after: Option<Cursor>,
}

/// A page that ends before a position.
#[derive(Debug, Serialize)]
struct PastPage {
    channel: Channel,
    epoch: Epoch,
    messages: Vec<Box<RawValue>>,
    /// Where the page before this one ends.
    before: Cursor,
    /// Whether there may be one.
    more: bool,
}

/// The newest messages before a position, or the oldest after one. Without
/// either, `order` says at which end to begin.
pub(super) async fn page(
    edge: &Edge,
    channel: Channel,
    bounds: Bounds,
    order: Option<Order>,
    limit: usize,
) -> Result<Response, ApiError> {
    let start = match (bounds.before, bounds.after, order) {
        (Some(_), Some(_), _) => {
            let message = "before and after do not go together";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
        (None, Some(after), _) => Start::Cursor(after),
        (None, None, Some(Order::Asc)) => Start::Earliest,
        (before, None, _) => {
            let order = order.unwrap_or(Order::Desc);
            let page = past(edge, channel, before, order, limit).await?;
            return catch_up::answer(&page);
        }
    };
    let mut page = catch_up::read(edge, channel, start, limit).await?;
    if order == Some(Order::Desc) {
        page.messages.reverse();
    }
    catch_up::answer(&page)
}

async fn past(
    edge: &Edge,
    channel: Channel,
    before: Option<Cursor>,
    order: Order,
    limit: usize,
) -> Result<PastPage, ApiError> {
    let through = match before {
        Some(before) => Cursor::new(before.epoch, before.seq.saturating_sub(1)),
        None => edge.hub().head_of(&channel),
    };
    let start = edge
        .hub()
        .before_last(channel.clone(), through, limit)
        .await?;
    let (entries, whole) = newest(edge, &channel, start, through, limit).await?;
    let oldest = entries.front().map(|entry| entry.message().position);
    let mut messages: Vec<Box<RawValue>> = Vec::with_capacity(entries.len());
    for entry in &entries {
        messages.push(catch_up::element(entry)?);
    }
    if order == Order::Desc {
        messages.reverse();
    }
    Ok(PastPage {
        channel,
        epoch: oldest.map_or(through.epoch, |oldest| oldest.epoch),
        more: !whole || entries.len() == limit,
        messages,
        before: oldest.or(before).unwrap_or(through),
    })
}

/// The newest messages after `start` and up to `through`, as far as they are
/// of one epoch, and whether these are all.
async fn newest(
    edge: &Edge,
    channel: &Channel,
    start: Cursor,
    through: Cursor,
    limit: usize,
) -> Result<(VecDeque<Arc<Entry>>, bool), ApiError> {
    let mut kept: VecDeque<Arc<Entry>> = VecDeque::with_capacity(limit);
    let mut whole = true;
    if start == through {
        return Ok((kept, whole));
    }
    let mut feed = edge.hub().feed(None);
    // A feed's first subscription cannot be one too many.
    feed.subscribe(channel.clone(), Start::Cursor(start), None, 0)
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    loop {
        let entries = match feed.next().await {
            Output::Messages { entries, .. } => entries,
            Output::Live { .. } => return Ok((kept, whole)),
            Output::Subscribed { .. } | Output::Signal(_) => continue,
            Output::Refused { error, .. } => return Err(error.into()),
            Output::Delayed { retry_after, .. } => {
                let message = "older messages cannot be read for the time being";
                return Err(ApiError::new(ErrorCode::Unavailable, message).after(retry_after));
            }
            Output::Reset { .. } => {
                let message = "messages before this position are no longer kept";
                return Err(ApiError::new(ErrorCode::NotFound, message));
            }
        };
        for entry in entries {
            let position = entry.message().position;
            let passed = position.epoch == through.epoch && position.seq > through.seq;
            if passed {
                return Ok((kept, whole));
            }
            if kept
                .back()
                .is_some_and(|last| last.message().position.epoch != position.epoch)
            {
                // The rest of the older epoch is a page of its own.
                kept.clear();
                whole = false;
            }
            if kept.len() == limit {
                kept.pop_front();
                whole = false;
            }
            kept.push_back(entry);
        }
    }
}
