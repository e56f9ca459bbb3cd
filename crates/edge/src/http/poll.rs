//! Channels by long-poll, where even event streams are held back: each
//! request is complete by itself and may go to another edge.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::{Device, ErrorCode, From};
use serde::Deserialize;
use tokio::time::Instant;

use super::bearer::Bearer;
use super::error::ApiError;
use super::listening::{Heard, Listening};
use super::positions;
use crate::Edge;
use crate::auth::{Caller, unix_now_s};
use crate::registry::Transport;

/// How long a request is held back unless `wait_ms` says otherwise, in
/// milliseconds.
const WAIT_MS_DEFAULT: u32 = 25_000;

/// The longest that one may be, in milliseconds: under the 60 s idle timeout
/// of common load balancers.
const WAIT_MS_MAX: u32 = 55_000;

/// An answer takes no further frame from here on, in bytes. One frame, which
/// is below 1 MiB, may exceed it.
const ANSWER_BYTES: usize = 256 * 1024;

/// The query of [`poll`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PollQuery {
    channels: String,
    from: Option<String>,
    device: Option<Device>,
    wait_ms: Option<u32>,
}

/// `GET /v1/poll?channels=room:1,user:42&from=<cursor>,<cursor>&wait_ms=25000`:
/// `{"frames": […], "cursors": […]}` as soon as there is something new, or
/// after `wait_ms`. The frames are those that a subscription from there gets
/// over WebSocket; the cursors are the next request's `from`. A request that
/// brings no cursor for some channel is answered as soon as it has one.
pub async fn poll(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    query: Result<Query<PollQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let wait_ms = query.wait_ms.unwrap_or(WAIT_MS_DEFAULT);
    if wait_ms > WAIT_MS_MAX {
        let message = format!("wait_ms is 0 to {WAIT_MS_MAX}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let most = edge.config().limits.subscriptions;
    let wanted = positions::parse(&query.channels, query.from.as_deref(), None, most)?;
    let has_cursors = wanted
        .iter()
        .all(|(_, from)| matches!(from, From::Cursor(_)));
    let wait = match has_cursors {
        true => Duration::from_millis(wait_ms.into()).min(token_time(&caller)),
        false => Duration::ZERO,
    };
    let mut listening =
        Listening::start(&edge, caller, wanted, query.device, Transport::Poll).await?;
    edge.counters().polls.add(1);
    let frames = collect(&edge, &mut listening, wait).await;
    listening.advance();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    let body = answer(&frames, &listening.positions());
    Ok((headers, body).into_response())
}

/// How long the token is still valid.
fn token_time(caller: &Caller) -> Duration {
    match caller {
        Caller::User(grants) => Duration::from_secs(grants.expires_s.saturating_sub(unix_now_s())),
        Caller::Service(_) => Duration::MAX,
    }
}

/// Takes what is there. If that is nothing new, waits: for what was missed
/// as long as any request may take, for what is new as long as was asked.
async fn collect(edge: &Edge, listening: &mut Listening, wait: Duration) -> Vec<Bytes> {
    let begin = Instant::now();
    let missed_by = begin + edge.config().limits.request_timeout();
    let mut leaving = std::pin::pin!(edge.drain().leaving());
    let mut frames = Vec::new();
    let (mut bytes, mut news) = (0, false);
    loop {
        let heard = poll_fn(|cx| match listening.poll_next(cx) {
            Poll::Ready(heard) => Poll::Ready(Some(heard)),
            Poll::Pending => Poll::Ready(None),
        });
        let heard = match heard.await {
            Some(heard) => heard,
            None if news => return frames,
            None => {
                let until = match listening.is_caught_up() {
                    true => begin + wait,
                    false => missed_by,
                };
                tokio::select! {
                    biased;
                    heard = poll_fn(|cx| listening.poll_next(cx)) => heard,
                    _ = &mut leaving => return frames,
                    () = tokio::time::sleep_until(until) => return frames,
                }
            }
        };
        match heard {
            Heard::Frame { json, news: new } => {
                bytes += json.len();
                news |= new;
                frames.push(json);
            }
            // The next request finds out why.
            Heard::End(_) => return frames,
        }
        if bytes >= ANSWER_BYTES {
            return frames;
        }
    }
}

fn answer(frames: &[Bytes], positions: &str) -> Vec<u8> {
    let frames = frames.join(&b","[..]);
    // Positions are of [0-9a-z:-] and commas.
    let cursors = positions.replace(',', "\",\"");
    [
        &b"{\"frames\":["[..],
        &frames,
        b"],\"cursors\":[\"",
        cursors.as_bytes(),
        b"\"]}",
    ]
    .concat()
}
