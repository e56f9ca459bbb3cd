//! Moving a stream into the archive: what the archiver asks of both sides.

use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::Epoch;

use crate::message::Message;

/// What the archiver's durable consumer hands over.
#[derive(Debug)]
pub struct SourceBatch {
    /// Ascending and complete since the last acknowledged message.
    pub messages: Vec<Message>,
    /// How many more the stream holds behind these.
    pub pending: u64,
}

/// The stream as the archiver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// The stream's current epoch.
    pub epoch: Epoch,
    /// The oldest sequence still stored; `last + 1` when empty.
    pub first: u64,
    /// The newest sequence.
    pub last: u64,
    /// Bytes stored, and the limit at which publishing is refused.
    pub bytes: u64,
    /// The limit in bytes; 0 when unlimited.
    pub max_bytes: u64,
}

/// The stream could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the stream is unavailable: {reason}")]
pub struct SourceError {
    /// For the operator's log.
    pub reason: String,
}

/// One shard's stream, read by the one active archiver.
pub trait ArchiveSource: Send + Sync {
    /// Confirmed with the stream's leader.
    fn state(&self) -> BoxFuture<'_, Result<SourceState, SourceError>>;
    /// Milliseconds since the Unix epoch at which `seq` was stored; `None`
    /// if the stream does not hold it. The witness of an epoch.
    fn time_of(&self, seq: u64) -> BoxFuture<'_, Result<Option<i64>, SourceError>>;
    /// Writes a new epoch into the stream's metadata and returns it.
    fn begin_epoch(&self) -> BoxFuture<'_, Result<Epoch, SourceError>>;
    /// The next messages after the last acknowledged one. Returns an empty
    /// batch after `max_wait` without any.
    fn next_batch(
        &self,
        max_messages: usize,
        max_wait: Duration,
    ) -> BoxFuture<'_, Result<SourceBatch, SourceError>>;
    /// Acknowledges everything up to `seq`; only after it is durably archived.
    fn ack_through(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>>;
    /// Makes the durable consumer deliver from the message after `seq` on.
    fn rewind(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>>;
    /// Removes messages up to and including `seq` from the stream.
    fn trim_through(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>>;
    /// The newest sequence stored before this time, for trimming by age.
    fn last_before(&self, time_ms: i64) -> BoxFuture<'_, Result<Option<u64>, SourceError>>;
}
