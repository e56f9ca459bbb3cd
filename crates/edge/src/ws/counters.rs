//! What the connections of an edge have done since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use delivery::stats::Counter;
use protocol::CloseCode;

/// Every field but `open` only grows.
#[derive(Debug, Default)]
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
    closes: [AtomicU64; CloseCode::ALL.len() + 1],
}

impl WsCounters {
    /// Counts the end of a connection; `None` where the peer left.
    pub(crate) fn count_close(&self, code: Option<CloseCode>) {
        let known = code.and_then(|code| CloseCode::ALL.iter().position(|it| *it == code));
        // The last place is for connections that the peer ended.
        let place = known.unwrap_or(CloseCode::ALL.len());
        self.closes[place].fetch_add(1, Ordering::Relaxed);
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
