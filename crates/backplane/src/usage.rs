//! How full the streams are, as last asked.

use crate::connect::Backplane;

/// One stream's use of its byte limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamUsage {
    /// Which shard's.
    pub shard: u16,
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// The limit at which publishing is refused; 0 when there is none.
    pub max_bytes: u64,
    /// The newest sequence.
    pub last: u64,
}

impl Backplane {
    /// The use of every stream that has answered since the start, at most
    /// [`crate::BackplaneConfig::refresh_interval_ms`] old while NATS answers.
    pub fn usage(&self) -> Vec<StreamUsage> {
        let known = self.inner.shards.iter().filter_map(|shard| {
            let state = shard.known()?;
            Some(StreamUsage {
                shard: shard.number,
                messages: state.messages,
                bytes: state.bytes,
                max_bytes: state.max_bytes,
                last: state.last,
            })
        });
        known.collect()
    }
}
