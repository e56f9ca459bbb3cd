//! Frames that clients send.

use std::fmt;

use bytes::Bytes;

use crate::limits::TOKEN_BYTES_MAX;
use crate::start::From;
use crate::{Channel, Cursor, Device, MessageId};

/// A frame of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFrame {
    /// Chosen by the client and echoed in the reply; 0 asks for no echo.
    pub req: u32,
    /// What the frame says.
    pub body: ClientBody,
}

/// What a client's frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientBody {
    /// The first frame of a connection.
    Connect(Connect),
    /// Listen to a channel.
    Subscribe(Subscribe),
    /// Stop listening to a channel.
    Unsubscribe {
        /// The channel.
        channel: Channel,
    },
    /// Store and deliver a message.
    Publish(Publish),
    /// Tell those who listen now, without storing it.
    Signal(SendSignal),
    /// How far this device has come.
    Ack(Ack),
    /// Ask who is present on a channel.
    Presence {
        /// The channel.
        channel: Channel,
    },
    /// Replace the token of this connection.
    Refresh {
        /// A new JWT of the same user.
        token: Token,
    },
    /// The answer to a ping.
    Pong,
}

/// The first frame of a connection: who is there and what it listens to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connect {
    /// A JWT; `None` where the `Authorization` header carried it.
    pub token: Option<Token>,
    /// Names this device among the user's, for receipts.
    pub device: Option<Device>,
    /// Channels to subscribe to at once, at most
    /// [`SUBSCRIPTIONS_MAX`](crate::limits::SUBSCRIPTIONS_MAX).
    pub subscriptions: Vec<Subscribe>,
    /// Subscribe to the user's own inbox too.
    pub inbox: bool,
    /// Subscribe to all rooms that the user is a member of too.
    pub rooms: bool,
}

/// A JWT as it came, not yet verified: not empty and at most
/// [`TOKEN_BYTES_MAX`] bytes. Its `Debug` form hides it, so that no log has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// A token that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has 1 to {TOKEN_BYTES_MAX} bytes")]
pub struct TokenError;

impl Token {
    /// Checks the length; verifying is up to whoever has the keys.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError);
        }
        Ok(Self(text.into()))
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// Listen to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The channel.
    pub channel: Channel,
    /// Where to start.
    pub from: From,
    /// Replay at most this many messages, else reset to the head; 0: no bound.
    pub max_catchup: u32,
}

/// Store and deliver a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Made when the user pressed send; retries carry the same id.
    pub id: MessageId,
    /// Where to.
    pub channel: Channel,
    /// The application's type of it, possibly empty; see
    /// [`check_type`](crate::names::check_type).
    pub kind: Box<str>,
    /// The payload, byte for byte, at most
    /// [`MESSAGE_BYTES_MAX`](crate::limits::MESSAGE_BYTES_MAX).
    pub data: Bytes,
    /// W3C trace context, passed on to subscribers.
    pub traceparent: Option<Box<str>>,
}

/// Tell those who listen now, without storing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSignal {
    /// Where to.
    pub channel: Channel,
    /// The application's type of it, possibly empty.
    pub kind: Box<str>,
    /// The payload, byte for byte, at most
    /// [`MESSAGE_BYTES_MAX`](crate::limits::MESSAGE_BYTES_MAX).
    pub data: Bytes,
}

/// How far this device has come; cumulative. At least one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The channel.
    pub channel: Channel,
    /// Everything up to here has been stored by the device.
    pub delivered: Option<Cursor>,
    /// Everything up to here has been seen by the user.
    pub read: Option<Cursor>,
}

impl ClientFrame {
    /// A frame that asks for no echo.
    pub fn new(body: ClientBody) -> Self {
        Self { req: 0, body }
    }

    /// A frame whose reply carries `req`.
    pub fn request(req: u32, body: ClientBody) -> Self {
        Self { req, body }
    }
}

impl ClientBody {
    /// The key of this body on the wire, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Publish(_) => "publish",
            Self::Signal(_) => "signal",
            Self::Ack(_) => "ack",
            Self::Presence { .. } => "presence",
            Self::Refresh { .. } => "refresh",
            Self::Pong => "pong",
        }
    }
}
