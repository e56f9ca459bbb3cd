//! The stream as the archiver reads it.

use std::sync::Arc;
use std::time::Duration;

use delivery::archive::{ArchiveSource, SourceBatch, SourceError, SourceState};
use futures_util::future::BoxFuture;
use protocol::Epoch;

use crate::connect::Inner;

/// One shard's stream, for the one active archiver.
pub struct StreamArchiveSource {
    inner: Arc<Inner>,
    shard: u16,
}

impl StreamArchiveSource {
    pub(crate) fn new(inner: Arc<Inner>, shard: u16) -> Self {
        Self { inner, shard }
    }

    async fn nothing<T>(&self) -> Result<T, SourceError> {
        let _ = (&self.inner, self.shard);
        Err(SourceError {
            reason: "under construction".into(),
        })
    }
}

impl ArchiveSource for StreamArchiveSource {
    fn state(&self) -> BoxFuture<'_, Result<SourceState, SourceError>> {
        Box::pin(self.nothing())
    }
    fn time_of(&self, _seq: u64) -> BoxFuture<'_, Result<Option<i64>, SourceError>> {
        Box::pin(self.nothing())
    }
    fn begin_epoch(&self) -> BoxFuture<'_, Result<Epoch, SourceError>> {
        Box::pin(self.nothing())
    }
    fn next_batch(
        &self,
        _max_messages: usize,
        _max_wait: Duration,
    ) -> BoxFuture<'_, Result<SourceBatch, SourceError>> {
        Box::pin(self.nothing())
    }
    fn ack_through(&self, _seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.nothing())
    }
    fn rewind(&self, _seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.nothing())
    }
    fn trim_through(&self, _seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.nothing())
    }
    fn last_before(&self, _time_ms: i64) -> BoxFuture<'_, Result<Option<u64>, SourceError>> {
        Box::pin(self.nothing())
    }
}
