//! Frames that edges send.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codes::ErrorCode;
use crate::{Channel, Cursor, Device, Epoch, MessageId, UserId};

/// A frame of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFrame {
    /// The `req` of the frame that this answers; 0 if it answers none.
    pub req: u32,
    /// What the frame says.
    pub body: ServerBody,
}

/// What an edge's frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerBody {
    /// The connection is open.
    Connected(Connected),
    /// A subscription has started.
    Subscribed(Subscribed),
    /// A subscription has ended.
    Unsubscribed(Unsubscribed),
    /// Messages of one channel, in order.
    Messages(Messages),
    /// Everything up to here has been replayed; from now on it is live.
    Live {
        /// The channel.
        channel: Channel,
        /// The client's position from now on.
        cursor: Cursor,
    },
    /// Continuity cannot be proved.
    Reset(Reset),
    /// A published message is stored.
    Published(Published),
    /// A request failed.
    Error(ErrorBody),
    /// A signal of somebody else.
    Signal(Signal),
    /// Who is present on a channel.
    Presence(Presence),
    /// What the user has read, and how much is unread now.
    Receipt(Receipt),
    /// The new token is in force.
    Refreshed {
        /// When it expires, in milliseconds since the Unix epoch; 0: never.
        expires_ms: u64,
    },
    /// The token is about to expire: refresh it.
    TokenExpiring {
        /// In so many milliseconds.
        expires_in_ms: u64,
    },
    /// Reconnect elsewhere soon.
    Goaway(Goaway),
    /// Heartbeat; every live subscription of a shard may move its cursor to
    /// the shard's position.
    Ping {
        /// The position of each shard that the connection listens to.
        positions: BTreeMap<u16, Cursor>,
    },
}

/// The connection is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Names this connection in the operator's logs.
    pub session: Box<str>,
    /// Who the token says the client is.
    pub user: UserId,
    /// Which edge this is.
    pub edge: Box<str>,
    /// A ping comes at least this often, in milliseconds.
    pub ping_ms: u32,
    /// What this edge accepts.
    pub limits: Limits,
    /// How to space reconnects.
    pub retry: Retry,
    /// When the token expires, in milliseconds since the Unix epoch; 0: never.
    pub expires_ms: u64,
}

/// What an edge accepts from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest payload of a message, in bytes.
    pub message_bytes: u32,
    /// Most subscriptions of a connection.
    pub subscriptions: u32,
}

/// How to space reconnects: exponential, with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first delay is drawn from 0 to this, in milliseconds.
    pub min_ms: u32,
    /// No delay is longer than this, in milliseconds.
    pub max_ms: u32,
}

/// A subscription has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The channel.
    pub channel: Channel,
    /// Whose positions in `ping` this channel follows.
    pub shard: u16,
    /// Where this subscription starts: the client's position from now on.
    pub cursor: Cursor,
    /// The newest position of the channel's shard. Its epoch is the frame's
    /// `epoch` on the wire.
    pub head: Cursor,
    /// Whether there is something to replay before `live`.
    pub replay: bool,
    /// Messages of this channel that the user has not read, where known.
    pub unread: u64,
}

/// A subscription has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The channel.
    pub channel: Channel,
    /// Why.
    pub reason: UnsubscribeReason,
    /// For a developer's eyes, possibly empty.
    pub message: Box<str>,
}

/// Why a subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsubscribeReason {
    /// The client asked for it; an empty `code` on the wire.
    Asked,
    /// The right to listen was lost: `removed`.
    Removed,
}

/// Messages of one channel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// The channel.
    pub channel: Channel,
    /// The epoch of all of them.
    pub epoch: Epoch,
    /// In increasing sequence.
    pub messages: Vec<Message>,
}

/// One stored message. Its cursor is its frame's epoch and its `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its sequence.
    pub seq: u64,
    /// The sequence of the channel's message before it; 0: not known.
    pub prev: u64,
    /// The publisher's id for it.
    pub id: Option<MessageId>,
    /// The application's type of it, possibly empty. Publishers on the
    /// backplane are not held to the limits of clients.
    pub kind: Box<str>,
    /// The user who published it; `None` for services.
    pub sender: Option<UserId>,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The payload. Read from JSON it may lack the white space around it and
    /// the line breaks between its tokens.
    pub data: Bytes,
    /// W3C trace context of the publisher.
    pub traceparent: Option<Box<str>>,
}

