//! Channels as server-sent events (HTML, section 9.2): the same frames as
//! over WebSocket, in one direction, through every proxy.
//!
//! The body is polled by the socket's writer, so a client that reads slowly
//! is not asked for; its readers fall behind and catch up from the log.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use protocol::frame::{Connected, ErrorBody, Goaway, GoawayReason, Limits, Retry, ServerBody};
use protocol::{CloseCode, Device, ErrorCode};
use serde::Deserialize;
use tokio::time::{Instant, Sleep};

use super::bearer;
use super::client_address::ClientAddress;
use super::error::ApiError;
use super::listening::{End, Heard, Listening, json};
use super::positions;
use crate::Edge;
use crate::admission::address::AddressPlace;
use crate::auth::{Caller, Grants, unix_now_s};
use crate::registry::Transport;

/// Events are gathered up to here before they are handed to the socket, in
/// bytes: more only delays the first one.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long before its end a token's expiry is announced, at the most.
const EXPIRY_NOTICE: Duration = Duration::from_secs(60);

/// A timer cannot be set for longer than some tokens are valid.
const A_YEAR_S: u64 = 365 * 24 * 3_600;

/// The query of [`events`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    channels: String,
    from: Option<String>,
    device: Option<Device>,
    ticket: Option<String>,
}

/// `GET /v1/events?channels=room:1,user:42&from=tail,<cursor>`: one event
/// per frame. `event` is the frame's key, `data` the frame, and `id` the
/// positions of all channels after it. `Last-Event-ID` goes before `from`.
pub async fn events(
    State(edge): State<Edge>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let wanted = positions::parse(
        &query.channels,
        query.from.as_deref(),
        positions::last_event_id(&headers)?,
        edge.config().limits.subscriptions,
    )?;
    let place = edge.admission().connect(address)?;
    let caller = caller(&edge, &headers, query.ticket.as_deref()).await?;
    let listening =
        Listening::start(&edge, caller, wanted, query.device, Transport::EventStream).await?;
    edge.counters().sse_connects.add(1);
    let body = Body::from_stream(EventStream::new(edge, listening, place));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx holds answers back unless it is told not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((headers, body).into_response())
}

/// The header goes before the ticket, which is not used up then.
async fn caller(
    edge: &Edge,
    headers: &HeaderMap,
    ticket: Option<&str>,
) -> Result<Caller, ApiError> {
    if let Some(credential) = bearer::credential(headers) {
        return Ok(edge.auth().verify_bearer(credential, unix_now_s())?);
    }
    let Some(ticket) = ticket else {
        let message =
            "expected the header Authorization: Bearer <token or API key>, or ?ticket=<ticket>";
        return Err(ApiError::new(ErrorCode::Unauthorized, message));
    };
    Ok(Caller::User(edge.redeem(ticket).await?))
}

struct EventStream {
    edge: Edge,
    /// Among the connections of the client's address.
    _place: Option<AddressPlace>,
    listening: Listening,
    /// Resolves when this stream is to leave.
    departure: BoxFuture<'static, ()>,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
    lifetime: Option<Instant>,
    expires: Option<Instant>,
    expiry_notice: Option<Instant>,
    begun: bool,
    ended: bool,
    /// With what it was closed; none where the client ended it.
    code: Option<CloseCode>,
}

impl EventStream {
    fn new(edge: Edge, listening: Listening, place: Option<AddressPlace>) -> Self {
        let now = Instant::now();
        // At a random moment, so that clients that came together do not stay
        // together.
        let interval = edge.config().limits.ping_interval();
        let next_ping = now + interval.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        let left = grants(&listening).map(|grants| {
            let left_s = grants.expires_s.saturating_sub(unix_now_s());
            Duration::from_secs(left_s.min(A_YEAR_S))
        });
        let lifetime = edge.config().limits.lifetime();
        let drain = edge.drain().clone();
        Self {
            edge,
            _place: place,
            departure: async move { drain.turn().await }.boxed(),
            timer: Box::pin(tokio::time::sleep_until(next_ping)),
            next_ping,
            lifetime: lifetime.map(|lifetime| now + lifetime),
            expires: left.map(|left| now + left),
            expiry_notice: left.map(|left| now + left - EXPIRY_NOTICE.min(left / 2)),
            begun: false,
            ended: false,
            code: None,
            listening,
        }
    }

    /// Gathers what is ready.
    fn gather(&mut self, cx: &mut Context<'_>, out: &mut String) {
        while !self.ended && out.len() < CHUNK_BYTES {
            if self.departure.as_mut().poll(cx).is_ready() {
                return self.end(End::Closed(CloseCode::Draining), out);
            }
            match self.listening.poll_next(cx) {
                Poll::Ready(Heard::Frame { json, .. }) => self.put(&json, out),
                Poll::Ready(Heard::End(end)) => self.end(end, out),
                Poll::Pending => {
                    if self.poll_timer(cx, out).is_pending() {
                        return;
                    }
                }
            }
        }
    }

