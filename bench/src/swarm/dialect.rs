//! What clients of each system say and hear.

use memchr::memmem;

use super::client::Spec;

/// Whose protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `rejoin.v1.json`.
    Rejoin,
    /// Engine.IO 4 and Socket.IO 5 over WebSocket.
    SocketIo,
}

/// Where a client was, in its system's terms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Rejoin's epoch, or Socket.IO's private session id.
    pub(crate) session: String,
    /// Rejoin's sequence, or Socket.IO's offset.
    pub(crate) offset: String,
}

impl Place {
    fn cursor(&self) -> Option<String> {
        (!self.offset.is_empty()).then(|| format!("{}-{}", self.session, self.offset))
    }
}

/// What a text frame means to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The greeting that the client answers with who it is.
    Greeted,
    /// The client is known; with no room to wait for, it is ready.
    Known,
    /// One more room is live.
    Live,
    /// Messages may be in it.
    Messages,
    /// A publish is acknowledged.
    Acknowledged,
    /// To be answered with [`Dialect::pong`].
    Pinged,
    /// The server refused something.
    Refused,
    /// Of no interest.
    Other,
}

impl Dialect {
    /// The request that opens a WebSocket.
    pub(crate) fn request(self) -> &'static [u8] {
        match self {
            Self::Rejoin => {
                b"GET /v1/connect HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                  Sec-WebSocket-Protocol: rejoin.v1.json\r\n\r\n"
            }
            Self::SocketIo => {
                b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            }
        }
    }

    /// Whether the client speaks first.
    pub(crate) const fn introduces_itself_at_once(self) -> bool {
        matches!(self, Self::Rejoin)
    }

    /// Who the client is and what it wants, from its place where it has one.
    pub(crate) fn introduction(self, spec: &Spec, place: &Place) -> String {
        let Spec {
            token, rooms, from, ..
        } = spec;
        match self {
            Self::Rejoin => {
                let from = place
                    .cursor()
                    .unwrap_or_else(|| from.unwrap_or("tail").to_owned());
                let rooms: Vec<String> = rooms
                    .iter()
                    .map(|room| format!(r#"{{"channel":"{room}","from":"{from}"}}"#))
                    .collect();
                let rooms = rooms.join(",");
                format!(r#"{{"req":1,"connect":{{"token":"{token}","subscriptions":[{rooms}]}}}}"#)
            }
            Self::SocketIo => {
                let rooms = serde_json::json!(rooms);
                let Place { session, offset } = place;
                match offset.is_empty() {
                    true => format!(r#"40{{"token":"{token}","rooms":{rooms}}}"#),
                    false => format!(
                        r#"40{{"token":"{token}","rooms":{rooms},"pid":"{session}","offset":"{offset}"}}"#
                    ),
                }
            }
        }
    }

    /// Whether each room becomes live by itself, after the client is known.
    pub(crate) const fn tells_rooms_apart(self) -> bool {
        matches!(self, Self::Rejoin)
    }

    /// A publish of a payload to a room.
    pub(crate) fn publish(self, request: u32, room: &str, payload: &str) -> String {
        match self {
            Self::Rejoin => {
                let id = uuid::Uuid::now_v7();
                format!(
                    r#"{{"req":{request},"publish":{{"id":"{id}","channel":"{room}","data":{payload}}}}}"#
                )
            }
            Self::SocketIo => format!(r#"42{request}["pub","{room}",{payload}]"#),
        }
    }

    /// The answer to a ping of the protocol's own.
    pub(crate) const fn pong(self) -> &'static [u8] {
        match self {
            Self::Rejoin => br#"{"pong":{}}"#,
            Self::SocketIo => b"3",
        }
    }

    /// What a frame means.
    pub(crate) fn meaning(self, text: &[u8]) -> Meaning {
        match self {
            Self::Rejoin => match text {
                [b'{', b'"', b'm', ..] => Meaning::Messages,
                [b'{', b'"', b'l', ..] => Meaning::Live,
                [b'{', b'"', b'p', b'i', ..] => Meaning::Pinged,
                [b'{', b'"', b'r', b'e', b'q', ..] => match memmem::find(text, b",\"") {
                    Some(at) => match &text[at + 2..] {
                        [b'c', b'o', ..] => Meaning::Known,
                        [b'p', b'u', ..] => Meaning::Acknowledged,
                        [b'e', b'r', ..] => Meaning::Refused,
                        _ => Meaning::Other,
                    },
                    None => Meaning::Other,
                },
                [b'{', b'"', b'e', ..] => Meaning::Refused,
                _ => Meaning::Other,
            },
            Self::SocketIo => match text {
                [b'0', ..] => Meaning::Greeted,
                [b'2'] => Meaning::Pinged,
                [b'4', b'0', ..] => Meaning::Known,
                [b'4', b'2', ..] => Meaning::Messages,
                [b'4', b'3', ..] => Meaning::Acknowledged,
                [b'4', b'4' | b'1', ..] => Meaning::Refused,
                _ => Meaning::Other,
            },
        }
    }

    /// Takes note of where a frame puts the client.
    pub(crate) fn note(self, text: &[u8], meaning: Meaning, place: &mut Place) {
        match (self, meaning) {
            (Self::Rejoin, Meaning::Messages) => {
                if let Some(epoch) = string_after(text, b"\"epoch\":\"") {
                    set(&mut place.session, epoch);
                }
                let seq = memmem::rfind(text, b"\"seq\":").map(|at| &text[at + 6..]);
                let digits = seq.and_then(|rest| rest.split(|byte| !byte.is_ascii_digit()).next());
                if let Some(digits) = digits {
                    set(&mut place.offset, digits);
                }
            }
            (Self::Rejoin, Meaning::Live) => {
                let cursor = string_after(text, b"\"cursor\":\"").unwrap_or_default();
                if let Some(dash) = cursor.iter().position(|byte| *byte == b'-') {
                    set(&mut place.session, &cursor[..dash]);
                    set(&mut place.offset, &cursor[dash + 1..]);
                }
            }
            (Self::SocketIo, Meaning::Messages) => {
                // `42["m",{…},"<offset>"]`, where the offset is only there with connection state recovery.
                if let Some(at) = memmem::rfind(text, b"},\"")
                    && let Some(offset) = text[at + 3..].strip_suffix(b"\"]")
                {
                    set(&mut place.offset, offset);
                }
            }
            (Self::SocketIo, Meaning::Known) => {
                if let Some(session) = string_after(text, b"\"pid\":\"") {
                    set(&mut place.session, session);
                }
            }
            _ => {}
        }
    }
}

fn set(text: &mut String, bytes: &[u8]) {
    text.clear();
    text.push_str(&String::from_utf8_lossy(bytes));
}

fn string_after<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &text[memmem::find(text, key)? + key.len()..];
    rest.split(|byte| *byte == b'"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_rejoin_knows_where_it_is() {
        let dialect = Dialect::Rejoin;
        let mut place = Place::default();
        let text = br#"{"messages":{"channel":"a:b","epoch":"00ff","messages":[{"seq":7,"data":1},{"seq":12,"data":2}]}}"#;
        let meaning = dialect.meaning(text);
        assert_eq!(meaning, Meaning::Messages);
        dialect.note(text, meaning, &mut place);
        assert_eq!(place.cursor().as_deref(), Some("00ff-12"));
        let text = br#"{"live":{"channel":"a:b","cursor":"00ff-13"}}"#;
        dialect.note(text, dialect.meaning(text), &mut place);
        assert_eq!(place.cursor().as_deref(), Some("00ff-13"));
        let meaning = |text: &str| dialect.meaning(text.as_bytes());
        assert_eq!(meaning(r#"{"req":1,"connected":{}}"#), Meaning::Known);
        assert_eq!(
            meaning(r#"{"req":12,"published":{}}"#),
            Meaning::Acknowledged
        );
        assert_eq!(meaning(r#"{"req":1,"error":{}}"#), Meaning::Refused);
        assert_eq!(meaning(r#"{"ping":{}}"#), Meaning::Pinged);
    }

    #[test]
    fn a_client_of_socket_io_knows_where_it_is() {
        let dialect = Dialect::SocketIo;
        let mut place = Place::default();
        let text = br#"40{"sid":"x","pid":"p1"}"#;
        dialect.note(text, dialect.meaning(text), &mut place);
        let text = br#"42["m",{"bt":"1","x":"."},"17-0"]"#;
        dialect.note(text, dialect.meaning(text), &mut place);
        assert_eq!(
            (place.session.as_str(), place.offset.as_str()),
            ("p1", "17-0")
        );
    }
}
