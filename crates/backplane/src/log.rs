//! Older messages by channel and position.

use std::sync::Arc;
use std::time::Duration;

use delivery::{Log, Page, PageError, PageRequest, Stream};
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor};

use crate::connect::Inner;

/// The streams as a log; cheap to clone.
#[derive(Clone)]
pub struct StreamLog {
    inner: Arc<Inner>,
}

impl StreamLog {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    async fn nothing<T>(&self) -> Result<T, PageError> {
        let _ = &self.inner;
        Err(PageError::Unavailable {
            retry_after: Duration::from_secs(1),
            reason: "under construction".into(),
        })
    }
}

impl Log for StreamLog {
    fn page(&self, _request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        Box::pin(self.nothing())
    }

    fn earliest(&self, _channel: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        Box::pin(self.nothing())
    }

    fn before_last(
        &self,
        _channel: Channel,
        _through: Cursor,
        _count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        Box::pin(self.nothing())
    }
}

impl Stream for StreamLog {
    fn head(&self, _shard: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        Box::pin(self.nothing())
    }
}
