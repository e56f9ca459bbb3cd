//! Sends every frame back, for the Autobahn test suite (`make autobahn`).
//!
//! The protocol of an edge answers a frame with another one, which a
//! conformance suite cannot judge. What it has to judge is the handshake and
//! the framing, and those are the edge's own here: [`Handshake`] and
//! [`Socket`]. No edge serves this; the example `echo` does. And a door for
//! the fuzzer, behind which the framing is alone.

use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::handshake::Handshake;
use super::socket::{Received, Socket};
use super::wire::Decoder;

/// Longest message that is echoed, in bytes: the suite's largest ones have
/// 16 MiB. An edge takes far less.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest message of [`taken_apart`], in bytes: within a fuzzer's inputs.
const FUZZED_BYTES_MAX: usize = 4 * 1024;

/// Answers a handshake. With `rejoin.v1.json`, or no subprotocol, text is
/// echoed; with `rejoin.v1.proto` bytes.
pub async fn echo(request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let handshake = match Handshake::from_request_parts(&mut parts, &()).await {
        Ok(handshake) => handshake,
        Err(problem) => return problem.into_response(),
    };
    let encoding = handshake.encoding();
    let (response, on_upgrade) = handshake.accept();
    // Crash policy: it ends with its connection.
    tokio::spawn(async move {
        if let Ok(upgraded) = on_upgrade.await {
            let mut socket = Socket::new(TokioIo::new(upgraded), encoding, MESSAGE_BYTES_MAX);
            poll_fn(|cx| poll(&mut socket, cx)).await;
        }
    });
    response
}

/// What a peer's bytes are taken for when they come in pieces of so many
/// bytes, and the close code if they break the protocol: for the fuzzer.
pub fn taken_apart(bytes: &[u8], piece: usize) -> (Vec<String>, Option<u16>) {
    let mut decoder = Decoder::new(FUZZED_BYTES_MAX);
    let mut events = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(violation) => return (events, Some(violation.close_code())),
            }
        }
    }
    (events, None)
}

/// Ready when the connection has ended, as [`super::connection`] does it.
fn poll<S>(socket: &mut Socket<S>, cx: &mut Context<'_>) -> Poll<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if !socket.is_full()
            && let Poll::Ready(received) = socket.poll_receive(cx)
        {
            match received {
                Received::Frame(frame) => socket.send(frame),
                // After a violation the end comes when the suite has read the
                // close frame.
                Received::Alive | Received::Broken => {}
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