    /// What a client has to know before anything else.
    fn begin(&mut self, out: &mut String) {
        let limits = &self.edge.config().limits;
        // Browsers come back after exactly this time: each gets its own.
        let retry_ms = f64::from(limits.retry_min_ms) * (0.5 + rand::random::<f64>());
        put_retry(retry_ms as u64, out);
        let Some(grants) = grants(&self.listening) else {
            return;
        };
        let connected = Connected {
            session: format!("{}-{}", self.edge.config().name, self.listening.id()).into(),
            user: grants.user.clone(),
            edge: self.edge.config().name.as_str().into(),
            ping_ms: limits.ping_ms,
            limits: Limits {
                message_bytes: u32::try_from(limits.message_bytes).unwrap_or(u32::MAX),
                subscriptions: u32::try_from(limits.subscriptions).unwrap_or(u32::MAX),
            },
            retry: Retry {
                min_ms: limits.retry_min_ms,
                max_ms: limits.retry_max_ms,
            },
            expires_ms: grants.expires_s.saturating_mul(1_000),
        };
        self.put(&json(ServerBody::Connected(connected)), out);
    }

    fn put(&self, json: &Bytes, out: &mut String) {
        put_event(json, &self.listening.positions(), out);
    }

    fn end(&mut self, end: End, out: &mut String) {
        self.ended = true;
        let retry_min_ms = f64::from(self.edge.config().limits.retry_min_ms);
        match end {
            End::Closed(code) => {
                self.code = Some(code);
                let retry_after_ms = (retry_min_ms * rand::random::<f64>()) as u64;
                if let Some(body) = farewell(code, retry_after_ms) {
                    put_retry(retry_after_ms, out);
                    self.put(&json(body), out);
                }
            }
            End::Refused(retry_after) => {
                self.code = Some(CloseCode::Unavailable);
                put_retry(
                    u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
                    out,
                );
            }
            End::Nothing => {}
        }
    }

    /// Sets the timer to the next thing that is due, and does it if it is.
    fn poll_timer(&mut self, cx: &mut Context<'_>, out: &mut String) -> Poll<()> {
        let next_ping = Some(self.next_ping);
        let due = [next_ping, self.lifetime, self.expires, self.expiry_notice];
        let due = due.into_iter().flatten().min().unwrap_or(self.next_ping);
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if self.expires.is_some_and(|expires| expires <= now) {
            self.end(End::Closed(CloseCode::TokenExpired), out);
        } else if self.lifetime.is_some_and(|lifetime| lifetime <= now) {
            self.end(End::Closed(CloseCode::Lifetime), out);
        } else if self
            .expiry_notice
            .take_if(|notice| *notice <= now)
            .is_some()
        {
            let left = self.expires.map_or(Duration::ZERO, |expires| expires - now);
            let expires_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            self.put(&json(ServerBody::TokenExpiring { expires_in_ms }), out);
        } else {
            self.next_ping = now + self.edge.config().limits.ping_interval();
            let ping = self.listening.ping();
            self.put(&ping, out);
        }
        Poll::Ready(())
    }
}

impl Stream for EventStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut out = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(&mut out);
        }
        self.gather(cx, &mut out);
        match (out.is_empty(), self.ended) {
            (false, _) => Poll::Ready(Some(Ok(out.into()))),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.edge.counters().count_close(self.code);
    }
}

fn grants(listening: &Listening) -> Option<&Grants> {
    match listening.caller() {
        Caller::User(grants) => Some(grants),
        Caller::Service(_) => None,
    }
}

/// What is said where a WebSocket would be closed with this code.
fn farewell(code: CloseCode, retry_after_ms: u64) -> Option<ServerBody> {
    let goaway = |reason| {
        Some(ServerBody::Goaway(Goaway {
            reason,
            retry_after_ms,
        }))
    };
    match code {
        CloseCode::Draining => goaway(GoawayReason::Drain),
        CloseCode::Lifetime => goaway(GoawayReason::Lifetime),
        CloseCode::TokenExpired | CloseCode::Unauthorized | CloseCode::Revoked => {
            unauthorized("the token has expired or was revoked: a new one is needed")
        }
        CloseCode::Banned => unauthorized("this user is banned"),
        CloseCode::SlowConsumer
        | CloseCode::HeartbeatTimeout
        | CloseCode::RateLimited
        | CloseCode::Unavailable
        | CloseCode::Disconnected
        | CloseCode::BadFrame
        | CloseCode::ConnectTimeout
        | CloseCode::FrameTooLarge
        | CloseCode::WrongEncoding => None,
    }
}

fn unauthorized(message: &str) -> Option<ServerBody> {
    Some(ServerBody::Error(ErrorBody {
        code: ErrorCode::Unauthorized,
        message: message.into(),
        retry_after_ms: 0,
        channel: None,
    }))
}

/// One event. A frame's JSON has no line break, and neither have positions.
fn put_event(json: &Bytes, id: &str, out: &mut String) {
    let Ok(json) = std::str::from_utf8(json) else {
        // JSON is written by our own encoder.
        tracing::error!("event.not_utf8");
        return;
    };
    // A frame that answers nothing begins with its key.
    let key = json.split('"').nth(1).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(out, "event: {key}\ndata: {json}\nid: {id}\n\n");
}

/// How long a browser waits before it comes back, in milliseconds.
fn put_retry(retry_ms: u64, out: &mut String) {
    let _ = write!(out, "retry: {retry_ms}\n\n");
}
