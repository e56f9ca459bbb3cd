//! Counters that show where replays came from.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reader::ResetReason;

/// What delivery has done since the process started. Every field only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages handed to connections.
    pub deliveries: Counter,
    /// Subscriptions that became live without asking a log.
    pub catch_ups_from_window: Counter,
    /// Subscriptions that asked a log before they became live.
    pub catch_ups_from_log: Counter,
    /// Requests to the archive.
    pub archive_requests: Counter,
    /// Requests to the stream: pages, positions and confirmed heads.
    pub stream_requests: Counter,
    /// Requests that a log could not answer for the time being.
    pub log_unavailable: Counter,
    /// Resets because messages may have left every log.
    pub resets_expired: Counter,
    /// Resets because the cursor's epoch is not known.
    pub resets_epoch: Counter,
    /// Resets because the cursor is ahead of the stream.
    pub resets_ahead: Counter,
    /// Resets because the client bounds its replay.
    pub resets_too_far_behind: Counter,
}

impl Counters {
    pub(crate) fn count_reset(&self, reason: ResetReason) {
        match reason {
            ResetReason::Expired => self.resets_expired.add(1),
            ResetReason::Epoch => self.resets_epoch.add(1),
            ResetReason::Ahead => self.resets_ahead.add(1),
            ResetReason::TooFarBehind => self.resets_too_far_behind.add(1),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
