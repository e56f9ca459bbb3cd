//! A stream in memory with the semantics of the real one, for what the real
//! one cannot be made to do at will: fail at a chosen call, be cut back, be
//! restored from a copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use delivery::archive::{
    ArchiveSource, SourceBatch, SourceError, SourceMessage, SourceState, Told,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use protocol::{Epoch, MessageId};
use tokio::time::Instant;

use crate::world::message;

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStream {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    epoch: u64,
    epochs_begun: u64,
    first: u64,
    last: u64,
    messages: BTreeMap<u64, SourceMessage>,
    /// The durable consumer: everything up to here was delivered.
    delivered: u64,
    pub(crate) trimmed: u64,
    /// Fail each call with this probability, in percent.
    fail_percent: u32,
    /// What edges say that they told others of the life that has ended.
    told: Option<Told>,
    down: bool,
    random: u64,
}

impl MemoryStream {
    pub(crate) fn new(epoch: Epoch) -> Self {
        let stream = Self::default();
        {
            let mut state = stream.state.lock();
            state.epoch = epoch.0;
            state.first = 1;
            state.told = Some(Told::Through(0));
            state.random = 0x9e37_79b9_7f4a_7c15;
        }
        stream
    }

    pub(crate) fn publish(&self, channel: &str, time_ms: i64) -> SourceMessage {
        let mut state = self.state.lock();
        state.last += 1;
        let message = message(Epoch(state.epoch), state.last, channel, time_ms);
        let seq = state.last;
        state.messages.insert(seq, message.clone());
        message
    }

    pub(crate) fn publish_as(&self, channel: &str, time_ms: i64, id: MessageId) -> SourceMessage {
        self.publish(channel, time_ms);
        let mut state = self.state.lock();
        let seq = state.last;
        let message = state.messages.entry(seq);
        let message = message.and_modify(|message| message.message.id = Some(id));
        message
            .or_insert_with(|| unreachable!("it was published"))
            .clone()
    }

    pub(crate) fn snapshot(&self) -> State {
        self.state.lock().clone()
    }

    /// The data directory is put back to a copy.
    pub(crate) fn restore(&self, copy: State) {
        let begun = self.state.lock().epochs_begun;
        let mut state = self.state.lock();
        *state = copy;
        state.epochs_begun = begun;
    }

    /// Deleted and created anew.
    pub(crate) fn recreate(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        *state = State {
            epoch: epoch.0,
            first: 1,
            random: state.random,
            told: state.told,
            ..State::default()
        };
    }

    pub(crate) fn purge(&self) {
        let mut state = self.state.lock();
        state.messages.clear();
        state.first = state.last + 1;
    }

    pub(crate) fn delete(&self, seq: u64) {
        let mut state = self.state.lock();
        state.messages.remove(&seq);
        if state.first == seq {
            state.first = state
                .messages
                .keys()
                .next()
                .copied()
                .unwrap_or(state.last + 1);
        }
    }

    /// Another consumer takes what comes next, and never acknowledges it.
    pub(crate) fn steal(&self, count: u64) {
        let mut state = self.state.lock();
        state.delivered = (state.delivered + count).min(state.last);
    }

    pub(crate) fn set_told(&self, told: Told) {
        self.state.lock().told = Some(told);
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    pub(crate) fn set_fail_percent(&self, percent: u32) {
        self.state.lock().fail_percent = percent;
    }

    pub(crate) fn last(&self) -> u64 {
        self.state.lock().last
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.state.lock().epoch)
    }

    pub(crate) fn held(&self) -> Vec<u64> {
        self.state.lock().messages.keys().copied().collect()
    }

    fn call<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, SourceError> {
        let mut state = self.state.lock();
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        let fails = state.down || state.random % 100 < u64::from(state.fail_percent);
        if fails {
            return Err(SourceError {
                reason: String::from("injected"),
            });
        }
        Ok(act(&mut state))
    }
}

impl ArchiveSource for MemoryStream {
    fn state(&self) -> BoxFuture<'_, Result<SourceState, SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|state| SourceState {
                epoch: Epoch(state.epoch),
                first: state.first,
                last: state.last,
                bytes: state.messages.len() as u64 * 100,
                max_bytes: 100_000,
            })
        }
        .boxed()
    }

    fn time_of(&self, seq: u64) -> BoxFuture<'_, Result<Option<i64>, SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|state| state.messages.get(&seq).map(|m| m.message.time_ms))
        }
        .boxed()
    }

    fn begin_epoch(&self) -> BoxFuture<'_, Result<Epoch, SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|state| {
                state.epochs_begun += 1;
                state.epoch = 0xbe90_0000_0000_0000 + state.epochs_begun;
                for message in state.messages.values_mut() {
                    message.message.position.epoch = Epoch(state.epoch);
                }
                Epoch(state.epoch)
            })
        }
        .boxed()
    }

    fn next_batch(
        &self,
        max_messages: usize,
        max_wait: Duration,
    ) -> BoxFuture<'_, Result<SourceBatch, SourceError>> {
        async move {
            let until = tokio::time::Instant::now() + max_wait;
            loop {
                let batch = self.call(|state| {
                    let messages: Vec<SourceMessage> = state
                        .messages
                        .range(state.delivered + 1..)
                        .take(max_messages)
                        .map(|(_, message)| message.clone())
                        .collect();
                    if let Some(last) = messages.last() {
                        state.delivered = last.message.seq();
                    }
                    let pending = state.messages.range(state.delivered + 1..).count() as u64;
                    SourceBatch { messages, pending }
                })?;
                if !batch.messages.is_empty() || tokio::time::Instant::now() >= until {
                    return Ok(batch);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        .boxed()
    }

    fn ack_through(&self, _seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|_| ())
        }
        .boxed()
    }

    fn rewind(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|state| state.delivered = seq)
        }
        .boxed()
    }

    fn trim_through(&self, seq: u64) -> BoxFuture<'_, Result<(), SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|state| {
                state.messages = state.messages.split_off(&(seq + 1));
                state.first = state.first.max(seq + 1);
                state.last = state.last.max(seq);
                state.trimmed = state.trimmed.max(seq);
            })
        }
        .boxed()
    }

    fn last_before(&self, time_ms: i64) -> BoxFuture<'_, Result<Option<u64>, SourceError>> {
        async move {
            tokio::task::yield_now().await;
            self.call(|state| {
                let older = state.messages.values().rev();
                older
                    .map(|m| &m.message)
                    .find(|m| m.time_ms < time_ms)
                    .map(delivery::Message::seq)
            })
        }
        .boxed()
    }

    fn told(&self, _ended: Epoch, _next: Epoch, _seen: Instant) -> Told {
        self.state.lock().told.unwrap_or(Told::NotYet)
    }
}
