//! The stream as the archiver reads it: a durable consumer that operators see
//! as `archiver`, whose acknowledged position survives everybody.

pub(crate) mod session;

use std::sync::Arc;
use std::time::Duration;

use delivery::archive::{ArchiveSource, SourceBatch, SourceError, SourceState, Told};
use futures_util::future::BoxFuture;
use protocol::Epoch;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::api::{self, ApiError, Success};
use crate::connect::Inner;
use crate::direct::{self, Wanted};
use crate::provision;
use crate::shard::{self, BEGAN_KEY, EPOCH_KEY, Shard, StreamState};

use session::Session;

/// One shard's stream, for the one active archiver. Calls may be dropped and
/// repeated at any point; they wait for one another.
pub struct StreamArchiveSource {
    inner: Arc<Inner>,
    shard: u16,
    session: Mutex<Session>,
}

impl StreamArchiveSource {
    pub(crate) fn new(inner: Arc<Inner>, shard: u16) -> Self {
        let session = Mutex::new(Session::new(inner.clone(), shard));
        Self {
            inner,
            shard,
            session,
        }
    }

    fn stream(&self) -> &Shard {
        self.inner.shard(self.shard)
    }

    async fn fresh(&self) -> Result<StreamState, SourceError> {
        self.inner.fresh(self.stream()).await.map_err(unanswered)
    }

    async fn new_epoch(&self) -> Result<Epoch, SourceError> {
        let timeout = self.inner.config.request_timeout();
        let shard = self.stream();
        let info = shard::stream_info(&self.inner.catchup.client, &shard.stream, timeout)
            .await
            .map_err(unanswered)?;
        let mut config = info.config;
        config["metadata"][EPOCH_KEY] = shard::random_epoch_value().into();
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        config["metadata"][BEGAN_KEY] = now.to_string().into();
        // The session ends with the epoch: what it has read has positions of
        // the old one.
        let mut session = self.session.lock().await;
        session.detach();
        provision::update(&self.inner, shard, &config)
            .await
            .map_err(unanswered)?;
        shard.suspect();
        Ok(self.fresh().await?.epoch)
    }

    async fn purge_through(&self, seq: u64) -> Result<(), SourceError> {
        let state = self.fresh().await?;
        if seq < state.first {
            return Ok(());
        }
        if seq > state.last {
            // The server would take it for the new last sequence.
            return Err(SourceError {
                reason: format!("cannot trim to {seq}: the stream ends at {}", state.last),
            });
        }
        let method = format!("STREAM.PURGE.{}", self.stream().stream);
        let body = json!({ "seq": seq + 1 });
        let client = &self.inner.catchup.client;
        let timeout = self.inner.config.request_timeout();
        let purged: Success = api::call(client, method, &body, timeout)
            .await
            .map_err(unanswered)?;
        if !purged.success {
            return Err(SourceError {
                reason: "the stream refused to be trimmed".into(),
            });
        }
        Ok(())
    }

    async fn newest_before(&self, time_ms: i64) -> Result<Option<u64>, SourceError> {
        let state = self.fresh().await?;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000);
        let time = time.map_err(|error| SourceError {
            reason: error.to_string(),
        })?;
        let captured = self.inner.names.captured(self.shard);
        let wanted = Wanted::Since(&captured, time);
        let since = direct::leader_get(&self.inner, self.stream(), wanted)
            .await
            .map_err(unanswered)?;
        let before = since.map_or(state.last, |message| message.seq - 1);
        // Stored in between, it may be newer than the state.
        let before = before.min(state.last);
        Ok((before >= state.first).then_some(before))
    }
}

impl ArchiveSource for StreamArchiveSource {
    fn state(&self) -> BoxFuture<'_, Result<SourceState, SourceError>> {
        Box::pin(async move {
            let state = self.fresh().await?;
            if !state.settled {
                // Else a leader that is behind looks like an older copy.
                return Err(SourceError {
                    reason: "the stream's leader is new, or cut off".into(),
                });
            }
            Ok(SourceState {
                epoch: state.epoch,
                first: state.first,
                last: state.last,
                bytes: state.bytes,
                max_bytes: state.max_bytes,
            })
        })
    }

    fn time_of(&self, seq: u64) -> BoxFuture<'_, Result<Option<i64>, SourceError>> {
        Box::pin(async move {
            if seq == 0 {
                return Ok(None);
            }
            let stored = direct::leader_get(&self.inner, self.stream(), Wanted::At(seq))
                .await
                .map_err(unanswered)?;
            // A message that no channel has is never archived, so for the
            // archive it is not there.
            let held = stored.and_then(|stored| {
                let time_ms = stored.time_ms;
                let channel = self.inner.names.channel(&stored.subject);
                channel.map(|_| time_ms)
            });
            Ok(held)
        })
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<Epoch, SourceError>> {
        Box::pin(self.new_epoch())
    }

    fn next_batch(
        &self,
        max_messages: usize,
        max_wait: Duration,
    ) -> BoxFuture<'_, Result<SourceBatch, SourceError>> {
        Box::pin(async move {
            let mut session = self.session.lock().await;
            session.next_batch(max_messages, max_wait).await
        })
    }

    fn ack_through(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(async move { self.session.lock().await.ack_through(seq).await })
    }

    fn rewind(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(async move { self.session.lock().await.rewind(seq).await })
    }

    fn trim_through(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.purge_through(seq))
    }

    fn last_before(&self, time_ms: i64) -> BoxFuture<'_, Result<Option<u64>, SourceError>> {
        Box::pin(self.newest_before(time_ms))
    }

    fn told(&self, ended: Epoch, next: Epoch, seen: Instant) -> Told {
        let witnesses = self.inner.witnesses.lock();
        witnesses.told(self.shard, ended, next, seen)
    }
}

fn unanswered(error: ApiError) -> SourceError {
    SourceError {
        reason: error.to_string(),
    }
}
