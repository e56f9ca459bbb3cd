//! The frames of one WebSocket, in and out.
//!
//! Frames are gathered and written with one system call when there is
//! nothing more to gather. What the socket does not take at once stays here,
//! and [`Socket::is_full`] tells the connection to stop producing.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use protocol::{CloseCode, Encoding};

/// A connection that has this much unwritten produces no more until it is
/// written, in bytes. One batch may exceed it.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024;

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// A frame of the protocol.
    Frame(Bytes),
    /// A sign of life.
    Alive,
    /// Text where binary was negotiated, or the other way round.
    WrongEncoding,
    /// A frame or message over the limit.
    TooLarge,
    /// The peer closed, vanished, or broke the WebSocket protocol; the rest
    /// was answered already.
    Gone,
}

/// One WebSocket.
pub(super) struct Socket {
    inner: WebSocket,
    encoding: Encoding,
    unwritten: usize,
}

impl Socket {
    pub(super) fn new(inner: WebSocket, encoding: Encoding) -> Self {
        Self {
            inner,
            encoding,
            unwritten: 0,
        }
    }

    /// How frames are written on this connection.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether producing has to wait for the peer.
    pub(super) fn is_full(&self) -> bool {
        self.unwritten >= UNWRITTEN_BYTES_MAX
    }

    /// Whether something waits to be written.
    pub(super) fn has_unwritten(&self) -> bool {
        self.unwritten > 0
    }

    /// Takes a frame to be written. A broken connection shows at the next
    /// flush or receive.
    pub(super) fn send(&mut self, frame: Bytes) {
        let message = match self.encoding {
            Encoding::Proto => Message::Binary(frame),
            Encoding::Json => match Utf8Bytes::try_from(frame) {
                Ok(text) => Message::Text(text),
                Err(error) => {
                    // JSON is written by our own encoder.
                    tracing::error!(%error, "frame.not_utf8");
                    return;
                }
            },
        };
        self.write(message);
    }

    /// Takes a WebSocket ping to be written. Every WebSocket implementation
    /// answers it by itself, so that clients too plain to answer the
    /// protocol's own ping show that they are alive.
    pub(super) fn ping(&mut self) {
        self.write(Message::Ping(Bytes::new()));
    }

    /// Takes a close frame to be written.
    pub(super) fn close(&mut self, code: CloseCode) {
        let reason = Utf8Bytes::from_static(code.as_str());
        self.write(Message::Close(Some(CloseFrame {
            code: code.as_u16(),
            reason,
        })));
    }

    fn write(&mut self, message: Message) {
        let bytes = match &message {
            Message::Text(text) => text.as_str().len(),
            Message::Binary(data) | Message::Ping(data) | Message::Pong(data) => data.len(),
            Message::Close(_) => 0,
        };
        // At least one byte, so that an empty ping is flushed too. The inner
        // sink buffers; it refuses only when the connection is broken.
        self.unwritten += bytes.max(1);
        if let Err(error) = Pin::new(&mut self.inner).start_send(message) {
            tracing::debug!(%error, "socket.write_refused");
        }
    }

    /// Writes what waits. `Err` when the connection is broken.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.unwritten = 0;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The next thing that came in.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let message = match Pin::new(&mut self.inner).poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(Received::Gone),
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(if is_too_large(&error) {
                    Received::TooLarge
                } else {
                    Received::Gone
                });
            }
            Poll::Ready(Some(Ok(message))) => message,
        };
        Poll::Ready(match (message, self.encoding) {
            (Message::Text(text), Encoding::Json) => Received::Frame(text.into()),
            (Message::Binary(data), Encoding::Proto) => Received::Frame(data),
            (Message::Text(_), Encoding::Proto) | (Message::Binary(_), Encoding::Json) => {
                Received::WrongEncoding
            }
            // The answer to a ping is queued by the inner socket and written
            // with the next flush.
            (Message::Ping(_), _) => {
                self.unwritten += 1;
                Received::Alive
            }
            (Message::Pong(_), _) => Received::Alive,
            (Message::Close(_), _) => {
                self.unwritten += 1;
                Received::Gone
            }
        })
    }
}

/// axum hides the error's type behind a box.
fn is_too_large(error: &axum::Error) -> bool {
    use tokio_tungstenite::tungstenite::Error;
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(Error::Capacity(_)) = error.downcast_ref::<Error>() {
            return true;
        }
        source = error.source();
    }
    false
}
