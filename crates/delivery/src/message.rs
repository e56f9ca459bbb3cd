//! A stored message.

use bytes::Bytes;
use protocol::{Channel, Cursor, MessageId, UserId};

/// A message as the stream holds it. Immutable once it has a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel it was published to.
    pub channel: Channel,
    /// Where it stands: epoch and stream sequence.
    pub position: Cursor,
    /// The sequence of the channel's message before this one where that is
    /// known, else 0.
    pub prev: u64,
    /// The publisher's id for it; `None` where a publisher gave none.
    pub id: Option<MessageId>,
    /// The application's type of the message, possibly empty.
    pub kind: Box<str>,
    /// The user who published it; `None` for services.
    pub sender: Option<UserId>,
    /// When the stream stored it, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The payload as it was published.
    pub data: Bytes,
    /// The W3C `traceparent` that the publisher sent.
    pub traceparent: Option<Box<str>>,
}

impl Message {
    /// The stream sequence.
    pub fn seq(&self) -> u64 {
        self.position.seq
    }
}
