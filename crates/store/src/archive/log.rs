//! The archive as a log.

use std::sync::Arc;

use delivery::archive::{History, PastPage};
use delivery::{Log, Page, PageError, PageRequest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor};

use super::{epochs, page, past};
use crate::batch::Batcher;
use crate::connect::Store;

/// The archive as a [`Log`] and [`History`]; cheap to clone.
///
/// Concurrent page requests share queries, so that ten thousand clients who
/// return at once cost a few hundred. While many wait, pages are shorter than
/// asked for.
#[derive(Clone)]
pub struct ArchiveLog {
    store: Store,
    pages: Arc<Batcher<PageRequest, Result<Page, PageError>>>,
}

impl ArchiveLog {
    /// The log of this store. Must be called within a runtime.
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            pages: Arc::new(Batcher::start(store, page::pages)),
        }
    }
}

impl Log for ArchiveLog {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        async move { self.pages.ask(request).await? }.boxed()
    }

    fn earliest(&self, channel: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async move {
            let newest_first = epochs::of_channel(&self.store, &channel).await?;
            epochs::earliest(&newest_first).ok_or(PageError::UnknownEpoch)
        }
        .boxed()
    }

    fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async move { past::before_last(&self.store, &channel, through, count).await }.boxed()
    }
}

impl History for ArchiveLog {
    fn page_before(
        &self,
        channel: Channel,
        before: Option<Cursor>,
        max_messages: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<PastPage, PageError>> {
        async move {
            past::page_before(&self.store, &channel, before, max_messages, max_bytes).await
        }
        .boxed()
    }
}
