//! The frames of one WebSocket, in and out.
//!
//! Frames are gathered and written with one system call when there is
//! nothing more to gather. What the socket does not take at once stays here,
//! and [`Socket::is_full`] tells the connection to stop producing.
//!
//! The framing is ours ([`super::wire`]), because a library's buffers are
//! most of what an idle connection costs (docs/PERFORMANCE.md).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use protocol::{CloseCode, Encoding};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{Decoder, Event, FrameHead, Opcode, Violation};

/// A connection that has this much unwritten produces no more until it is
/// written, in bytes. One batch may exceed it.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Bytes read at once, on the stack: a connection keeps only what is
/// unfinished. Most frames of clients have some hundred bytes, the longest
/// takes a few reads.
const READ_BYTES: usize = 8 * 1024;

/// Pieces written at once. A wake-up seldom has more; each frame has two.
const SLICES_MAX: usize = 128;

/// Pieces that were written are taken out when they are so many: not one by
/// one, as the others would have to move up each time.
const DONE_MAX: usize = 64;

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// A frame of the protocol.
    Frame(Bytes),
    /// A sign of life.
    Alive,
    /// Text where binary was negotiated, or the other way round.
    WrongEncoding,
    /// A frame or message over the limit. Nothing more is taken in.
    TooLarge,
    /// The peer broke the WebSocket protocol, and was answered with a close
    /// frame. Nothing more is taken in.
    Broken,
    /// The peer closed and was answered, or vanished.
    Gone,
}

/// One WebSocket, over whatever carries its bytes.
pub(super) struct Socket<S> {
    io: S,
    encoding: Encoding,
    decoder: Decoder,
    outgoing: Outgoing,
    /// Whether something was written that the transport may still hold.
    unflushed: bool,
    /// Nothing follows a close frame.
    closed: bool,
    /// The rest of what the peer says is read and thrown away: closing a TCP
    /// connection with something unread resets it, and the peer would lose
    /// the close frame.
    deaf: bool,
}

/// A frame to be written.
struct Piece {
    head: FrameHead,
    payload: Bytes,
}

/// Frames to be written, in order. One fits without memory of its own.
#[derive(Default)]
struct Outgoing {
    pieces: SmallVec<[Piece; 1]>,
    /// Pieces that are written already.
    done: usize,
    /// Bytes of the next piece that are written already.
    begun: usize,
    bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a connection after its handshake. Messages of the peer
    /// have at most `message_bytes_max` bytes.
    pub(super) fn new(io: S, encoding: Encoding, message_bytes_max: usize) -> Self {
        Self {
            io,
            encoding,
            decoder: Decoder::new(message_bytes_max),
            outgoing: Outgoing::default(),
            unflushed: false,
            closed: false,
            deaf: false,
        }
    }

