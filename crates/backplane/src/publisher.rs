//! Storing a message: published with its id until it is acknowledged.

pub(crate) mod lane;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Request;
use delivery::publish::{Publication, Publish, PublishError, Published};
use futures_util::future::BoxFuture;
use protocol::{Cursor, Epoch};
use rand::Rng;
use serde::Deserialize;
use tokio::time::Instant;

use crate::api::{self, ApiError, code};
use crate::connect::Inner;
use crate::message;
use crate::shard::{Shard, StreamState};

/// What a client is told to wait after a publish that was not acknowledged.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The same when the stream is full: the archiver has to catch up first.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(5);

/// Pause before a publish is sent again after a refusal that passes (no
/// leader, no stream yet), jittered by half.
const PAUSE: Duration = Duration::from_millis(100);

/// Stores messages; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

/// The acknowledgement of JetStream.
#[derive(Deserialize)]
struct Ack {
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

impl Publisher {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    async fn store(&self, publication: Publication) -> Result<Published, PublishError> {
        let inner = &*self.inner;
        let refused = |reason: String| PublishError::Refused { reason };
        let headers = message::headers(&publication).map_err(refused)?;
        let subject = inner.names.message(&publication.channel);
        let shard = inner.shard(publication.channel.shard(inner.config.shards));
        let deadline = Instant::now() + Duration::from_millis(inner.config.publish_timeout_ms);
        let _permit = tokio::time::timeout_at(deadline, inner.publish_permits.acquire())
            .await
            .map_err(|_elapsed| unavailable("too many publishes are waiting"))?
            .map_err(|_closed| unavailable("shutting down"))?;
        let lane = &inner.lanes[usize::from(shard.number)];
        if inner.config.group_commit && lane.is_open() {
            let sent = Sent::now(shard);
            let stored = lane
                .store(&subject, &headers, &publication.data, deadline)
                .await;
            if let Some(seq) = stored {
                let ack = Ack {
                    seq,
                    duplicate: false,
                };
                return self.position(shard, &sent, &ack, deadline).await;
            }
        }
        let _counted = lane.single();
        let mut first = true;
        loop {
            if !std::mem::take(&mut first) {
                inner.counters.publish_retries.increment();
            }
            let request = Request::new()
                .headers(headers.clone())
                .payload(publication.data.clone());
            let begin = Instant::now();
            let sent = Sent::now(shard);
            let answer = self.attempt(&subject, request, deadline).await;
            // Also when none came in time: that too shows the server's pace.
            lane.took(begin.elapsed());
            let failure = match answer {
                Ok(ack) => return self.position(shard, &sent, &ack, deadline).await,
                Err(error) => verdict(error)?,
            };
            let pause = match failure {
                Passing::Lost => Duration::ZERO,
                Passing::Refused(_) => PAUSE.mul_f64(rand::rng().random_range(0.5..1.5)),
            };
            if Instant::now() + pause >= deadline {
                return Err(unavailable(match failure {
                    Passing::Lost => "no acknowledgement in time".into(),
                    Passing::Refused(reason) => reason,
                }));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt, ended early when the connection is lost: the answer
    /// would never come.
    async fn attempt(
        &self,
        subject: &str,
        request: Request,
        deadline: Instant,
    ) -> Result<Ack, ApiError> {
        let link = &self.inner.publish;
        let timeout = self.inner.config.request_timeout();
        // Not sent while the connection is down: it would be queued, and
        // queued again by every retry.
        if !link.is_up() && tokio::time::timeout_at(deadline, link.up()).await.is_err() {
            return Err(ApiError::Timeout(timeout));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = timeout.min(left);
        let life = link.life();
        let answer = tokio::select! {
            biased;
            answer = api::request(&link.client, subject.to_owned(), request, timeout) => answer?,
            () = link.lost_since(life) => return Err(ApiError::Timeout(timeout)),
        };
        api::decode(&answer.payload)
    }

    /// The position that an acknowledgement stands for. It names only a
    /// sequence: the epoch is the one we know, unless something says that it
    /// may have changed, when the leader is asked first.
    async fn position(
        &self,
        shard: &Shard,
        sent: &Sent,
        ack: &Ack,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        let went_back = !ack.duplicate && ack.seq <= sent.floor;
        if went_back {
            tracing::warn!(
                stream = shard.stream,
                ack.seq,
                seen = sent.floor,
                "a new message got a sequence that was taken: the stream is another one"
            );
            shard.suspect();
        }
        let known = match shard.known().filter(|_| !shard.is_suspect()) {
            Some(state) => state,
            None => self.asked(shard, deadline).await?,
        };
        let epoch = match sent.epoch {
            Some(before) if before != known.epoch && !went_back => {
                // The stream was replaced meanwhile. Asked again, as the
                // answer has to be younger than the acknowledgement.
                let now = self.asked(shard, deadline).await?;
                took_it(before, now.epoch, now.last, ack.seq).ok_or_else(|| {
                    unavailable("the stream was replaced while the message was under way")
                })?
            }
            Some(_) | None => known.epoch,
        };
        if !ack.duplicate && epoch == known.epoch {
            shard.saw(ack.seq);
        }
        let cursor = Cursor::new(epoch, ack.seq);
        if !shard.tell(cursor) {
            // The others were told that this life of the stream ended before.
            return Err(unavailable(
                "the stream was replaced while the message was under way",
            ));
        }
        Ok(Published {
            cursor,
            duplicate: ack.duplicate,
        })
    }

    /// What the stream's leader says now; tried until the deadline.
    async fn asked(&self, shard: &Shard, deadline: Instant) -> Result<StreamState, PublishError> {
        loop {
            match self.inner.fresh(shard).await {
                Ok(state) => return Ok(state),
                // Stored, but nobody can say where: the retry will be told.
                Err(error) if Instant::now() + PAUSE >= deadline => {
                    return Err(unavailable(error.to_string()));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// What was known of the stream when a message was sent to it.
struct Sent {
    /// `None` where that was in doubt.
    epoch: Option<Epoch>,
    /// A new message gets a sequence above every one seen by then.
    floor: u64,
}

impl Sent {
    fn now(shard: &Shard) -> Self {
        // In this order: between the two the epoch may only become newer,
        // and then a sequence counts as taken that is not, which is asked about.
        let floor = shard.highest();
        let known = shard.known().filter(|_| !shard.is_suspect());
        Self {
            epoch: known.map(|state| state.epoch),
            floor,
        }
    }
}

/// Which life of a stream took a message that was acknowledged at `seq`, when
/// it was sent in one and the stream ends at `last` of another by now. The new
/// one cannot have acknowledged what it does not reach; what both may have
/// is in doubt.
fn took_it(before: Epoch, now: Epoch, last: u64, seq: u64) -> Option<Epoch> {
    match before == now {
        true => Some(now),
        false => (seq > last).then_some(before),
    }
}

/// Why an attempt failed where another may succeed.
enum Passing {
    /// No answer came.
    Lost,
    /// The server said no for now.
    Refused(String),
}

/// Whether an error passes by itself within a publish's time.
fn verdict(error: ApiError) -> Result<Passing, PublishError> {
    match error {
        ApiError::Timeout(_) => Ok(Passing::Lost),
        ApiError::NoResponders | ApiError::Behind | ApiError::Malformed(_) => {
            Ok(Passing::Refused(error.to_string()))
        }
        ApiError::TooLarge(reason) => Err(PublishError::Refused { reason }),
        ApiError::NotSent(reason) => Err(unavailable(reason)),
        ApiError::Server { code, description } => match code {
            code::MESSAGE_TOO_LARGE => Err(PublishError::Refused {
                reason: description,
            }),
            code::STORE_FAILED if description.contains("maximum") => Err(FULL),
            code::STORAGE_RESOURCES_EXCEEDED
            | code::ACCOUNT_RESOURCES_EXCEEDED
            | code::INSUFFICIENT_RESOURCES => Err(FULL),
            _ => Ok(Passing::Refused(format!("{description} ({code})"))),
        },
    }
}

const FULL: PublishError = PublishError::Full {
    retry_after: RETRY_AFTER_FULL,
};

fn unavailable(reason: impl Into<String>) -> PublishError {
    PublishError::Unavailable {
        retry_after: RETRY_AFTER,
        reason: reason.into(),
    }
}

impl Publish for Publisher {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(async move {
            let counters = &self.inner.counters;
            counters.publishes.increment();
            let begin = Instant::now();
            let result = self.store(publication).await;
            match &result {
                Ok(published) => {
                    counters.acks.increment();
                    let took_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.inner.publish_us.observe(took_us);
                    if published.duplicate {
                        counters.duplicates.increment();
                    }
                }
                Err(_) => counters.publish_errors.increment(),
            }
            result
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_of_the_stream_before_is_not_taken_for_one_of_the_next() {
        let (before, now) = (Epoch(1), Epoch(2));
        // The next stream holds 41 messages: number 4220 is not one of them.
        assert_eq!(took_it(before, now, 41, 4_220), Some(before));
        assert_eq!(took_it(before, now, 41, 41), None);
        assert_eq!(took_it(before, now, 0, 1), Some(before));
        assert_eq!(took_it(now, now, 41, 41), Some(now));
    }
}
