//! Moving a stream into the archive: what the archiver asks of both sides.
//!
//! [`ArchiveSource`] is the stream, [`ArchiveSink`] the archive, and
//! [`crate::archiver`] the loop between them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, Epoch};
use tokio::time::Instant;

use crate::log::PageError;
use crate::message::Message;

/// A message with the part of its identity that clients do not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMessage {
    /// The message.
    pub message: Message,
    /// Whose id `message.id` is: the text form of the
    /// [`crate::publish::Publisher`], `u.<user>` or `s.<key name>`. `None`
    /// for a message that was published past the edges.
    pub scope: Option<Box<str>>,
}

/// What the archiver's durable consumer hands over.
#[derive(Debug)]
pub struct SourceBatch {
    /// Ascending and complete since the last acknowledged message, except
    /// for messages that were deleted from inside the stream. The payloads
    /// together are bounded by the source (some MiB).
    pub messages: Vec<SourceMessage>,
    /// How many more the stream held behind these when the last of them was
    /// sent; at least 1 if the batch was cut at its limit, as more may have
    /// arrived since.
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

/// How far an ended epoch was known to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// No edge told anybody of a message after this sequence, and none will.
    Through(u64),
    /// An edge that may know of more has not spoken yet.
    NotYet,
    /// Not everybody was heard when it mattered: it will never be known.
    Unknown,
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
    /// The highest sequence of an ended epoch that any edge told anybody of,
    /// by an acknowledgement or a delivery, as far as it is known now. `next`
    /// is the epoch that the stream is in, and `seen` when the stream was last
    /// looked at: only edges that were there since then may know of more.
    fn told(&self, ended: Epoch, next: Epoch, seen: Instant) -> Told;
}

/// The right to write one shard's archive, until another takes it over.
///
/// Every write names it, and the archive checks it in the same transaction:
/// an archiver that was paused and superseded cannot write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose archive.
    pub shard: u16,
    /// Grows with every take-over.
    pub token: i64,
}

/// The newest epoch of a shard's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEpoch {
    /// Which.
    pub epoch: Epoch,
    /// Positions up to here do not belong to this epoch but to the one before.
    pub start: u64,
    /// The archive is complete after this sequence and up to `watermark`.
    pub floor: u64,
    /// Everything up to here is archived.
    pub watermark: u64,
    /// The newest archived message: its sequence and when the stream stored
    /// it (milliseconds since the Unix epoch).
    pub witness: Option<(u64, i64)>,
    /// The highest sequence that anyone reported of the stream.
    pub observed: u64,
    /// How long ago the archiver last saw the stream.
    pub observed_age: Duration,
}

/// A batch on its way into the archive.
#[derive(Debug)]
pub struct ArchiveBatch<'a> {
    /// Ascending, all of `epoch`, all after the epoch's watermark.
    pub messages: &'a [SourceMessage],
    /// The epoch that they belong to; must be the shard's newest.
    pub epoch: Epoch,
    /// The watermark before this batch; the write is refused if the archive
    /// has another.
    pub after: u64,
    /// The watermark from now on: at least the last message's sequence.
    pub watermark: u64,
    /// The stream's last sequence as far as known.
    pub observed: u64,
    /// Everything that the stream stored before this time (milliseconds
    /// since the Unix epoch) is in the archive once this batch is.
    pub covered_ms: i64,
}

/// A new epoch for the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEpoch {
    /// Which.
    pub epoch: Epoch,
    /// Its first message comes after this sequence.
    pub start: u64,
    /// The archive will be complete after this sequence (at least `start`).
    pub floor: u64,
    /// Whether all of the epoch before is archived, so that its readers may
    /// go on into the new one.
    pub previous_complete: bool,
}

/// How the archive is laid out in time and how long it keeps messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRetention {
    /// Messages older than this are dropped, a partition at a time; `None`
    /// keeps them for ever.
    pub keep: Option<Duration>,
    /// The span of one partition, in whole hours.
    pub partition_hours: u32,
    /// How many partitions beyond the current one are kept ready.
    pub partitions_ahead: u32,
}

/// Why the archive did not take something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Not now, or not known whether: the same again later is safe.
    #[error("the archive is unavailable: {reason}")]
    Unavailable {
        /// For the operator's log.
        reason: String,
    },
    /// Another archiver holds the lease now.
    #[error("another archiver has taken over")]
    Fenced,
    /// The archive is not where the caller believed; it must look again.
    #[error("the archive has moved: {reason}")]
    Moved {
        /// For the operator's log.
        reason: String,
    },
}

/// The archive as the archiver sees it. Every method that takes a [`Lease`]
/// changes nothing and answers [`SinkError::Fenced`] once it is superseded.
pub trait ArchiveSink: Send + Sync {
    /// Takes the lease of a shard for `ttl`, or extends it if `holder` has
    /// it. `None` while another holder's has not run out.
    fn acquire<'a>(
        &'a self,
        shard: u16,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, SinkError>>;
    /// Gives the lease up, so that another need not wait until it runs out.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), SinkError>>;
    /// The newest epoch of the shard; `None` before the first.
    fn newest_epoch(&self, shard: u16) -> BoxFuture<'_, Result<Option<ArchivedEpoch>, SinkError>>;
    /// Milliseconds since the Unix epoch at which the stream had stored the
    /// archived message `position`; `None` if it is not archived.
    fn archived_time(
        &self,
        shard: u16,
        position: Cursor,
    ) -> BoxFuture<'_, Result<Option<i64>, SinkError>>;
    /// Starts an epoch and closes the one before, all or nothing. `false` if
    /// the archive has had this epoch before and closed it: the stream must
    /// begin another.
    fn begin_epoch<'a>(
        &'a self,
        lease: &'a Lease,
        new: &'a NewEpoch,
    ) -> BoxFuture<'a, Result<bool, SinkError>>;
    /// Messages up to `floor` were lost to the archive: from now on it is
    /// complete only after it. Moves the watermark there.
    fn raise_floor<'a>(
        &'a self,
        lease: &'a Lease,
        epoch: Epoch,
        floor: u64,
    ) -> BoxFuture<'a, Result<(), SinkError>>;
    /// Stores the messages and moves the watermark, all or nothing and
    /// durably, and extends the lease. An empty batch only reports what was
    /// observed.
    fn append<'a>(
        &'a self,
        lease: &'a Lease,
        batch: ArchiveBatch<'a>,
    ) -> BoxFuture<'a, Result<(), SinkError>>;
    /// Prepares partitions ahead of `now_ms` (milliseconds since the Unix
    /// epoch) and drops what `retention` no longer keeps.
    fn maintain<'a>(
        &'a self,
        lease: &'a Lease,
        retention: &'a ArchiveRetention,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<(), SinkError>>;
}

/// A piece of a channel's history, read backwards.
#[derive(Debug, Clone, Default)]
pub struct PastPage {
    /// Descending, contiguous in the channel.
    pub messages: Vec<Message>,
    /// Where to go on backwards; `None` where this log begins.
    pub before: Option<Cursor>,
}

/// A log that can also be read backwards, for the history API. Reading
/// forwards is [`crate::Log::page`].
pub trait History: Send + Sync + 'static {
    /// The newest messages of the channel before a position. `before` of
    /// `None` means from the newest that this log holds.
    ///
    /// `Unavailable` if this log does not reach up to `before` (yet).
    fn page_before(
        &self,
        channel: Channel,
        before: Option<Cursor>,
        max_messages: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<PastPage, PageError>>;
}
