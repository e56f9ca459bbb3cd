//! Sends every frame back, for the Autobahn test suite (`make autobahn`).
//!
//! The protocol of an edge answers a frame with another one, which a
//! conformance suite cannot judge. What it has to judge is the handshake and
//! the framing, and those are the edge's own here: [`super::configured`] and
//! [`Socket`]. No edge serves this; the example `echo` does.

use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse, Response};
use protocol::Encoding;

use super::socket::{Received, Socket};

/// Longest message that is echoed, in bytes: the suite's largest ones have
/// 16 MiB. An edge takes far less.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers a handshake; 400 where no subprotocol of an edge is offered. With
/// `rejoin.v1.json` text is echoed, with `rejoin.v1.proto` bytes.
pub async fn echo(upgrade: WebSocketUpgrade) -> Response {
    let offered = upgrade.requested_protocols();
    let encoding = offered
        .filter_map(|name| Encoding::from_subprotocol(name.to_str().ok()?))
        .next();
    let Some(encoding) = encoding else {
        return axum::http::StatusCode::BAD_REQUEST.into_response();
    };
    super::configured(upgrade, encoding, MESSAGE_BYTES_MAX).on_upgrade(move |inner| async move {
        let mut socket = Socket::new(inner, encoding);
        poll_fn(|cx| poll(&mut socket, cx)).await;
    })
}

/// Ready when the connection has ended, as [`super::connection`] does it.
fn poll(socket: &mut Socket, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if !socket.is_full()
            && let Poll::Ready(received) = socket.poll_receive(cx)
        {
            match received {
                Received::Frame(frame) => socket.send(frame),
                Received::Alive => {}
                Received::WrongEncoding | Received::TooLarge | Received::Gone => {
                    // Best effort: the answer to the peer's close frame.
                    let _ = socket.poll_flush(cx);
                    return Poll::Ready(());
                }
            }
            continue;
        }
        let was_full = socket.is_full();
        if socket.has_unwritten() {
            match socket.poll_flush(cx) {
                Poll::Ready(Ok(())) if was_full => continue,
                Poll::Ready(Err(())) => return Poll::Ready(()),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        return Poll::Pending;
    }
}
