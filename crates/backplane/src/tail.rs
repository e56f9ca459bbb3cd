//! New messages as they are stored.

use std::sync::Arc;
use std::time::Duration;

use delivery::{Tail, TailEvent};

use crate::connect::Inner;

/// Where a tail begins when nothing ties it to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailStart {
    /// With what is stored from now on.
    Head,
    /// Far enough back to fill a window.
    Fill {
        /// About this many bytes as the stream counts them.
        budget_bytes: u64,
        /// And nothing older than this.
        max_age: Option<Duration>,
    },
}

/// The feed of one shard.
pub struct StreamTail {
    inner: Arc<Inner>,
    shard: u16,
    start: TailStart,
}

impl StreamTail {
    pub(crate) fn new(inner: Arc<Inner>, shard: u16, start: TailStart) -> Self {
        Self {
            inner,
            shard,
            start,
        }
    }
}

impl Tail for StreamTail {
    async fn next(&mut self) -> TailEvent {
        let _ = (&self.inner, self.shard, self.start);
        std::future::pending().await
    }
}
