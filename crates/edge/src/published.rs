//! Counts what is stored through this edge, whoever publishes.

use std::sync::Arc;

use delivery::publish::{Publication, Publish, PublishError, Published};
use delivery::stats::Counter;
use futures_util::future::BoxFuture;

/// The place where messages are stored, with a count.
pub(crate) struct Counted {
    inner: Arc<dyn Publish>,
    acknowledged: Arc<Counter>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn Publish>, acknowledged: Arc<Counter>) -> Self {
        Self {
            inner,
            acknowledged,
        }
    }
}

impl Publish for Counted {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(async move {
            let published = self.inner.publish(publication).await?;
            self.acknowledged.add(1);
            Ok(published)
        })
    }
}
