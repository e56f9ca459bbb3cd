//! Group commit: what is published at the same time is stored as one atomic
//! batch (ADR-50) where storing one by one is slow.
//!
//! A single server that syncs every message stores some 3,000 a second,
//! however many are under way; a batch costs it one sync. But a batch has a
//! fixed price too, so the lane opens only when many publishes are under way
//! and the server is seen to be slow with them, and closes when few are left.
//!
//! A batch is stored whole or not at all, and whatever is doubtful about it
//! is resolved in one way: its messages are published one by one under the
//! same ids.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::api::{self, ApiError};
use crate::link::Link;
use crate::monitor::AbortOnDrop;
use crate::stats::Counters;

/// Most messages of a batch: the server's limit.
const BATCH_MAX: usize = 1_000;

/// Most payload bytes of a batch: it is written in one go.
const BATCH_MAX_BYTES: usize = 1 << 20;

/// Fewer are stored faster one by one: a batch costs about as much as twenty
/// single messages (measured on a disk with 0.3 ms per sync).
const BATCH_MIN: usize = 20;

/// How long fewer wait for company before they go one by one. The lane is
/// open only while the server has more than this to do already.
const GATHER: Duration = Duration::from_millis(2);

/// Publishes under way from which on a batch may pay.
const OPENS_AT: usize = 64;

/// And the server's time per message from which on it does, in microseconds.
/// A server that does not sync, or syncs in batches by itself, takes 12 to 25.
const OPENS_AT_MICROS: u32 = 100;

/// After a batch was refused for another reason than a duplicate, none is
/// tried for this long: the server or the stream may not know them.
const CLOSED_FOR: Duration = Duration::from_secs(60);

/// JetStream: a message of the batch was stored before.
const BATCH_HAS_DUPLICATE: u64 = 10201;

/// A message on its way into a batch.
struct Member {
    subject: String,
    headers: HeaderMap,
    data: Bytes,
    /// Told the sequence, or dropped when the message must be published by
    /// itself.
    stored: oneshot::Sender<u64>,
}

/// One shard's lane.
pub(crate) struct Lane {
    entrance: mpsc::Sender<Member>,
    /// Messages in the lane.
    members: Arc<AtomicUsize>,
    /// Publishes under way outside of it.
    singles: AtomicUsize,
    /// The server's time per message as seen from outside, in microseconds.
    micros: AtomicU32,
    _task: AbortOnDrop,
}

/// Counts something for as long as it lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lane {
    pub(crate) fn new(
        link: &Link,
        timeout: Duration,
        capacity: usize,
        counters: &Arc<Counters>,
    ) -> Self {
        let (entrance, queue) = mpsc::channel(capacity);
        let committer = Committer {
            link: link.clone(),
            timeout,
            counters: counters.clone(),
            closed_until: None,
        };
        Self {
            entrance,
            members: Arc::default(),
            singles: AtomicUsize::new(0),
            // Taken for slow until it is seen to be fast: a first burst that
            // went one by one would keep a slow server busy for seconds.
            micros: AtomicU32::new(OPENS_AT_MICROS),
            _task: AbortOnDrop::new(tokio::spawn(committer.run(queue))),
        }
    }

    /// Whether the next message should go this way. While messages are in the
    /// lane, others follow them, so that they are not overtaken.
    pub(super) fn is_open(&self) -> bool {
        self.members.load(Ordering::Relaxed) > 0
            || (self.singles.load(Ordering::Relaxed) >= OPENS_AT
                && self.micros.load(Ordering::Relaxed) >= OPENS_AT_MICROS)
    }

    /// Stores a message in a batch; `None` if it must be published by itself.
    pub(super) async fn store(
        &self,
        subject: &str,
        headers: &HeaderMap,
        data: &Bytes,
        deadline: Instant,
    ) -> Option<u64> {
        let _counted = Counted::new(&self.members);
        let (stored, answer) = oneshot::channel();
        let member = Member {
            subject: subject.to_owned(),
            headers: headers.clone(),
            data: data.clone(),
            stored,
        };
        // Full only if the committer is stuck, and then a batch does not help.
        self.entrance.try_send(member).ok()?;
        tokio::time::timeout_at(deadline, answer).await.ok()?.ok()
    }

    /// Counts a publish outside of the lane.
    pub(super) fn single(&self) -> Counted<'_> {
        Counted::new(&self.singles)
    }

    /// Notes how long such a publish took.
    pub(super) fn took(&self, latency: Duration) {
        let under_way = self.singles.load(Ordering::Relaxed);
        if under_way < OPENS_AT / 2 {
            // It shows the latency of the way and not the server's pace.
            return;
        }
        let sample = latency.as_micros() / under_way as u128;
        let sample = u32::try_from(sample).unwrap_or(u32::MAX / 16);
        // An average over the last sixteen or so; a lost update does no harm.
        let micros = self.micros.load(Ordering::Relaxed);
        let micros = (u64::from(micros) * 15 + u64::from(sample)) / 16;
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        self.micros.store(micros, Ordering::Relaxed);
    }
}