/// What is between the client's position and the head is lost to this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// The channel.
    pub channel: Channel,
    /// Why.
    pub reason: ResetReason,
    /// The client's position from now on: the subscription goes on here.
    pub head: Cursor,
    /// The oldest position that can still be replayed, where known.
    pub earliest: Option<Cursor>,
}

/// Why continuity cannot be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// The cursor is older than what is kept.
    Expired,
    /// The cursor is of an epoch that is not known.
    Epoch,
    /// The cursor is ahead of everything that was stored.
    Ahead,
    /// More was missed than the client's `max_catchup`.
    TooFarBehind,
}

/// A published message is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The id that it was published under.
    pub id: MessageId,
    /// The channel.
    pub channel: Channel,
    /// Its position, for ever.
    pub cursor: Cursor,
    /// Whether an earlier publish under the same id had stored it.
    pub duplicate: bool,
}

/// A request failed. Whether it is retryable follows from the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// What went wrong.
    pub code: ErrorCode,
    /// For a developer's eyes.
    pub message: Box<str>,
    /// Wait this long before trying again, in milliseconds.
    pub retry_after_ms: u64,
    /// The channel that it is about, if it is about one.
    pub channel: Option<Channel>,
}

/// A signal of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The channel.
    pub channel: Channel,
    /// The application's type of it, possibly empty.
    pub kind: Box<str>,
    /// Who sent it; `None` for services.
    pub sender: Option<UserId>,
    /// The payload.
    pub data: Bytes,
}

/// Who is present on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The channel.
    pub channel: Channel,
    /// Users with at least one live subscription.
    pub users: Vec<UserId>,
    /// There may be others: an edge did not answer, or they are too many.
    pub partial: bool,
}

/// What the user has read, and how much is unread now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The channel.
    pub channel: Channel,
    /// Which device; `None` if it gave no name.
    pub device: Option<Device>,
    /// What it has stored.
    pub delivered: Option<Cursor>,
    /// What the user has seen.
    pub read: Option<Cursor>,
    /// Messages of this channel that the user has not read.
    pub unread: u64,
}

/// Reconnect elsewhere soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goaway {
    /// Why.
    pub reason: GoawayReason,
    /// Wait this long before reconnecting, in milliseconds.
    pub retry_after_ms: u64,
}

/// Why the edge asks the client to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoawayReason {
    /// The edge is going down.
    Drain,
    /// The connection is old; moving it spreads the load.
    Lifetime,
}

impl ServerFrame {
    /// A frame that answers no request.
    pub fn new(body: ServerBody) -> Self {
        Self { req: 0, body }
    }

    /// The answer to the request `req`.
    pub fn reply(req: u32, body: ServerBody) -> Self {
        Self { req, body }
    }
}

impl ServerBody {
    /// The key of this body on the wire, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connected(_) => "connected",
            Self::Subscribed(_) => "subscribed",
            Self::Unsubscribed(_) => "unsubscribed",
            Self::Messages(_) => "messages",
            Self::Live { .. } => "live",
            Self::Reset(_) => "reset",
            Self::Published(_) => "published",
            Self::Error(_) => "error",
            Self::Signal(_) => "signal",
            Self::Presence(_) => "presence",
            Self::Receipt(_) => "receipt",
            Self::Refreshed { .. } => "refreshed",
            Self::TokenExpiring { .. } => "token_expiring",
            Self::Goaway(_) => "goaway",
            Self::Ping { .. } => "ping",
        }
    }
}

/// The text of a reason on the wire and back, for a plain enum.
macro_rules! wire_text {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $name {
            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The variant with this text on the wire.
            pub fn parse(text: &str) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|it| it.as_str() == text)
            }
        }
    };
}

wire_text!(UnsubscribeReason { Asked => "", Removed => "removed" });
wire_text!(GoawayReason { Drain => "drain", Lifetime => "lifetime" });
wire_text!(ResetReason {
    Expired => "expired",
    Epoch => "epoch",
    Ahead => "ahead",
    TooFarBehind => "too_far_behind",
});
