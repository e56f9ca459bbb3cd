//! Connections over WebSocket.
//!
//! - [`upgrade`]: the handshake;
//! - [`socket`]: frames in and out, with back-pressure;
//! - [`connection`]: the one task of a connection, and its one loop;
//! - [`session`]: what the frames of a client do;
//! - [`requests`]: publish, signal and ack;
//! - [`replies`]: how a request went;
//! - `pace`: how much a connection is sent in time;
//! - [`publishes`]: publishes under way, in order per channel;
//! - [`unwritten`]: how long messages wait for their socket;
//! - [`counters`]: what all of them have done;
//! - [`echo`]: framing alone, for the Autobahn test suite.

mod connection;
mod counters;
pub mod echo;
mod frames;
mod pace;
mod publishes;
mod replies;
mod requests;
mod session;
mod socket;
mod unwritten;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use protocol::{Encoding, ErrorCode, limits};

use crate::Edge;
use crate::auth::{Caller, Grants, unix_now_s};
use crate::http::bearer;
use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;

pub use counters::WsCounters;
pub use frames::encode_output;

/// Memory of a connection's read buffer, in bytes. The default, 128 KiB, is
/// 137 kB per idle connection and 2.4 times the CPU per delivery.
const READ_BUFFER_BYTES: usize = 512;

/// Frames are gathered up to here before a system call, in bytes: more only
/// delays the first one.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// Never reached: a connection stops taking output long before (see
/// [`socket`]); bounds memory should that ever fail, in bytes.
const WRITE_BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// `GET /v1/connect`: the handshake. A token may come in the `Authorization`
/// header, else in the `connect` frame; never in the URL.
pub async fn upgrade(
    State(edge): State<Edge>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade =
        upgrade.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
    if !edge.drain().takes_connections() || !edge.hub().is_filled() {
        // Not ready: a cold edge would send every returning client to the log.
        let message = "this edge takes no connections at the moment";
        return Err(ApiError::new(ErrorCode::Unavailable, message));
    }
    // Before anything that costs: it is what many come at once for.
    let place = edge.admission().connect(address)?;
    let grants = granted_by_header(&edge, &headers)?;
    let offered: Vec<_> = upgrade.requested_protocols().cloned().collect();
    let encoding = match offered.as_slice() {
        [] => Encoding::Json,
        offered => offered
            .iter()
            .find_map(|name| Encoding::from_subprotocol(name.to_str().ok()?))
            .ok_or_else(|| {
                let message = "none of the offered subprotocols is spoken here: rejoin.v1.json, rejoin.v1.proto";
                ApiError::new(ErrorCode::BadRequest, message)
            })?,
    };
    let bounds = &edge.config().limits;
    let frame_bytes = limits::frame_bytes(bounds.message_bytes, bounds.subscriptions);
    let upgrade = configured(upgrade, encoding, frame_bytes);
    Ok(upgrade.on_upgrade(move |socket| async move {
        // Given back with the connection.
        let _place = place;
        connection::run(edge, socket, encoding, grants).await;
    }))
}

/// How every WebSocket of an edge is framed; `frame_bytes` bounds what a
/// client may send at once.
fn configured(
    upgrade: WebSocketUpgrade,
    encoding: Encoding,
    frame_bytes: usize,
) -> WebSocketUpgrade {
    upgrade
        .protocols([encoding.subprotocol()])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        // A frame that is echoed fits too.
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX.max(frame_bytes + WRITE_BUFFER_BYTES))
        .max_message_size(frame_bytes)
        .max_frame_size(frame_bytes)
}

fn granted_by_header(edge: &Edge, headers: &HeaderMap) -> Result<Option<Grants>, ApiError> {
    let Some(credential) = bearer::credential(headers) else {
        return Ok(None);
    };
    match edge.auth().verify_bearer(credential, unix_now_s())? {
        Caller::User(grants) => Ok(Some(grants)),
        Caller::Service(_) => {
            let message = "connections are for users: expected a token, not an API key";
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
    }
}
