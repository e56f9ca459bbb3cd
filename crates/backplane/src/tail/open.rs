//! Making a tail's consumer, and deciding where it starts.

use std::sync::Arc;
use std::time::Duration;

use delivery::Message;
use protocol::Cursor;
use rand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::api::{self, ApiError, ConsumerInfo, code};
use crate::connect::Inner;
use crate::direct::{self, Wanted};
use crate::provision::{Provisioned, provision_shard};
use crate::pull::{Broken, Pull};
use crate::shard::{Shard, StreamState};

use super::{Session, TailStart};

/// How long the server keeps a consumer that nobody reads: long enough for a
/// hiccup, short enough that a crashed edge leaves nothing behind.
const INACTIVE: Duration = Duration::from_secs(10);

/// Longest pause between attempts, jittered by half.
const PAUSE: Duration = Duration::from_millis(200);

/// After this many replacements without a message, the next message is asked
/// for one by one: the client library drops the connection over a message
/// whose headers it cannot read, and would do so for ever.
const FRUITLESS_MAX: u32 = 2;

/// A consumer to be made.
pub(super) struct Opening {
    pub(super) inner: Arc<Inner>,
    pub(super) shard: u16,
    pub(super) start: TailStart,
    /// Everything up to here has been reported.
    pub(super) position: Option<Cursor>,
    /// The newest message reported: its sequence and time.
    pub(super) witness: Option<(u64, i64)>,
    pub(super) fruitless: u32,
    /// The consumer whose place it takes.
    pub(super) replaced: Option<String>,
}

/// A consumer that was made.
pub(super) struct Opened {
    pub(super) session: Box<Session>,
    /// Messages follow after this position,
    pub(super) after: Cursor,
    /// and this was the stream's last sequence.
    pub(super) last: u64,
    /// What was read without the consumer: up to the session's position, a
    /// message or none.
    pub(super) first: Option<Option<Message>>,
}

/// No consumer was made.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct OpenError {
    why: String,
    /// A consumer that may exist all the same.
    pub(super) abandoned: Option<String>,
}

impl From<ApiError> for OpenError {
    fn from(error: ApiError) -> Self {
        Self::from(error.to_string())
    }
}

impl From<Broken> for OpenError {
    fn from(error: Broken) -> Self {
        Self::from(error.to_string())
    }
}

impl From<String> for OpenError {
    fn from(why: String) -> Self {
        Self {
            why,
            abandoned: None,
        }
    }
}

impl Opening {
    pub(super) async fn open(self) -> Result<Opened, OpenError> {
        if self.fruitless > 1 {
            let pause = PAUSE.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(pause).await;
        }
        let inner = self.inner.clone();
        inner.tail.up().await;
        inner.catchup.up().await;
        let shard = inner.shard(self.shard);
        let disturbances = shard.disturbances();
        let states = shard.watch();
        let state = self.state(shard).await?;
        let after = self.after(shard, &state).await?;
        let (read_to, first) = self.read_one(shard, &state, after).await?;

        let consumer = self.name();
        let heartbeat = inner.config.tail_heartbeat();
        let pull = Pull::new(&inner.tail, &shard.stream, &consumer, heartbeat).await?;
        let made = self.create(shard, &consumer, read_to + 1).await;
        let abandoned = |error: ApiError| OpenError {
            why: error.to_string(),
            abandoned: Some(consumer.clone()),
        };
        made.map_err(abandoned)?;
        // Asked again, to know that the consumer reads the stream that was
        // looked at, and that nothing was trimmed from under its start.
        let confirmed = inner.fresh(shard).await.map_err(abandoned)?;
        if confirmed.epoch != state.epoch || confirmed.first > after.seq + 1 {
            return Err(OpenError {
                why: "the stream has changed meanwhile".into(),
                abandoned: Some(consumer),
            });
        }
        let session = Session {
            pull,
            consumer,
            epoch: state.epoch,
            through: read_to,
            states,
            disturbances,
            held: Vec::new(),
            check: None,
            overdue: false,
        };
        Ok(Opened {
            session: Box::new(session),
            after,
            last: state.last,
            first,
        })
    }

