//! The two encodings of a frame: JSON and protobuf, with the same meaning.
//!
//! Both go through the types generated from `frames.proto`, so that a rule is
//! checked in one place: `client` and `server` turn those into frames of valid
//! types and back. `json` reads and writes the generated types as JSON,
//! `payload` embeds a payload in JSON. The hot path, one message to many
//! connections, goes around them: `message` writes each message once per
//! encoding and joins what is ready.

mod client;
mod error;
mod field;
pub(crate) mod json;
mod message;
mod payload;
mod server;

use bytes::Bytes;
use prost::Message as _;

pub use error::DecodeError;
pub use message::{MessageRef, encode_message, encode_messages};

use crate::codes::ErrorCode;
use crate::frame::{ClientFrame, ServerBody, ServerFrame};
use crate::limits::FRAME_BYTES_MAX;
use crate::v1;

/// How frames are written on a connection, negotiated as its subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text frames of JSON.
    Json,
    /// Binary frames of protobuf.
    Proto,
}

impl Encoding {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::Json, Self::Proto];

    /// The WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "rejoin.v1.json",
            Self::Proto => "rejoin.v1.proto",
        }
    }

    /// The encoding with this subprotocol. (A client that offers none gets
    /// JSON; one that offers only others is refused.)
    pub fn from_subprotocol(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.subprotocol() == text)
    }

    /// Whether its WebSocket frames are binary rather than text.
    pub fn is_binary(self) -> bool {
        match self {
            Self::Json => false,
            Self::Proto => true,
        }
    }
}

/// Reads a frame of a client.
///
/// # Errors
///
/// Anything that is not exactly a valid frame, see [`DecodeError`]. Never
/// panics, whatever the bytes.
pub fn decode_client(encoding: Encoding, bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
    if bytes.len() > FRAME_BYTES_MAX {
        let message = format!("a frame has at most {FRAME_BYTES_MAX} bytes");
        return Err(DecodeError::new(ErrorCode::TooLarge, 0, message));
    }
    let frame = match encoding {
        Encoding::Json => json::decode_client(bytes)?,
        Encoding::Proto => v1::ClientFrame::decode(bytes)
            .map_err(|error| DecodeError::from_proto(bytes, &error))?,
    };
    client::from_wire(frame)
}

/// Reads a frame of an edge: the client's side. Unknown keys are ignored,
/// because later edges may say more.
///
/// # Errors
///
/// [`ErrorCode::Unsupported`] for a body that this version does not know,
/// which a client skips; another code for what is not a frame.
pub fn decode_server(encoding: Encoding, bytes: &[u8]) -> Result<ServerFrame, DecodeError> {
    let frame = match encoding {
        Encoding::Json => json::decode_server(bytes)?,
        Encoding::Proto => v1::ServerFrame::decode(bytes)
            .map_err(|error| DecodeError::from_proto(bytes, &error))?,
    };
    server::from_wire(frame)
}

/// Writes a frame of a client: the client's side. The payload arrives byte for
/// byte.
pub fn encode_client(encoding: Encoding, frame: &ClientFrame) -> Bytes {
    let wire = client::to_wire(frame);
    match encoding {
        Encoding::Json => json::encode(wire.req, wire.body.as_ref()),
        Encoding::Proto => wire.encode_to_vec().into(),
    }
}

/// Writes a frame of an edge. JSON has no line break in it, so that it can be
/// one line of a server-sent event.
pub fn encode_server(encoding: Encoding, frame: &ServerFrame) -> Bytes {
    if let ServerBody::Messages(batch) = &frame.body {
        return message::encode_batch(encoding, frame.req, batch);
    }
    let wire = server::to_wire(frame);
    match encoding {
        Encoding::Json => json::encode(wire.req, wire.body.as_ref()),
        Encoding::Proto => wire.encode_to_vec().into(),
    }
}
