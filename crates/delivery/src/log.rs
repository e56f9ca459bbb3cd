//! What a reader below the window asks of the places that keep older
//! messages: the archive and the stream itself.

use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, Epoch};

use crate::message::Message;

/// Which messages of a channel are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The channel.
    pub channel: Channel,
    /// Only messages after this position.
    pub after: Cursor,
    /// At most this many messages (at least 1).
    pub max_messages: usize,
    /// Stop before the payloads exceed this many bytes; a first message
    /// that is larger on its own is returned all the same.
    pub max_bytes: usize,
}

/// A contiguous piece of a channel's log.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Ascending; `prev` is set from the second message on.
    pub messages: Vec<Message>,
    /// Every message of the channel after the request's position and up to
    /// this sequence is in `messages`. Equal to the request's sequence when
    /// this log does not reach further.
    pub through: u64,
    /// Set when `through` is the end of a closed epoch: reading goes on at
    /// sequence 0 of this one.
    pub next_epoch: Option<Epoch>,
}

/// Why a log could not give a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not now; nothing is said about the messages.
    #[error("unavailable, retry in {} ms: {reason}", retry_after.as_millis())]
    Unavailable {
        /// When to ask again.
        retry_after: Duration,
        /// For the operator's log.
        reason: String,
    },
    /// Messages after the requested position may have left this log; the
    /// position `earliest` is the oldest from which it is complete.
    #[error("the log is complete only from {earliest} on")]
    Expired {
        /// The oldest position from which nothing is missing.
        earliest: Cursor,
    },
    /// This log does not know the epoch, or cannot prove that it holds the
    /// rest of it.
    #[error("unknown epoch")]
    UnknownEpoch,
}

/// A place that keeps messages by channel and position.
///
/// Contract, checked for every implementation: pages are complete up to
/// `through`; a page is never empty with `through` unchanged unless this log
/// really ends there; positions never change their content.
pub trait Log: Send + Sync + 'static {
    /// The next page after a position.
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>>;

    /// The oldest position of the channel from which this log is complete.
    fn earliest(&self, channel: Channel) -> BoxFuture<'_, Result<Cursor, PageError>>;

    /// The position from which exactly the `count` newest of the channel's
    /// messages at or before `through` follow (fewer, where this log holds
    /// fewer).
    fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>>;
}

/// The live stream, which alone knows the true head.
pub trait Stream: Log {
    /// The shard's current epoch and last sequence, confirmed with the
    /// stream's leader.
    fn head(&self, shard: u16) -> BoxFuture<'_, Result<Cursor, PageError>>;
}