    /// The stream's state; makes the stream first if it is gone.
    async fn state(&self, shard: &Shard) -> Result<StreamState, OpenError> {
        match self.inner.fresh(shard).await {
            Ok(state) => Ok(state),
            Err(error) if error.is(code::STREAM_NOT_FOUND) => {
                let mut report = Provisioned::default();
                let made = provision_shard(&self.inner, shard, &mut report).await;
                made.map_err(|error| OpenError::from(error.to_string()))?;
                Ok(self.inner.fresh(shard).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After which position to go on.
    async fn after(&self, shard: &Shard, state: &StreamState) -> Result<Cursor, OpenError> {
        match self.position {
            // The same stream, no shorter than what was read of it.
            Some(position)
                if position.epoch == state.epoch
                    && position.seq <= state.last
                    && self.is_same_copy(shard).await? =>
            {
                let earliest = state.earliest();
                Ok(Cursor::new(state.epoch, position.seq.max(earliest.seq)))
            }
            // Another stream, or an older copy of it: what was reported says
            // nothing about what it holds.
            Some(_) | None => {
                let seq = self.fill(shard, state).await?;
                Ok(Cursor::new(state.epoch, seq))
            }
        }
    }

    /// Whether the newest message that was reported is still what its
    /// sequence names. A stream that was restored from an older copy keeps
    /// its epoch until the archiver notices, and may have grown past it.
    async fn is_same_copy(&self, shard: &Shard) -> Result<bool, OpenError> {
        let Some((seq, time_ms)) = self.witness else {
            return Ok(true);
        };
        let stored = direct::leader_get(&self.inner, shard, Wanted::At(seq)).await?;
        // Trimmed away it says nothing.
        Ok(stored.is_none_or(|message| message.time_ms == time_ms))
    }

    /// How far back to start.
    async fn fill(&self, shard: &Shard, state: &StreamState) -> Result<u64, OpenError> {
        let (budget_bytes, max_age) = match self.start {
            TailStart::Head => return Ok(state.last),
            TailStart::Fill {
                budget_bytes,
                max_age,
            } => (budget_bytes, max_age),
        };
        let mut seq = fill_by_bytes(state, budget_bytes);
        if let Some(age) = max_age {
            let since = OffsetDateTime::now_utc() - age;
            let captured = self.inner.names.captured(shard.number);
            let wanted = Wanted::Since(&captured, since);
            let oldest = direct::leader_get(&self.inner, shard, wanted).await?;
            let before = oldest.map_or(state.last, |message| message.seq.saturating_sub(1));
            // Stored in between, it may be newer than the state.
            seq = seq.max(before.min(state.last));
        }
        Ok(seq)
    }

    /// Reads the next message without a consumer where consumers have failed.
    async fn read_one(
        &self,
        shard: &Shard,
        state: &StreamState,
        after: Cursor,
    ) -> Result<(u64, Option<Option<Message>>), OpenError> {
        if self.fruitless <= FRUITLESS_MAX || after.seq >= state.last {
            return Ok((after.seq, None));
        }
        let captured = self.inner.names.captured(shard.number);
        let wanted = Wanted::NextOf(&captured, after.seq + 1);
        let next = direct::leader_get(&self.inner, shard, wanted).await?;
        Ok(match next {
            None => (after.seq, None),
            Some(stored) => {
                let seq = stored.seq;
                (seq, Some(stored.decode(&self.inner.names, state.epoch)))
            }
        })
    }

    fn name(&self) -> String {
        let unique: u32 = rand::random();
        format!("tail-{}-{unique:08x}", self.inner.config.edge)
    }

    async fn create(
        &self,
        shard: &Shard,
        consumer: &str,
        start_seq: u64,
    ) -> Result<ConsumerInfo, ApiError> {
        let client = &self.inner.tail.client;
        let timeout = self.inner.config.request_timeout();
        if let Some(replaced) = &self.replaced {
            // Best effort: it ends by itself when nobody reads it.
            let method = format!("$JS.API.CONSUMER.DELETE.{}.{replaced}", shard.stream);
            let deletion = client.publish(method, bytes::Bytes::new());
            let _ = tokio::time::timeout(timeout, deletion).await;
        }
        let body: Value = json!({
            "stream_name": shard.stream,
            "action": "create",
            "config": {
                "name": consumer,
                "description": "Rejoin: the tail of an edge",
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": start_seq,
                "ack_policy": "none",
                "max_deliver": 1,
                "mem_storage": true,
                "num_replicas": 1,
                "inactive_threshold": INACTIVE.as_nanos() as u64,
            },
        });
        let method = format!("CONSUMER.CREATE.{}.{consumer}", shard.stream);
        api::call(client, method, &body, timeout).await
    }
}

/// The position after which about `budget_bytes` of the stream follow.
fn fill_by_bytes(state: &StreamState, budget_bytes: u64) -> u64 {
    let oldest = state.first.saturating_sub(1);
    if state.messages == 0 || state.bytes <= budget_bytes {
        return oldest;
    }
    // Sequences may be missing inside the stream; in u128 because bytes times
    // sequences does not fit 64 bits.
    let span = u128::from(state.last - oldest);
    let wanted = span * u128::from(budget_bytes) / u128::from(state.bytes);
    state
        .last
        .saturating_sub(u64::try_from(wanted).unwrap_or(u64::MAX))
        .max(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Epoch;

    #[test]
    fn a_fill_is_in_proportion_and_within_the_stream() {
        let mut state = StreamState {
            epoch: Epoch(1),
            first: 101,
            last: 1_100,
            messages: 1_000,
            bytes: 100_000,
            max_bytes: 0,
            replicas: 1,
            began_ms: 0,
            settled: true,
        };
        assert_eq!(fill_by_bytes(&state, 10_000), 1_000);
        assert_eq!(fill_by_bytes(&state, u64::MAX), 100);
        assert_eq!(fill_by_bytes(&state, 0), 1_100);
        state.messages = 0;
        state.first = 1_101;
        assert_eq!(fill_by_bytes(&state, 10_000), 1_100);
    }
}
