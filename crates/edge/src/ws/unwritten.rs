//! How long messages take from the stream to a client's socket, and which
//! clients do not take them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use delivery::{Entry, Output};
use tokio::time::Instant;

use crate::Edge;
use crate::ws::WsCounters;

/// The live messages that a connection has gathered and not written yet. One
/// time stands for all of them: what is written together was gathered within
/// one turn, unless the client is slow, and then the oldest is what counts.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// When the stream stored the oldest, in milliseconds since the epoch.
    oldest_ms: i64,
    messages: u64,
}

impl Unwritten {
    /// Notes what is about to be sent.
    pub(super) fn note(&mut self, output: &Output) {
        if let Output::Messages {
            entries,
            live: true,
            ..
        } = output
        {
            self.note_entries(entries);
        }
    }

    fn note_entries(&mut self, entries: &[Arc<Entry>]) {
        let Some(first) = entries.first() else { return };
        if self.messages == 0 {
            self.oldest_ms = first.message().time_ms;
        }
        self.messages += entries.len() as u64;
    }

    /// Everything noted was taken by the socket.
    pub(super) fn written(&mut self, counters: &WsCounters) {
        if self.messages == 0 {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_us = now.map_or(0, |elapsed| elapsed.as_micros() as i64);
        // The stream's clock may be ahead of ours.
        let took_us = u64::try_from(now_us - self.oldest_ms * 1_000).unwrap_or(0);
        counters.write_us.observe_many(took_us, self.messages);
        self.messages = 0;
    }
}

/// A connection whose client does not take what was written. Dropping it says
/// that it does again, or is gone.
pub(super) struct Stalled {
    edge: Edge,
    since: Instant,
}

impl Stalled {
    pub(super) fn now(edge: &Edge) -> Self {
        edge.counters().slow.add(1);
        Self {
            edge: edge.clone(),
            since: Instant::now(),
        }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.edge.counters().slow_ended.add(1);
    }
}
