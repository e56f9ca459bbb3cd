//! Older messages by channel and position, read from the stream itself.

use std::sync::Arc;
use std::time::Duration;

use delivery::{Log, Message, Page, PageError, PageRequest, Stream};
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor};

use crate::api::ApiError;
use crate::connect::Inner;
use crate::direct::{self, Batch, ReadError, Wanted};
use crate::message::Stored;
use crate::shard::{Shard, StreamState};

/// What a reader is told to wait when the stream cannot be read.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Most messages read one by one in one page, where batches fail.
const ONE_BY_ONE_MAX: usize = 16;

/// Probes of one search for a position: a bisection of 2^64 sequences.
const PROBES_MAX: usize = 64;

/// Searches begun again because messages arrived meanwhile.
const SEARCHES_MAX: usize = 3;

/// The streams as a log; cheap to clone.
///
/// A read costs the server time in proportion to what the stream holds after
/// the position, of all channels. Few run at once
/// ([`crate::BackplaneConfig::catchup_in_flight`]); the others wait.
#[derive(Clone)]
pub struct StreamLog {
    inner: Arc<Inner>,
}

impl StreamLog {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    fn shard(&self, channel: &Channel) -> &Shard {
        self.inner.shard(channel.shard(self.inner.config.shards))
    }

    async fn read_page(&self, request: PageRequest) -> Result<Page, PageError> {
        let PageRequest { channel, after, .. } = &request;
        let shard = self.shard(channel);
        let _permit = self
            .inner
            .catchup_permits
            .acquire()
            .await
            .map_err(|_closed| unavailable("shutting down"))?;
        let before = self.inner.fresh(shard).await.map_err(unanswered)?;
        check_reach(&before, *after)?;
        if after.seq >= before.last {
            return Ok(Page {
                through: after.seq,
                ..Page::default()
            });
        }
        let (stored, end) = self.read(shard, &request).await?;
        let read = stored.len();
        let mut page = self.assemble(&request, stored);
        let read_to = page.messages.last().map_or(after.seq, Message::seq);
        page.through = read_to;
        if end && page.messages.len() == read {
            self.prove_end(shard, &request, &before, &mut page).await?;
        }
        // Trimmed while it was read, messages of the channel could be missing
        // without a trace.
        let state = self.inner.fresh(shard).await.map_err(unanswered)?;
        check_reach(&state, *after)?;
        if !shard.tell(Cursor::new(after.epoch, page.through)) {
            return Err(PageError::UnknownEpoch);
        }
        Ok(page)
    }

    /// Reads what follows the request's position; says whether the answering
    /// replica had no more.
    async fn read(
        &self,
        shard: &Shard,
        request: &PageRequest,
    ) -> Result<(Vec<Stored>, bool), PageError> {
        let inner = &*self.inner;
        let subject = inner.names.message(&request.channel);
        let seq = request.after.seq + 1;
        let (count, bytes) = (request.max_messages, request.max_bytes);
        match direct::batch(inner, shard, &subject, seq, count, bytes).await {
            Ok(Batch { messages, pending }) => Ok((messages, pending == Some(0))),
            Err(ReadError::Api(error)) => Err(unanswered(error)),
            // Perhaps because of a message that the client library cannot
            // read; the leader gives it in a form that it can.
            Err(ReadError::Lost) => {
                inner.catchup.up().await;
                let mut messages = Vec::new();
                let mut next = seq;
                while messages.len() < request.max_messages.min(ONE_BY_ONE_MAX) {
                    let wanted = Wanted::NextOf(&subject, next);
                    let stored = direct::leader_get(inner, shard, wanted).await;
                    let Some(stored) = stored.map_err(unanswered)? else {
                        return Ok((messages, true));
                    };
                    next = stored.seq + 1;
                    messages.push(stored);
                }
                Ok((messages, false))
            }
        }
    }

    /// Cuts what was read to the request's bounds.
    fn assemble(&self, request: &PageRequest, stored: Vec<Stored>) -> Page {
        let mut page = Page::default();
        let mut bytes = 0;
        for stored in stored.into_iter().take(request.max_messages.max(1)) {
            bytes += stored.data.len();
            if bytes > request.max_bytes && !page.messages.is_empty() {
                break;
            }
            self.push(request, &mut page, stored);
        }
        page
    }

    fn push(&self, request: &PageRequest, page: &mut Page, stored: Stored) {
        let epoch = request.after.epoch;
        // Decoding fails only for subjects of no channel, and this one is.
        if let Some(mut message) = stored.decode(&self.inner.names, epoch) {
            message.prev = page.messages.last().map_or(0, Message::seq);
            page.messages.push(message);
        }
    }

