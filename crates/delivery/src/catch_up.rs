//! Where messages below the window come from: the archive up to its
//! watermark, the stream where the archive is behind or down.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Channel, Cursor};
use tokio::time::{Instant, sleep};

use crate::log::{Log, Page, PageError, PageRequest, Stream};
use crate::stats::{Counters, Source};

/// When to ask again for what follows an epoch that the archiver has not ended
/// yet. It looks at the stream after a second without a message.
const EPOCH_ENDS_WITHIN: Duration = Duration::from_millis(250);

/// How long a reader waits for the epoch that follows a stream's return to an
/// older copy. Longer than an archiver takes to reconnect and look.
const EPOCH_BEGINS_WITHIN: Duration = Duration::from_secs(5);

/// How long a stream has to end before a position until that is believed. A
/// leader that hands its place to another, as when its server is stopped, may
/// answer once more when the other has stored something already.
const LEADER_GONE_WITHIN: Duration = Duration::from_secs(1);

/// The logs below the window, asked in order.
#[derive(Clone)]
pub struct CatchUp {
    archive: Option<Arc<dyn Log>>,
    stream: Arc<dyn Stream>,
    counters: Arc<Counters>,
}

impl CatchUp {
    /// Without an archive, the stream alone is asked.
    pub fn new(
        archive: Option<Arc<dyn Log>>,
        stream: Arc<dyn Stream>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            archive,
            stream,
            counters,
        }
    }

    /// The next page after a position, and which log it is of.
    pub async fn page(&self, request: PageRequest) -> Result<(Source, Page), PageError> {
        let Some(archive) = &self.archive else {
            let page = self.stream_page(request).await?;
            return Ok((Source::Stream, page));
        };
        let from_archive = self.archive_page(archive, request.clone()).await;
        let archive_error = match from_archive {
            Ok(page) if moves(&page, &request) => return Ok((Source::Archive, page)),
            Err(error @ PageError::Expired { .. }) => return Err(error),
            Ok(_) => None,
            Err(error @ (PageError::Unavailable { .. } | PageError::UnknownEpoch)) => Some(error),
        };
        match (self.stream_page(request.clone()).await, archive_error) {
            (Ok(page), _) => Ok((Source::Stream, page)),
            // While the archive is away nothing is proved to be missing.
            (
                Err(PageError::Expired { .. } | PageError::UnknownEpoch),
                Some(unavailable @ PageError::Unavailable { .. }),
            ) => Err(unavailable),
            // The stream has begun a new epoch, and the archiver has not heard
            // of it: until it has ended the old one, nothing is proved.
            (Err(PageError::UnknownEpoch), None) => {
                let reason = "the archive has not ended the epoch yet".to_owned();
                Err(self.unavailable(PageError::Unavailable {
                    retry_after: EPOCH_ENDS_WITHIN,
                    reason,
                }))
            }
            // The archive moved on and the stream was trimmed between the
            // two questions: what left the stream is archived by now.
            (Err(PageError::Expired { earliest }), _) => {
                match self.archive_page(archive, request.clone()).await {
                    Ok(page) if moves(&page, &request) => Ok((Source::Archive, page)),
                    Err(error @ PageError::Unavailable { .. }) => Err(error),
                    Ok(_) | Err(PageError::Expired { .. } | PageError::UnknownEpoch) => {
                        Err(PageError::Expired { earliest })
                    }
                }
            }
            (Err(error @ (PageError::Unavailable { .. } | PageError::UnknownEpoch)), _) => {
                Err(error)
            }
        }
    }

    /// The oldest position of the channel that can be replayed completely.
    pub async fn earliest(&self, channel: Channel) -> Result<Cursor, PageError> {
        if let Some(archive) = &self.archive {
            self.counters.archive_requests.add(1);
            match archive.earliest(channel.clone()).await {
                Ok(cursor) => return Ok(cursor),
                Err(error @ PageError::Unavailable { .. }) => return Err(self.unavailable(error)),
                // The archive has not seen this stream yet.
                Err(PageError::Expired { .. } | PageError::UnknownEpoch) => {}
            }
        }
        self.counters.stream_requests.add(1);
        self.stream.earliest(channel).await
    }

    /// The position from which the channel's `count` newest messages at or
    /// before `through` follow.
    pub async fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> Result<Cursor, PageError> {
        if let Some(archive) = &self.archive {
            self.counters.archive_requests.add(1);
            match archive.before_last(channel.clone(), through, count).await {
                Ok(cursor) => return Ok(cursor),
                Err(error @ PageError::Unavailable { .. }) => {
                    let error = self.unavailable(error);
                    return match self.held_in_stream(channel, through, count).await {
                        Some(cursor) => Ok(cursor),
                        None => Err(error),
                    };
                }
                Err(PageError::Expired { .. } | PageError::UnknownEpoch) => {}
            }
        }
        self.counters.stream_requests.add(1);
        self.stream.before_last(channel, through, count).await
    }

    /// The same where the stream alone proves it: while it holds so many.
    async fn held_in_stream(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> Option<Cursor> {
        self.counters.stream_requests.add(2);
        let found = self.stream.before_last(channel.clone(), through, count);
        let found = found.await.ok()?;
        let earliest = self.stream.earliest(channel).await.ok()?;
        // At its begin, earlier ones may be in the archive alone.
        (found.epoch == earliest.epoch && found.seq > earliest.seq).then_some(found)
    }

    /// The shard's head, confirmed by the stream's leader.
    pub async fn head(&self, shard: u16) -> Result<Cursor, PageError> {
        self.counters.stream_requests.add(1);
        self.stream.head(shard).await
    }

    /// The same for a reader at `position` of a channel, which is ahead of its
    /// window. If the stream ends before it, but the archive reaches it, then
    /// the stream was put back to an older copy, and the archiver is about to
    /// begin a new epoch: that is waited for, for a while. Otherwise it is
    /// looked at again, as one answer may have been a former leader's.
    pub async fn head_for(
        &self,
        shard: u16,
        channel: Channel,
        position: Cursor,
    ) -> Result<Cursor, PageError> {
        let begin = Instant::now();
        loop {
            let head = self.head(shard).await?;
            let went_back = head.epoch == position.epoch && head.seq < position.seq;
            if !went_back {
                return Ok(head);
            }
            let patience = match self.is_archived(&channel, position).await {
                true => EPOCH_BEGINS_WITHIN,
                false => LEADER_GONE_WITHIN,
            };
            if begin.elapsed() >= patience {
                return Ok(head);
            }
            sleep(EPOCH_ENDS_WITHIN).await;
        }
    }

    async fn is_archived(&self, channel: &Channel, position: Cursor) -> bool {
        let Some(archive) = &self.archive else {
            return false;
        };
        // From the position before it: a page never ends before it begins.
        let before = Cursor::new(position.epoch, position.seq.saturating_sub(1));
        let request = PageRequest {
            channel: channel.clone(),
            after: before,
            max_messages: 1,
            max_bytes: 1,
        };
        let page = self.archive_page(archive, request).await;
        page.is_ok_and(|page| page.through >= position.seq)
    }

    async fn archive_page(
        &self,
        archive: &Arc<dyn Log>,
        request: PageRequest,
    ) -> Result<Page, PageError> {
        self.counters.archive_requests.add(1);
        archive
            .page(request)
            .await
            .map_err(|error| self.unavailable(error))
    }

    async fn stream_page(&self, request: PageRequest) -> Result<Page, PageError> {
        self.counters.stream_requests.add(1);
        self.stream
            .page(request)
            .await
            .map_err(|error| self.unavailable(error))
    }

    /// Counts an unavailable log on the way out.
    fn unavailable(&self, error: PageError) -> PageError {
        if matches!(error, PageError::Unavailable { .. }) {
            self.counters.log_unavailable.add(1);
        }
        error
    }
}

