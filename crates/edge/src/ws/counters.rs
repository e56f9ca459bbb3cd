//! What the connections of an edge have done since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use delivery::stats::{Counter, Histogram, LATENCY_US};
use protocol::{CloseCode, ErrorCode};

/// Every field only grows.
#[derive(Debug)]
pub struct WsCounters {
    /// WebSocket connections whose `connect` was accepted.
    pub connects: Counter,
    /// Streams of server-sent events begun.
    pub sse_connects: Counter,
    /// Long-poll requests let in.
    pub polls: Counter,
    /// Frames received.
    pub frames_in: Counter,
    /// Frames sent.
    pub frames_out: Counter,
    /// Frames that could not be read.
    pub bad_frames: Counter,
    /// Connections and requests that a defect ended.
    pub panics: Counter,
    /// From the stream's storing a live message to its being written to a
    /// socket, in microseconds. The stream's time is known to a millisecond.
    pub write_us: Histogram,
    /// Times that a socket did not take what was written to it.
    pub slow: Counter,
    /// Times that it took it after all, or that the connection ended.
    pub slow_ended: Counter,
    errors: [Counter; ErrorCode::ALL.len()],
    closes: [AtomicU64; CloseCode::ALL.len() + 1],
}

impl Default for WsCounters {
    fn default() -> Self {
        Self {
            connects: Counter::default(),
            sse_connects: Counter::default(),
            polls: Counter::default(),
            frames_in: Counter::default(),
            frames_out: Counter::default(),
            bad_frames: Counter::default(),
            panics: Counter::default(),
            write_us: Histogram::new(&LATENCY_US),
            slow: Counter::default(),
            slow_ended: Counter::default(),
            errors: Default::default(),
            closes: Default::default(),
        }
    }
}

impl WsCounters {
    /// Counts the end of a connection; `None` where the peer left.
    pub(crate) fn count_close(&self, code: Option<CloseCode>) {
        let known = code.and_then(|code| CloseCode::ALL.iter().position(|it| *it == code));
        // The last place is for connections that the peer ended.
        let place = known.unwrap_or(CloseCode::ALL.len());
        self.closes[place].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error that a client was told.
    pub(crate) fn count_error(&self, code: ErrorCode) {
        if let Some(place) = ErrorCode::ALL.iter().position(|it| *it == code) {
            self.errors[place].add(1);
        }
    }

    /// How many errors clients were told, by code.
    pub fn errors(&self) -> impl Iterator<Item = (ErrorCode, u64)> + '_ {
        let codes = ErrorCode::ALL.iter().copied();
        codes.zip(self.errors.iter().map(Counter::get))
    }

    /// How many connections ended with each code; the last, without a code,
    /// were ended by the peer.
    pub fn closes(&self) -> impl Iterator<Item = (Option<CloseCode>, u64)> + '_ {
        let codes = CloseCode::ALL.iter().copied().map(Some).chain([None]);
        codes.zip(
            self.closes
                .iter()
                .map(|count| count.load(Ordering::Relaxed)),
        )
    }
}