    /// The answering replica had no more of the channel. That proves that
    /// there is none up to the head that was known before, unless the replica
    /// was behind: then the leader has the last word.
    async fn prove_end(
        &self,
        shard: &Shard,
        request: &PageRequest,
        before: &StreamState,
        page: &mut Page,
    ) -> Result<(), PageError> {
        if before.replicas > 1 {
            let subject = self.inner.names.message(&request.channel);
            let wanted = Wanted::NextOf(&subject, page.through + 1);
            let next = direct::leader_get(&self.inner, shard, wanted).await;
            if let Some(stored) = next.map_err(unanswered)? {
                // Taken along even if it exceeds the bytes by its own size:
                // a page must get on.
                page.through = stored.seq;
                self.push(request, page, stored);
                return Ok(());
            }
        }
        page.through = page.through.max(before.last);
        Ok(())
    }

    /// How many messages of a channel stand at or after `seq`, and the first
    /// one's sequence.
    async fn count_from(
        &self,
        shard: &Shard,
        subject: &str,
        seq: u64,
    ) -> Result<(usize, u64), PageError> {
        let answer = direct::batch(&self.inner, shard, subject, seq, 1, 1).await;
        let batch = answer.map_err(|error| unavailable(error.to_string()))?;
        let pending = batch
            .pending
            .ok_or_else(|| unavailable("an answer broke off"))?;
        let behind = usize::try_from(pending).unwrap_or(usize::MAX);
        Ok(match batch.messages.first() {
            None => (0, seq),
            Some(first) => (behind.saturating_add(1), first.seq),
        })
    }

    async fn find_before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> Result<Cursor, PageError> {
        let shard = self.shard(&channel);
        let subject = self.inner.names.message(&channel);
        let _permit = self
            .inner
            .catchup_permits
            .acquire()
            .await
            .map_err(|_closed| unavailable("shutting down"))?;
        let state = self.inner.fresh(shard).await.map_err(unanswered)?;
        if through.epoch != state.epoch {
            return Err(PageError::UnknownEpoch);
        }
        if count == 0 {
            return Ok(through);
        }
        let mut found = through;
        for _ in 0..SEARCHES_MAX {
            let (newer, _) = self.count_from(shard, &subject, through.seq + 1).await?;
            found = self
                .search(shard, &subject, &state, through, newer + count)
                .await?;
            let (now, _) = self.count_from(shard, &subject, through.seq + 1).await?;
            if now == newer {
                break;
            }
        }
        Ok(found)
    }

    /// The position from which exactly `wanted` messages follow, or all.
    async fn search(
        &self,
        shard: &Shard,
        subject: &str,
        state: &StreamState,
        through: Cursor,
        wanted: usize,
    ) -> Result<Cursor, PageError> {
        // At or after `low` there are more than wanted, at or after `high`
        // fewer.
        let (mut low, mut high) = (state.first, through.seq + 1);
        let (all, first) = self.count_from(shard, subject, low).await?;
        if all <= wanted {
            return Ok(state.earliest());
        }
        low = low.max(first);
        for _ in 0..PROBES_MAX {
            let middle = low + (high - low) / 2;
            if middle == low {
                break;
            }
            let (following, at) = self.count_from(shard, subject, middle).await?;
            match following.cmp(&wanted) {
                std::cmp::Ordering::Equal => return Ok(Cursor::new(state.epoch, at - 1)),
                std::cmp::Ordering::Greater => low = at.max(middle),
                std::cmp::Ordering::Less => high = middle,
            }
        }
        // Between two neighbours: `low` is one message more than wanted.
        Ok(Cursor::new(state.epoch, low))
    }
}

impl Log for StreamLog {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        Box::pin(self.read_page(request))
    }

    fn earliest(&self, channel: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        Box::pin(async move {
            let state = self.inner.fresh(self.shard(&channel)).await;
            Ok(state.map_err(unanswered)?.earliest())
        })
    }

    fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        Box::pin(self.find_before_last(channel, through, count))
    }
}

impl Stream for StreamLog {
    fn head(&self, shard: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        Box::pin(async move {
            let Some(shard) = self.inner.shards.get(usize::from(shard)) else {
                return Err(unavailable("there is no such shard"));
            };
            let state = self.inner.fresh(shard).await.map_err(unanswered)?;
            if !state.settled {
                // A position would be called ahead that is not.
                return Err(unavailable("the stream's leader is new, or cut off"));
            }
            Ok(state.head())
        })
    }
}

/// Whether the stream holds everything after a position.
fn check_reach(state: &StreamState, after: Cursor) -> Result<(), PageError> {
    if state.epoch != after.epoch {
        return Err(PageError::UnknownEpoch);
    }
    if after.seq + 1 < state.first {
        // Nobody can say of which channels the messages were that left.
        return Err(PageError::Expired {
            earliest: state.earliest(),
        });
    }
    Ok(())
}

fn unavailable(reason: impl Into<String>) -> PageError {
    PageError::Unavailable {
        retry_after: RETRY_AFTER,
        reason: reason.into(),
    }
}

fn unanswered(error: ApiError) -> PageError {
    unavailable(error.to_string())
}
