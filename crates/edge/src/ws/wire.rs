//! The server's side of RFC 6455: bytes into frames, frames into bytes. No
//! I/O and no time. Without extensions, so every reserved bit is an error.
//!
//! What is kept between two reads is what is unfinished, and nothing when
//! nothing is: an idle connection holds no buffer. Memory is taken for what
//! has come, never for what a header only declares.

use bytes::{Buf, Bytes, BytesMut};

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Most bytes of a server's frame header: without a mask.
const HEAD_BYTES_MAX: usize = 10;

/// What a peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A whole message, put together if it came in fragments. Text is UTF-8.
    Text(Bytes),
    Binary(Bytes),
    /// To be answered with its payload.
    Ping(Bytes),
    Pong,
    /// To be answered in kind.
    Close(Option<u16>),
}

/// How a peer broke the protocol; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// Known from a header alone, before the payload is taken in.
    #[error("a message over the limit")]
    TooLarge,
}

impl Violation {
    /// The close code for it (RFC 6455, section 7.4.1).
    pub(super) const fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// Takes a peer's bytes apart.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Longest message, in bytes.
    message_bytes_max: usize,
    held: BytesMut,
    /// The message that comes in more than one piece: in fragments, or in a
    /// frame that is still under way; rare, so an idle connection pays one
    /// word.
    message: Option<Box<Unfinished>>,
}

#[derive(Debug)]
struct Unfinished {
    is_text: bool,
    data: BytesMut,
    /// How much of a text was found to be UTF-8; the rest may be the
    /// beginning of a character.
    valid: usize,
    rest: Rest,
}

/// What is still to come of a frame.
#[derive(Debug)]
struct Rest {
    bytes: usize,
    /// The mask, as the next byte needs it.
    key: [u8; 4],
    /// Whether the message ends with this frame.
    is_final: bool,
}

/// A frame's header.
#[derive(Debug, Clone, Copy)]
struct Head {
    is_final: bool,
    opcode: Opcode,
    key: [u8; 4],
    /// Where the payload begins, and how long it is.
    start: usize,
    payload: usize,
}

