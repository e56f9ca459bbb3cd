//! One client of the swarm.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use super::dialect::{Dialect, Meaning, Place};
use super::frame::{self, Opcode};

/// Clients that connect from one loopback address: well below the 28,000 ports that Linux gives out per address.
const PER_ADDRESS: usize = 5_000;

/// Who a client is and where it connects.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) server: SocketAddr,
    pub(crate) token: String,
    pub(crate) rooms: Vec<String>,
    /// Where it starts in its rooms while it has no place of its own; at the tail if this says nothing.
    pub(crate) from: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for its turn to connect, or was cut.
    Away,
    /// The TCP connection or the HTTP upgrade is under way.
    Upgrading,
    /// The protocol's introductions are under way.
    Introducing,
    /// Everything that it asked for is live.
    Ready,
}

pub(crate) struct Client {
    pub(crate) spec: Spec,
    pub(crate) phase: Phase,
    pub(crate) place: Place,
    /// Numbers of the messages that it got, where that is asked for.
    pub(crate) numbers: Vec<u32>,
    /// Publishes of its own that were answered.
    pub(crate) answered: u64,
    pub(crate) stream: Option<TcpStream>,
    /// Bytes per read and a pause between reads, for clients that are slow on purpose.
    pub(crate) slow: bool,
    pending_rooms: usize,
    partial: Vec<u8>,
    unwritten: Vec<u8>,
}

/// What came of reading.
pub(crate) enum Heard {
    /// Text of a frame and what it means.
    Text(Meaning),
    /// It became ready.
    Ready,
    /// The connection ended.
    Gone(String),
}

impl Client {
    pub(crate) fn new(spec: Spec) -> Self {
        Self {
            spec,
            phase: Phase::Away,
            place: Place::default(),
            numbers: Vec::new(),
            answered: 0,
            stream: None,
            slow: false,
            pending_rooms: 0,
            partial: Vec::new(),
            unwritten: Vec::new(),
        }
    }

    /// Begins to connect and queues the upgrade request.
    pub(crate) fn dial(&mut self, index: usize, dialect: Dialect) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if self.slow {
            // The smallest that the kernel grants, so that slowness reaches the server soon.
            sockopt::set_socket_recv_buffer_size(&socket, 1)?;
        }
        let host = Ipv4Addr::new(127, 0, 1, 1 + (index / PER_ADDRESS) as u8);
        bind(&socket, &SocketAddrV4::new(host, 0))?;
        match connect(&socket, &self.spec.server) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::INPROGRESS => {}
            Err(error) => return Err(error.into()),
        }
        self.stream = Some(TcpStream::from(socket));
        self.phase = Phase::Upgrading;
        self.pending_rooms = self.spec.rooms.len();
        self.partial = Vec::new();
        self.unwritten = dialect.request().to_vec();
        Ok(())
    }

    /// Writes what waits. Whether something still does.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(false);
        };
        while !self.unwritten.is_empty() {
            match stream.write(&self.unwritten) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) if written == self.unwritten.len() => self.unwritten = Vec::new(),
                Ok(written) => drop(self.unwritten.drain(..written)),
                // Before the connection is there, Linux says the latter.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Queues a text frame.
    pub(crate) fn say(&mut self, text: &[u8]) {
        frame::push_text(&mut self.unwritten, text);
    }

    /// Reads once and tells what was heard. Whether the buffer was filled, so that there may be more.
    pub(crate) fn read(
        &mut self,
        dialect: Dialect,
        buffer: &mut [u8],
        mut heard: impl FnMut(&mut Self, Heard, &[u8]),
    ) -> bool {
        let Some(stream) = self.stream.as_mut() else {
            return false;
        };
        let count = match stream.read(buffer) {
            Ok(0) => {
                heard(self, Heard::Gone("closed by the server".to_owned()), &[]);
                return false;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                heard(self, Heard::Gone(error.to_string()), &[]);
                return false;
            }
        };
        let full = count == buffer.len();
        if self.partial.is_empty() {
            let used = self.take_in(dialect, &buffer[..count], &mut heard);
            self.partial.extend_from_slice(&buffer[used..count]);
        } else {
            let mut bytes = std::mem::take(&mut self.partial);
            bytes.extend_from_slice(&buffer[..count]);
            let used = self.take_in(dialect, &bytes, &mut heard);
            if used < bytes.len() {
                bytes.drain(..used);
                self.partial = bytes;
            }
        }
        full
    }

    /// Takes in whole frames; how many bytes they had.
    fn take_in(
        &mut self,
        dialect: Dialect,
        bytes: &[u8],
        heard: &mut impl FnMut(&mut Self, Heard, &[u8]),
    ) -> usize {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return 0;
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let line = bytes
                    .split(|byte| *byte == b'\r')
                    .next()
                    .unwrap_or_default();
                let line = String::from_utf8_lossy(line).into_owned();
                heard(self, Heard::Gone(line), &[]);
                return bytes.len();
            }
            used = end + 4;
            self.phase = Phase::Introducing;
            if dialect.introduces_itself_at_once() {
                self.introduce(dialect);
            }
        }
        while let Some((opcode, start, end)) = frame::first(&bytes[used..]) {
            let payload = &bytes[used + start..used + end];
            used += end;
            match opcode {
                Opcode::Text => self.hear(dialect, payload, heard),
                Opcode::Ping => frame::push_pong(&mut self.unwritten, payload),
                Opcode::Close => {
                    let code = payload
                        .first_chunk()
                        .map_or(0, |code| u16::from_be_bytes(*code));
                    heard(self, Heard::Gone(format!("closed with {code}")), &[]);
                    return bytes.len();
                }
                Opcode::Pong | Opcode::Other => {}
            }
        }
        used
    }

    fn hear(
        &mut self,
        dialect: Dialect,
        text: &[u8],
        heard: &mut impl FnMut(&mut Self, Heard, &[u8]),
    ) {
        let meaning = dialect.meaning(text);
        dialect.note(text, meaning, &mut self.place);
        match meaning {
            Meaning::Greeted => self.introduce(dialect),
            Meaning::Pinged => self.say(dialect.pong()),
            Meaning::Known => {
                if self.pending_rooms == 0 || !dialect.tells_rooms_apart() {
                    self.phase = Phase::Ready;
                    heard(self, Heard::Ready, text);
                }
            }
            Meaning::Live => {
                self.pending_rooms = self.pending_rooms.saturating_sub(1);
                if self.pending_rooms == 0 && self.phase == Phase::Introducing {
                    self.phase = Phase::Ready;
                    heard(self, Heard::Ready, text);
                }
            }
            Meaning::Messages | Meaning::Acknowledged | Meaning::Refused => {
                heard(self, Heard::Text(meaning), text);
            }
            Meaning::Other => {}
        }
    }

    fn introduce(&mut self, dialect: Dialect) {
        let text = dialect.introduction(&self.spec, &self.place);
        self.say(text.as_bytes());
    }
}