/// The task behind a lane. It ends with the lane; a batch that is under way
/// then is as indeterminate as any publish without an answer.
struct Committer {
    link: Link,
    timeout: Duration,
    counters: Arc<Counters>,
    closed_until: Option<Instant>,
}

impl Committer {
    async fn run(mut self, mut queue: mpsc::Receiver<Member>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Some(first) = queue.recv().await else {
                    return;
                };
                waiting.push_back(first);
            }
            gather(&mut queue, &mut waiting).await;
            let batch = take_batch(&mut waiting);
            let size = batch.len();
            let closed = self.closed_until.is_some_and(|end| Instant::now() < end);
            if size >= BATCH_MIN && !closed {
                // One at a time: what comes meanwhile makes the next one
                // larger, and so cheaper.
                let outcome = commit(&self.link, self.timeout, batch).await;
                self.finished(size, &outcome);
            }
            // Else its members are dropped and publish by themselves.
        }
    }

    fn finished(&mut self, size: usize, outcome: &Result<(), ApiError>) {
        match outcome {
            Ok(()) => {
                self.counters.batches.increment();
                self.counters.batched.add(size as u64);
            }
            Err(error @ ApiError::Server { .. }) if !error.is(BATCH_HAS_DUPLICATE) => {
                tracing::info!(%error, "batches are refused: publishing one by one for a while");
                self.closed_until = Some(Instant::now() + CLOSED_FOR);
            }
            Err(error) => tracing::debug!(%error, size, "a batch goes one by one"),
        }
    }
}

/// Takes in what has come, and waits a little where that is few.
async fn gather(queue: &mut mpsc::Receiver<Member>, waiting: &mut VecDeque<Member>) {
    let end = Instant::now() + GATHER;
    loop {
        while waiting.len() < BATCH_MAX
            && let Ok(member) = queue.try_recv()
        {
            waiting.push_back(member);
        }
        if waiting.len() >= BATCH_MIN {
            return;
        }
        match tokio::time::timeout_at(end, queue.recv()).await {
            Ok(Some(member)) => waiting.push_back(member),
            Ok(None) | Err(_) => return,
        }
    }
}

/// The first messages that wait, as many as a batch holds.
fn take_batch(waiting: &mut VecDeque<Member>) -> Vec<Member> {
    let mut bytes = 0;
    let count = waiting
        .iter()
        .take(BATCH_MAX)
        .take_while(|member| {
            bytes += member.data.len();
            bytes <= BATCH_MAX_BYTES
        })
        .count();
    // One that is larger than a batch goes alone, and so not in a batch.
    waiting.drain(..count.max(1)).collect()
}

#[derive(Deserialize)]
struct CommitAck {
    seq: u64,
    #[serde(default)]
    count: u64,
}

/// Sends one batch and tells its members where they are. Members that are not
/// told publish by themselves.
async fn commit(link: &Link, timeout: Duration, batch: Vec<Member>) -> Result<(), ApiError> {
    let size = batch.len() as u64;
    let id = format!("{:016x}", rand::random::<u64>());
    let life = link.life();
    let mut stored = Vec::with_capacity(batch.len());
    let mut answer = None;
    for (number, member) in (1..).zip(batch) {
        let mut headers = member.headers;
        headers.insert("Nats-Batch-Id", &*id);
        headers.insert("Nats-Batch-Sequence", number.to_string());
        stored.push(member.stored);
        if number < size {
            let sent = link
                .client
                .publish_with_headers(member.subject, headers, member.data);
            match tokio::time::timeout(timeout, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(ApiError::NotSent(error.to_string())),
                Err(_elapsed) => return Err(ApiError::Timeout(timeout)),
            }
        } else {
            headers.insert("Nats-Batch-Commit", "1");
            let request = Request::new().headers(headers).payload(member.data);
            answer = Some(tokio::select! {
                biased;
                answer = api::request(&link.client, member.subject, request, timeout) => answer?,
                () = link.lost_since(life) => return Err(ApiError::Timeout(timeout)),
            });
        }
    }
    let answer = answer.ok_or_else(|| ApiError::Malformed("an empty batch".into()))?;
    let ack: CommitAck = api::decode(&answer.payload)?;
    if ack.count != size || ack.seq < size {
        return Err(ApiError::Malformed(format!(
            "{} of {size} messages of a batch were stored",
            ack.count
        )));
    }
    // A batch is stored without anything in between; the answer names its
    // last sequence.
    for (seq, stored) in (ack.seq + 1 - size..).zip(stored) {
        // A publisher that has gone away does not want to know.
        let _ = stored.send(seq);
    }
    Ok(())
}