impl Decoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            held: BytesMut::new(),
            message: None,
        }
    }

    /// Takes in what was read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next thing that is complete.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            if self.is_inside_frame() {
                if self.held.is_empty() {
                    return Ok(None);
                }
                if let Some(event) = self.go_on()? {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(head) = self.head()? else {
                if self.held.is_empty() {
                    self.held = BytesMut::new();
                }
                return Ok(None);
            };
            if self.held.len() < head.start + head.payload {
                if head.opcode.is_control() {
                    return Ok(None);
                }
                self.held.advance(head.start);
                self.message(head).rest = Rest {
                    bytes: head.payload,
                    key: head.key,
                    is_final: head.is_final,
                };
                continue;
            }
            self.held.advance(head.start);
            let mut payload = self.held.split_to(head.payload);
            unmask(&mut payload, head.key);
            if let Some(event) = self.frame(head, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn is_inside_frame(&self) -> bool {
        self.message.as_ref().is_some_and(|it| it.rest.bytes > 0)
    }

    /// Takes what has come of a frame that came in part. So text that is not
    /// UTF-8 is noticed before the frame has ended.
    fn go_on(&mut self) -> Result<Option<Event>, Violation> {
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        let rest = &mut message.rest;
        let count = self.held.len().min(rest.bytes);
        let mut piece = self.held.split_to(count);
        unmask(&mut piece, rest.key);
        rest.bytes -= count;
        rest.key.rotate_left(count % 4);
        let is_last = rest.bytes == 0 && rest.is_final;
        message.add(&piece, is_last)?;
        Ok(match is_last {
            true => self.message.take().map(|message| message.finish()),
            false => None,
        })
    }

    /// The header of the next frame, checked; `None` while it is incomplete.
    fn head(&self) -> Result<Option<Head>, Violation> {
        let &[first, second, ref rest @ ..] = &*self.held else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        let opcode = Opcode::from_bits(first & 0x0f);
        let opcode = opcode.ok_or(Violation::Protocol("an unknown opcode"))?;
        let is_final = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(Violation::Protocol("a frame of a client is masked"));
        }
        let (extended, payload) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(bytes) => (2, u64::from(u16::from_be_bytes(*bytes))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (8, u64::from_be_bytes(*bytes)),
                None => return Ok(None),
            },
            short => (0, u64::from(short)),
        };
        if opcode.is_control() && (!is_final || payload > CONTROL_BYTES_MAX as u64) {
            return Err(Violation::Protocol("a control frame is short and whole"));
        }
        match (opcode, &self.message) {
            (Opcode::Continuation, None) => {
                return Err(Violation::Protocol("a continuation of nothing"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Protocol("a message inside another one"));
            }
            _ => {}
        }
        let before = self.message.as_ref().map_or(0, |it| it.data.len());
        let payload = usize::try_from(payload).map_err(|_| Violation::TooLarge)?;
        if !opcode.is_control() && payload > self.message_bytes_max - before {
            return Err(Violation::TooLarge);
        }
        let Some(key) = rest.get(extended..).and_then(|rest| rest.first_chunk()) else {
            return Ok(None);
        };
        Ok(Some(Head {
            is_final,
            opcode,
            key: *key,
            start: 2 + extended + key.len(),
            payload,
        }))
    }

    /// What a whole frame means; nothing yet if it is a fragment.
    fn frame(&mut self, head: Head, payload: BytesMut) -> Result<Option<Event>, Violation> {
        Ok(match head.opcode {
            Opcode::Ping => Some(Event::Ping(payload.freeze())),
            Opcode::Pong => Some(Event::Pong),
            Opcode::Close => Some(Event::Close(close_code(&payload)?)),
            Opcode::Text if head.is_final => {
                std::str::from_utf8(&payload).map_err(|_| Violation::NotUtf8)?;
                Some(Event::Text(payload.freeze()))
            }
            Opcode::Binary if head.is_final => Some(Event::Binary(payload.freeze())),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.message(head).add(&payload, head.is_final)?;
                match head.is_final {
                    true => self.message.take().map(|message| message.finish()),
                    false => None,
                }
            }
        })
    }

    /// The message that a frame belongs to.
    fn message(&mut self, head: Head) -> &mut Unfinished {
        self.message.get_or_insert_with(|| {
            Box::new(Unfinished {
                is_text: head.opcode == Opcode::Text,
                data: BytesMut::new(),
                valid: 0,
                rest: Rest {
                    bytes: 0,
                    key: head.key,
                    is_final: false,
                },
            })
        })
    }
}

impl Unfinished {
    /// Adds a fragment. Text is checked as it comes, so that a peer that
    /// sends nonsense for ever is noticed at once.
    fn add(&mut self, fragment: &[u8], is_last: bool) -> Result<(), Violation> {
        self.data.extend_from_slice(fragment);
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() && !is_last => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    fn finish(self) -> Event {
        match self.is_text {
            true => Event::Text(self.data.freeze()),
            false => Event::Binary(self.data.freeze()),
        }
    }
}

/// The code of a close frame, checked with all of its payload.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Violation::Protocol("half a close code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // Section 7.4 and the registry that it opens; 1004 to 1006 and 1015 are
    // never sent.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("a close code that is never sent"));
    }
    std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some(code))
}

/// Takes a client's mask off (section 5.3).
fn unmask(payload: &mut [u8], key: [u8; 4]) {
    // Eight bytes at a time; the compiler makes vector code of it.
    let [a, b, c, d] = key;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ twice).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A whole, unmasked frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    bytes: [u8; HEAD_BYTES_MAX],
    len: u8,
}

impl FrameHead {
    pub(super) fn new(opcode: Opcode, payload: usize) -> Self {
        let mut bytes = [0; HEAD_BYTES_MAX];
        bytes[0] = 0x80 | opcode.bits();
        let len = match payload {
            0..=125 => {
                // Checked by the pattern.
                bytes[1] = payload as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, len }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