    /// Takes in what was read behind the handshake.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    /// How frames are written on this connection.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether producing has to wait for the peer.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.bytes >= UNWRITTEN_BYTES_MAX
    }

    /// Whether something waits to be written.
    pub(super) fn has_unwritten(&self) -> bool {
        self.unflushed
    }

    /// Takes a frame to be written. A broken connection shows at the next
    /// flush or receive.
    pub(super) fn send(&mut self, frame: Bytes) {
        let opcode = match self.encoding {
            Encoding::Json => Opcode::Text,
            Encoding::Proto => Opcode::Binary,
        };
        self.write(opcode, frame);
    }

    /// Takes a WebSocket ping to be written. Every WebSocket implementation
    /// answers it by itself, so that clients too plain to answer the
    /// protocol's own ping show that they are alive.
    pub(super) fn ping(&mut self) {
        self.write(Opcode::Ping, Bytes::new());
    }

    /// Takes a close frame to be written, the last one.
    pub(super) fn close(&mut self, code: CloseCode) {
        self.write_close(Some(code.as_u16()), code.as_str());
    }

    /// Gives back what only a busy connection needs.
    pub(super) fn shrink(&mut self) {
        if self.outgoing.pieces.is_empty() {
            self.outgoing.pieces = SmallVec::new();
        }
    }

    fn write_close(&mut self, code: Option<u16>, reason: &str) {
        let mut payload = BytesMut::new();
        if let Some(code) = code {
            payload.put_u16(code);
            payload.put_slice(reason.as_bytes());
        }
        self.write(Opcode::Close, payload.freeze());
        self.closed = true;
    }

    fn write(&mut self, opcode: Opcode, payload: Bytes) {
        if !self.closed {
            self.outgoing.push(opcode, payload);
            self.unflushed = true;
        }
    }

    /// Writes what waits. `Err` when the connection is broken.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let written = ready!(self.outgoing.poll_write(&mut self.io, cx));
        if written.is_err() {
            return Poll::Ready(Err(()));
        }
        let mut flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
        if self.deaf && self.closed && flushed.is_ok() {
            // The peer hears the end at once, and ends too.
            flushed = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        }
        self.unflushed = false;
        Poll::Ready(flushed.map_err(drop))
    }

    /// The next thing that came in.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        loop {
            if self.deaf {
                // First, as a peer that goes on and on must not be in its way.
                let _ = self.poll_flush(cx);
            } else {
                match self.decoder.next() {
                    Ok(Some(event)) => return Poll::Ready(self.on_event(event)),
                    Ok(None) => {}
                    Err(violation) => return Poll::Ready(self.on_violation(violation)),
                }
            }
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut space = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut space)) {
                Ok(()) if self.deaf && !space.filled().is_empty() => {}
                Ok(()) if !space.filled().is_empty() => self.decoder.feed(space.filled()),
                Ok(()) | Err(_) => return Poll::Ready(Received::Gone),
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Received {
        match (event, self.encoding) {
            (Event::Text(data), Encoding::Json) | (Event::Binary(data), Encoding::Proto) => {
                Received::Frame(data)
            }
            (Event::Text(_), Encoding::Proto) | (Event::Binary(_), Encoding::Json) => {
                Received::WrongEncoding
            }
            (Event::Ping(data), _) => {
                // A peer that pings and does not read gets fewer answers, as
                // RFC 6455, section 5.5.3, allows.
                if !self.is_full() {
                    self.write(Opcode::Pong, data);
                }
                Received::Alive
            }
            (Event::Pong, _) => Received::Alive,
            (Event::Close(code), _) => {
                self.write_close(code, "");
                Received::Gone
            }
        }
    }

    fn on_violation(&mut self, violation: Violation) -> Received {
        self.deaf = true;
        self.decoder = Decoder::new(0);
        if violation == Violation::TooLarge {
            // The connection closes with the code that our protocol has for it.
            return Received::TooLarge;
        }
        tracing::debug!(%violation, "socket.broken_protocol");
        self.write_close(Some(violation.close_code()), "");
        Received::Broken
    }
}

impl Piece {
    fn len(&self) -> usize {
        self.head.as_bytes().len() + self.payload.len()
    }
}

impl Outgoing {
    fn push(&mut self, opcode: Opcode, payload: Bytes) {
        let head = FrameHead::new(opcode, payload.len());
        let piece = Piece { head, payload };
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.slices(&mut slices);
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Fills `slices` with what is to be written next; how many there are.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut skip = self.begun;
        let mut count = 0;
        for piece in self.pieces.iter().skip(self.done) {
            for part in [piece.head.as_bytes(), &piece.payload] {
                let cut = skip.min(part.len());
                skip -= cut;
                let part = &part[cut..];
                if part.is_empty() {
                    continue;
                }
                let Some(slice) = slices.get_mut(count) else {
                    return count;
                };
                *slice = IoSlice::new(part);
                count += 1;
            }
        }
        count
    }

    /// Takes off what was written.
    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        if self.bytes == 0 {
            self.pieces.clear();
            (self.done, self.begun) = (0, 0);
            return;
        }
        self.begun += written;
        while let Some(piece) = self.pieces.get_mut(self.done)
            && self.begun >= piece.len()
        {
            self.begun -= piece.len();
            self.done += 1;
            // Its memory may be a whole page of replay.
            piece.payload = Bytes::new();
        }
        if self.done >= DONE_MAX {
            self.pieces.drain(..self.done);
            self.done = 0;
        }
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
