//! What an archiver is doing, for metrics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::archive::SourceState;

/// Numbers of one shard's archiver, updated as it works.
#[derive(Debug, Default)]
pub struct ArchiverStats {
    active: AtomicBool,
    watermark: AtomicU64,
    lag_messages: AtomicU64,
    lag_ms: AtomicU64,
    covered_ms: AtomicI64,
    archived_messages: AtomicU64,
    batches: AtomicU64,
    interruptions: AtomicU64,
    epochs: AtomicU64,
    stream_bytes: AtomicU64,
    stream_max_bytes: AtomicU64,
}

impl ArchiverStats {
    /// Whether this archiver holds the lease and works; else it stands by or
    /// waits for stream or archive.
    pub fn is_active(&self) -> bool {
        self.active.load(Relaxed)
    }

    /// The sequence up to which the current epoch is archived.
    pub fn watermark(&self) -> u64 {
        self.watermark.load(Relaxed)
    }

    /// Messages in the stream that are not archived yet, as last seen.
    pub fn lag_messages(&self) -> u64 {
        self.lag_messages.load(Relaxed)
    }

    /// For how long, in milliseconds, not all that the stream stored has been
    /// archived; 0 when it is.
    pub fn lag_ms(&self) -> u64 {
        self.lag_ms.load(Relaxed)
    }

    /// Messages archived since the start of the process.
    pub fn archived_messages(&self) -> u64 {
        self.archived_messages.load(Relaxed)
    }

    /// Transactions that archived them.
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// How often archiving stopped and was taken up again.
    pub fn interruptions(&self) -> u64 {
        self.interruptions.load(Relaxed)
    }

    /// Epochs begun by this archiver.
    pub fn epochs(&self) -> u64 {
        self.epochs.load(Relaxed)
    }

    /// Bytes in the stream and the limit at which it refuses messages (0 if
    /// it has none), as last seen.
    pub fn stream_bytes(&self) -> (u64, u64) {
        (
            self.stream_bytes.load(Relaxed),
            self.stream_max_bytes.load(Relaxed),
        )
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Relaxed);
    }

    pub(crate) fn set_watermark(&self, watermark: u64) {
        self.watermark.store(watermark, Relaxed);
    }

    pub(crate) fn set_lag(&self, messages: u64, ms: i64) {
        self.lag_messages.store(messages, Relaxed);
        self.lag_ms
            .store(u64::try_from(ms).unwrap_or_default(), Relaxed);
    }

    /// Everything stored before this time, in milliseconds since the Unix
    /// epoch, is archived.
    pub fn covered_ms(&self) -> i64 {
        self.covered_ms.load(Relaxed)
    }

    pub(crate) fn set_covered_ms(&self, covered_ms: i64) {
        self.covered_ms.fetch_max(covered_ms, Relaxed);
    }

    pub(crate) fn count_archived(&self, messages: usize) {
        self.archived_messages.fetch_add(messages as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_interruption(&self) {
        self.interruptions.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_epoch(&self) {
        self.epochs.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_stream(&self, state: &SourceState) {
        self.stream_bytes.store(state.bytes, Relaxed);
        self.stream_max_bytes.store(state.max_bytes, Relaxed);
    }
}
