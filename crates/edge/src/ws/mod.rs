//! Connections over WebSocket.
//!
//! - [`upgrade`], [`handshake`]: from a request to a connection;
//! - [`wire`]: frames as RFC 6455 has them;
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
mod handshake;
mod pace;
mod publishes;
mod replies;
mod requests;
mod session;
mod socket;
mod unwritten;
mod wire;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use protocol::ErrorCode;

use crate::Edge;
use crate::auth::{Caller, Grants, unix_now_s};
use crate::http::bearer;
use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use crate::listen;

use handshake::Handshake;

pub use counters::WsCounters;
pub use frames::encode_output;

/// `GET /v1/connect`: the handshake. A token may come in the `Authorization`
/// header, else in the `connect` frame; never in the URL.
pub(crate) async fn upgrade(
    State(edge): State<Edge>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    handshake: Handshake,
) -> Result<Response, ApiError> {
    if !edge.drain().takes_connections() || !edge.hub().is_filled() {
        // Not ready: a cold edge would send every returning client to the log.
        let message = "this edge takes no connections at the moment";
        return Err(ApiError::new(ErrorCode::Unavailable, message));
    }
    // Before anything that costs: it is what many come at once for.
    let place = edge.admission().connect(address)?;
    let grants = granted_by_header(&edge, &headers)?;
    let encoding = handshake.encoding();
    let (response, on_upgrade) = handshake.accept();
    // Crash policy: it ends with the one connection that it begins.
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else {
            // The client left before it had its answer.
            return;
        };
        match upgraded.downcast::<TokioIo<listen::Socket>>() {
            Ok(parts) => {
                let socket = parts.io.into_inner();
                connection::spawn(edge, socket, &parts.read_buf, encoding, grants, place);
            }
            // Behind TLS, or another listener.
            Err(upgraded) => {
                let io = TokioIo::new(upgraded);
                connection::spawn(edge, io, &[], encoding, grants, place);
            }
        }
    });
    Ok(response)
}

/// What a connection with these grants is answered, without a socket.
#[cfg(test)]
pub(crate) fn answers(
    edge: &Edge,
    grants: Grants,
    frames: Vec<protocol::ClientFrame>,
) -> Vec<protocol::ServerFrame> {
    use protocol::Encoding::Json;
    use std::task::{Context, Poll, Waker};
    let mut session = session::Session::new(edge.clone(), grants, None);
    let mut out = Vec::new();
    for frame in frames {
        session.handle(frame, &mut out);
    }
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(work) = session.poll_work(&mut cx, true, &mut out) {
        if let session::Work::Output(output, unread) = work {
            let frame = frames::encode_output(Json, output, unread);
            out.push(protocol::decode_server(Json, &frame).expect("our own frame"));
        }
    }
    out
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
