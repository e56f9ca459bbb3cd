//! What the edge asks of the place that stores a new message.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, MessageId, UserId};

/// Who publishes. Message ids are scoped to their publisher, so that one
/// cannot suppress another's message by using its id first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Publisher {
    /// A user over a client connection; becomes the message's sender.
    User(UserId),
    /// A service, by the name of its API key.
    Service(Box<str>),
}

/// A message on its way into a stream.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where to.
    pub channel: Channel,
    /// The id under which it may be retried for ever.
    pub id: MessageId,
    /// Whose id that is.
    pub publisher: Publisher,
    /// The application's type of the message, possibly empty.
    pub kind: Box<str>,
    /// The user it is shown as coming from, if any.
    pub sender: Option<UserId>,
    /// The payload.
    pub data: Bytes,
    /// W3C trace context of the publisher.
    pub traceparent: Option<Box<str>>,
}

/// The durable acknowledgement of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The message's position, for ever.
    pub cursor: Cursor,
    /// Whether an earlier publish under the same id had stored it.
    pub duplicate: bool,
}

/// Why a publish has no acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not stored, or not known to be: retry under the same id.
    #[error("unavailable, retry in {} ms: {reason}", retry_after.as_millis())]
    Unavailable {
        /// When to retry.
        retry_after: Duration,
        /// For the operator's log.
        reason: String,
    },
    /// Not stored: the stream is at its byte limit because the archive is
    /// behind. Retry later.
    #[error("the stream is full, retry in {} ms", retry_after.as_millis())]
    Full {
        /// When to retry.
        retry_after: Duration,
    },
    /// Not stored, and a retry will not help.
    #[error("refused: {reason}")]
    Refused {
        /// For the publisher.
        reason: String,
    },
}

/// Stores messages durably.
pub trait Publish: Send + Sync + 'static {
    /// Resolves once the stream's quorum has stored the message, or says why
    /// that is not known. Bounded in time by the implementation.
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>>;
}
