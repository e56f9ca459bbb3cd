//! The archiver's consumer, and what was read from it and not yet archived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Request, Subject};
use delivery::archive::{SourceBatch, SourceError, SourceMessage};
use protocol::{Cursor, Epoch};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{self, ApiError, ConsumerInfo, code};
use crate::connect::Inner;
use crate::direct::{self, Wanted};
use crate::pull::{Broken, Delivered, Heard, Pull};
use crate::shard::Shard;

use super::unanswered;

/// The durable consumer's name, the same on every stream.
pub(crate) const CONSUMER: &str = "archiver";

/// Most payload bytes of a batch.
const BATCH_MAX_BYTES: usize = 8 << 20;

/// How long the server waits for an acknowledgement before it delivers
/// again. We begin again by ourselves, so it only has to be longer than any
/// batch takes.
const ACK_WAIT: Duration = Duration::from_secs(600);

/// After this many replacements without a message, the next one is asked for
/// by itself: the client library drops the connection over headers that it
/// cannot read.
const FRUITLESS_MAX: u32 = 2;

/// What was read and not yet acknowledged.
struct Unarchived {
    seq: u64,
    /// `None` for a message that no channel has: it is not archived.
    message: Option<SourceMessage>,
    /// Where the consumer takes its acknowledgement; `None` for what was read
    /// past the consumer.
    reply: Option<Subject>,
}

struct Attached {
    pull: Pull,
    epoch: Epoch,
    /// How many more the stream holds behind what was read; at least 1 unless
    /// nothing had arrived behind it.
    pending: u64,
}

pub(super) struct Session {
    inner: Arc<Inner>,
    shard: u16,
    attached: Option<Attached>,
    /// Everything up to here is acknowledged; `None` until the consumer was
    /// asked.
    acknowledged: Option<Cursor>,
    unarchived: VecDeque<Unarchived>,
    fruitless: u32,
}

impl Session {
    pub(super) fn new(inner: Arc<Inner>, shard: u16) -> Self {
        Self {
            inner,
            shard,
            attached: None,
            acknowledged: None,
            unarchived: VecDeque::new(),
            fruitless: 0,
        }
    }

    /// Forgets what was read; the next call begins again after what is
    /// acknowledged.
    pub(super) fn detach(&mut self) {
        self.attached = None;
        self.unarchived.clear();
    }

    pub(super) async fn next_batch(
        &mut self,
        max_messages: usize,
        max_wait: Duration,
    ) -> Result<SourceBatch, SourceError> {
        let deadline = Instant::now() + max_wait;
        if self.is_outdated() {
            self.detach();
        }
        // A batch that was not acknowledged is given again.
        while self.skip_foreign().await?.is_empty() {
            self.attach().await?;
            if let Err(broken) = self.fill(max_messages.max(1), deadline).await {
                self.fruitless += 1;
                self.detach();
                return Err(SourceError {
                    reason: broken.to_string(),
                });
            }
            if self.unarchived.is_empty() {
                break;
            }
        }
        let messages: Vec<_> = self
            .unarchived
            .iter()
            .take(max_messages.max(1))
            .filter_map(|unarchived| unarchived.message.clone())
            .collect();
        let kept = self.unarchived.len().saturating_sub(max_messages.max(1));
        let behind = self.attached.as_ref();
        let pending = behind.map_or(1, |attached| attached.pending);
        Ok(SourceBatch {
            messages,
            pending: pending + kept as u64,
        })
    }

    /// Acknowledges what no channel has, where nothing else is left: there is
    /// nothing to archive of it, and the archiver would not hear of it.
    async fn skip_foreign(&mut self) -> Result<&VecDeque<Unarchived>, SourceError> {
        if self.unarchived.iter().all(|one| one.message.is_none())
            && let Some(last) = self.unarchived.back().map(|last| last.seq)
        {
            self.ack_through(last).await?;
        }
        Ok(&self.unarchived)
    }

    /// Whether what was read belongs to a stream that is another one now.
    fn is_outdated(&self) -> bool {
        let known = self.inner.shard(self.shard).known();
        let epochs = self.attached.as_ref().zip(known);
        epochs.is_some_and(|(attached, known)| attached.epoch != known.epoch)
    }

    /// Reads until a batch is full, or nothing more is there, or it is time.
    async fn fill(&mut self, max_messages: usize, deadline: Instant) -> Result<(), Broken> {
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        let names = &self.inner.names;
        let mut bytes = 0;
        loop {
            let heard = match attached.pull.ready() {
                Some(heard) => heard,
                // What there is is better archived now than in a larger batch.
                None if !self.unarchived.is_empty() => return Ok(()),
                None => match tokio::time::timeout_at(deadline, attached.pull.next()).await {
                    Ok(heard) => heard?,
                    Err(_elapsed) => return Ok(()),
                },
            };
            let Heard::Message(Delivered {
                stored,
                reply,
                times,
                pending,
            }) = heard
            else {
                continue;
            };
            let last = self.unarchived.back().map(|last| last.seq);
            let floor = last.or(self.acknowledged.map(|floor| floor.seq));
            if times > 1 || floor.is_some_and(|floor| stored.seq <= floor) {
                return Err(Broken::OutOfOrder);
            }
            attached.pending = pending;
            self.fruitless = 0;
            bytes += stored.data.len();
            self.unarchived.push_back(Unarchived {
                seq: stored.seq,
                message: stored.decode_with_scope(names, attached.epoch),
                reply: Some(reply),
            });
            if self.unarchived.len() >= max_messages || bytes >= BATCH_MAX_BYTES {
                // What was pending is of when the last message was sent. The
                // next ones may have arrived since.
                attached.pending = pending.max(1);
                return Ok(());
            }
        }
    }