/// Whether a page takes its reader anywhere.
fn moves(page: &Page, request: &PageRequest) -> bool {
    page.through > request.after.seq || page.next_epoch.is_some() || !page.messages.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use protocol::Epoch;

    use super::*;

    /// A stream of which another leader's answer comes first, once.
    struct FormerLeader(AtomicU64);

    impl Log for FormerLeader {
        fn page(&self, _: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
            async { Err(PageError::UnknownEpoch) }.boxed()
        }

        fn earliest(&self, _: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
            async { Err(PageError::UnknownEpoch) }.boxed()
        }

        fn before_last(
            &self,
            _: Channel,
            _: Cursor,
            _: usize,
        ) -> BoxFuture<'_, Result<Cursor, PageError>> {
            async { Err(PageError::UnknownEpoch) }.boxed()
        }
    }

    impl Stream for FormerLeader {
        fn head(&self, _: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
            let last = self.0.swap(9, Ordering::Relaxed);
            async move { Ok(Cursor::new(Epoch(1), last)) }.boxed()
        }
    }

    #[tokio::test]
    async fn one_answer_of_a_former_leader_does_not_put_a_reader_ahead() {
        let stream = Arc::new(FormerLeader(AtomicU64::new(5)));
        let catch_up = CatchUp::new(None, stream, Arc::default());
        let channel = Channel::parse("room:1").unwrap();
        let position = Cursor::new(Epoch(1), 7);
        let head = catch_up.head_for(0, channel, position).await.unwrap();
        assert_eq!(head, Cursor::new(Epoch(1), 9));
    }
}