    pub(super) async fn ack_through(&mut self, seq: u64) -> Result<(), SourceError> {
        let covered = self.unarchived.iter().take_while(|one| one.seq <= seq);
        let Some(last) = covered.last() else {
            // Nothing of it came from this consumer: it has to be told where
            // to go on.
            return match self.acknowledged {
                Some(acknowledged) if acknowledged.seq >= seq => Ok(()),
                Some(_) | None => self.rewind(seq).await,
            };
        };
        let last_seq = last.seq;
        match last.reply.clone() {
            Some(reply) => self.acknowledge(&reply).await?,
            // Read past the consumer: it goes on behind it.
            None => return self.rewind(last_seq).await,
        }
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.seq = last_seq;
        }
        while self.unarchived.front().is_some_and(|one| one.seq <= seq) {
            self.unarchived.pop_front();
        }
        Ok(())
    }

    /// Acknowledges a delivery and all before it, and waits until the server
    /// has taken note.
    async fn acknowledge(&self, reply: &Subject) -> Result<(), SourceError> {
        let client = &self.inner.tail.client;
        let timeout = self.inner.config.request_timeout();
        let ack = Request::new().payload("+ACK".into());
        api::request(client, reply.to_string(), ack, timeout)
            .await
            .map(drop)
            .map_err(unanswered)
    }

    pub(super) async fn rewind(&mut self, seq: u64) -> Result<(), SourceError> {
        self.detach();
        let shard = self.inner.shard(self.shard);
        let state = self.inner.fresh(shard).await.map_err(unanswered)?;
        // Before it is done: if this call is dropped between the old consumer
        // and the new one, the next call makes it from here.
        self.acknowledged = Some(Cursor::new(state.epoch, seq));
        self.recreate(seq).await.map_err(unanswered)
    }

    /// Makes sure that the consumer exists, delivers what follows what is
    /// acknowledged, and is listened to.
    async fn attach(&mut self) -> Result<(), SourceError> {
        if self.attached.is_some() {
            return Ok(());
        }
        let inner = self.inner.clone();
        let shard = inner.shard(self.shard);
        let before = inner.fresh(shard).await.map_err(unanswered)?;
        let floor = match self.info().await {
            Ok(info) => {
                let floor = info.ack_floor.stream_seq;
                // Deliveries that were never acknowledged would come again
                // only after the server's patience.
                if info.delivered.stream_seq > floor || info.num_waiting > 0 {
                    self.recreate(floor).await.map_err(unanswered)?;
                }
                floor
            }
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) => {
                // What was acknowledged counts only in the stream in which it
                // was.
                let known = self.acknowledged.filter(|at| at.epoch == before.epoch);
                let floor = known.map_or(0, |at| at.seq);
                self.recreate(floor).await.map_err(unanswered)?;
                floor
            }
            Err(error) => return Err(unanswered(error)),
        };
        self.acknowledged = Some(Cursor::new(before.epoch, floor));
        let heartbeat = inner.config.tail_heartbeat();
        let pull = Pull::new(&inner.tail, &shard.stream, CONSUMER, heartbeat).await;
        let pull = pull.map_err(|error| SourceError {
            reason: error.to_string(),
        })?;
        let after = inner.fresh(shard).await.map_err(unanswered)?;
        if after.epoch != before.epoch {
            return Err(SourceError {
                reason: "the stream has changed meanwhile".into(),
            });
        }
        self.attached = Some(Attached {
            pull,
            epoch: after.epoch,
            pending: 0,
        });
        if self.fruitless > FRUITLESS_MAX {
            self.read_past(shard, floor, after.epoch).await?;
        }
        Ok(())
    }

    /// Reads the next message without the consumer.
    async fn read_past(
        &mut self,
        shard: &Shard,
        floor: u64,
        epoch: Epoch,
    ) -> Result<(), SourceError> {
        let captured = self.inner.names.captured(self.shard);
        let wanted = Wanted::NextOf(&captured, floor + 1);
        let next = direct::leader_get(&self.inner, shard, wanted)
            .await
            .map_err(unanswered)?;
        if let Some(stored) = next {
            if let Some(attached) = &mut self.attached {
                // Nobody said what comes behind it.
                attached.pending = 1;
            }
            self.unarchived.push_back(Unarchived {
                seq: stored.seq,
                message: stored.decode_with_scope(&self.inner.names, epoch),
                reply: None,
            });
        }
        Ok(())
    }

    async fn info(&self) -> Result<ConsumerInfo, ApiError> {
        let stream = &self.inner.shard(self.shard).stream;
        self.call(format!("CONSUMER.INFO.{stream}.{CONSUMER}"), &Value::Null)
            .await
    }

    /// Replaces the consumer by one that delivers from after `floor`.
    async fn recreate(&self, floor: u64) -> Result<(), ApiError> {
        let stream = &self.inner.shard(self.shard).stream;
        let method = format!("CONSUMER.DELETE.{stream}.{CONSUMER}");
        match self.call::<Value>(method, &Value::Null).await {
            Ok(_) => {}
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
        let body = json!({
            "stream_name": stream,
            "action": "create",
            "config": {
                "durable_name": CONSUMER,
                "name": CONSUMER,
                "description": "Rejoin: moves messages into the archive",
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": floor + 1,
                "ack_policy": "all",
                "ack_wait": ACK_WAIT.as_nanos() as u64,
                "max_ack_pending": -1,
            },
        });
        let method = format!("CONSUMER.CREATE.{stream}.{CONSUMER}");
        self.call::<Value>(method, &body).await.map(drop)
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: String,
        body: &Value,
    ) -> Result<T, ApiError> {
        let client = &self.inner.catchup.client;
        api::call(client, method, body, self.inner.config.request_timeout()).await
    }
}
