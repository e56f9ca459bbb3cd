//! The readers of one connection, and the loop that drives them.
//!
//! A feed hands out one [`Output`] at a time and does nothing in between: a
//! connection that is busy writing does not ask, its readers fall behind,
//! and they catch up from the window or from the logs when it asks again.
//! So the memory of a slow connection is bounded by one batch.

mod fetch;
mod output;
mod replay;
mod start;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, UserId};

use crate::hub::Hub;
use crate::log::PageError;
use crate::message::Entries;
use crate::reader::{HeadVerdict, Reader, Reset, Step, Verdict};
use crate::window::{ReaderHandle, Registration, WakeSet, Window};

use fetch::{Answer, Fetches};
pub use output::{Output, Place, SubscribeError};
use replay::Replay;
pub use start::Start;

/// The readers of one connection. Dropping it ends them all.
pub struct Feed {
    hub: Hub,
    wake: Arc<WakeSet>,
    /// By slot. A slot's reader is known to its window by the slot's number.
    slots: Vec<Option<Subscription>>,
    /// Where the next look for a ready reader begins.
    turn: usize,
    /// Told apart from an earlier subscription in the same slot.
    generation: u32,
    pending: VecDeque<Output>,
    fetches: Fetches,
}

struct Subscription {
    channel: Channel,
    window: Arc<Window>,
    registration: Registration,
    generation: u32,
    tag: u32,
    max_catchup: Option<usize>,
    phase: Phase,
    reader: Reader,
    replay: Replay,
    told_delay: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The start is being resolved.
    Starting,
    /// The window wakes it.
    Running,
    /// An answer is awaited.
    Fetching,
}

impl Feed {
    pub(crate) fn new(hub: Hub, user: Option<UserId>) -> Self {
        let wake = Arc::new(WakeSet::new(hub.limits().subscriptions, user));
        Self {
            hub,
            wake,
            slots: Vec::new(),
            turn: 0,
            generation: 0,
            pending: VecDeque::new(),
            fetches: Fetches::default(),
        }
    }

    /// Adds a reader. [`Output::Subscribed`] or [`Output::Refused`] follows
    /// with the same `tag`. With `max_catchup`, a reset is put out instead
    /// of a replay of more messages than that.
    pub fn subscribe(
        &mut self,
        channel: Channel,
        start: Start,
        max_catchup: Option<usize>,
        tag: u32,
    ) -> Result<(), SubscribeError> {
        if self.slot_of(&channel).is_some() {
            return Err(SubscribeError::Already);
        }
        let slot = self.free_slot()?;
        self.generation = self.generation.wrapping_add(1);
        let window = Arc::clone(self.hub.window_of(&channel));
        let handle = ReaderHandle {
            set: Arc::clone(&self.wake),
            slot: slot as u32,
        };
        let (registration, head) = {
            let mut state = window.lock();
            (state.register(&channel, handle), state.head())
        };
        let subscription = Subscription {
            channel,
            window,
            registration,
            generation: self.generation,
            tag,
            max_catchup,
            phase: Phase::Starting,
            reader: Reader::new(head),
            replay: Replay::begun(self.hub.age_ms()),
            told_delay: false,
        };
        self.slots[slot] = Some(subscription);
        self.resolve_start(slot, start);
        Ok(())
    }

    /// Ends a subscription; what it had ready is dropped. Returns whether
    /// there was one.
    pub fn unsubscribe(&mut self, channel: &Channel) -> bool {
        let Some(slot) = self.slot_of(channel) else {
            return false;
        };
        self.remove(slot);
        true
    }

    /// Whether the channel is subscribed to.
    pub fn is_subscribed(&self, channel: &Channel) -> bool {
        self.slot_of(channel).is_some()
    }

    /// The channels subscribed to.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.slots
            .iter()
            .flatten()
            .map(|subscription| &subscription.channel)
    }

    /// Where each subscription stands.
    pub fn places(&self) -> Vec<Place> {
        let place = |subscription: &Subscription| {
            let position = subscription.reader.position();
            let channel = subscription.channel.clone();
            let state = subscription.window.lock();
            Place {
                lag: state.count_after(&channel, position, usize::MAX),
                channel,
                position,
                live: subscription.reader.is_live(),
            }
        };
        self.slots.iter().flatten().map(place).collect()
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Per shard, the position up to which every live subscription has been
    /// handed everything. It moves on quiet channels too. A shard of which
    /// something still waits to be handed out is left out, and so is one
    /// whose subscriptions stand in different epochs.
    pub fn positions(&self) -> Vec<(u16, Cursor)> {
        let mut positions: Vec<(u16, Cursor)> = Vec::new();
        let mut waiting = Vec::new();
        for subscription in self.slots.iter().flatten() {
            if !subscription.reader.is_live() {
                continue;
            }
            let shard = subscription.window.shard();
            let Some(reached) = self.handed_out(subscription) else {
                waiting.push(shard);
                continue;
            };
            match positions.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, lowest)) if lowest.epoch == reached.epoch => {
                    lowest.seq = lowest.seq.min(reached.seq)
                }
                // Between two epochs no position is right for all: who has
                // reached the new one would go back, and see it again.
                Some(_) => waiting.push(shard),
                None => positions.push((shard, reached)),
            }
        }
        positions.retain(|(shard, _)| !waiting.contains(shard));
        positions
    }

    /// The position up to which a live subscription has been handed
    /// everything; `None` if it is not live, or if something of it still
    /// waits to be handed out.
    pub fn reached(&self, channel: &Channel) -> Option<Cursor> {
        let subscription = self.slots[self.slot_of(channel)?].as_ref()?;
        let live = subscription.reader.is_live();
        live.then(|| self.handed_out(subscription))?
    }

    /// The same for a subscription.
    fn handed_out(&self, subscription: &Subscription) -> Option<Cursor> {
        // Several answers of the logs at once wait here, one after the other,
        // and their readers are past them already.
        let waits = |output: &Output| *output.channel() == subscription.channel;
        if self.pending.iter().any(waits) {
            return None;
        }
        let position = subscription.reader.position();
        let state = subscription.window.lock();
        let nothing_newer = state.count_after(&subscription.channel, position, 1) == Some(0);
        Some(match nothing_newer {
            true => state.head(),
            false => position,
        })
    }

    /// The next output; waits for as long as there is none. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Output {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next output, for callers that poll their socket in the same task.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        self.wake.register(cx.waker());
        loop {
            if let Some(output) = self.pending.pop_front() {
                if self.pending.is_empty() {
                    // Rare enough, and an idle connection keeps nothing.
                    self.pending = VecDeque::new();
                }
                return Poll::Ready(output);
            }
            while let Poll::Ready(Some((slot, generation, answer))) =
                self.fetches.poll_next_unpin(cx)
            {
                self.on_answer(slot, generation, answer);
            }
            if !self.pending.is_empty() {
                continue;
            }
            match self.wake.take_from(self.turn) {
                Some(slot) => {
                    self.turn = slot + 1;
                    if let Some(output) = self.run(slot) {
                        return Poll::Ready(output);
                    }
                }
                // A fetch that was just begun has not been polled yet.
                None if self.fetches.has_unpolled() => {}
                None => match self.wake.take_signal() {
                    // One that came in before its subscription ended.
                    Some(signal) if !self.is_subscribed(&signal.channel) => {}
                    Some(signal) => return Poll::Ready(Output::Signal(signal)),
                    None => return Poll::Pending,
                },
            }
        }
    }

    /// Steps a woken reader once. Returns what it has to put out, while
    /// nothing else is pending.
    fn run(&mut self, slot: usize) -> Option<Output> {
        let limit = self.hub.read_limit();
        let subscription = self.slots.get_mut(slot)?.as_mut()?;
        if subscription.phase != Phase::Running {
            // Stepped again when the answer is there.
            return None;
        }
        let mut entries = Entries::new();
        let step = {
            let state = subscription.window.lock();
            subscription
                .reader
                .step(&subscription.channel, &state, limit, &mut entries)
        };
        match step {
            Step::Deliver { again } => {
                if again {
                    // The others come first.
                    self.wake.wake(slot);
                } else {
                    subscription.replay.lapped = false;
                }
                return self.messages(slot, entries);
            }
            Step::Live(cursor) => {
                subscription.replay.count(&self.hub);
                let channel = subscription.channel.clone();
                return Some(Output::Live { channel, cursor });
            }
            Step::Wait => subscription.replay.lapped = false,
            Step::ReadLog(request) => {
                if subscription.reader.is_live() && !subscription.replay.lapped {
                    subscription.replay.lapped = true;
                    self.hub.counters().readers_lapped.add(1);
                }
                let catch_up = self.hub.catch_up().clone();
                self.fetch(
                    slot,
                    Box::pin(async move { Answer::Page(catch_up.page(request).await) }),
                );
            }
            Step::ConfirmHead => {
                let catch_up = self.hub.catch_up().clone();
                let shard = subscription.window.shard();
                let channel = subscription.channel.clone();
                let position = subscription.reader.position();
                let head =
                    async move { Answer::Head(catch_up.head_for(shard, channel, position).await) };
                self.fetch(slot, Box::pin(head));
            }
        }
        None
    }

    fn fetch(&mut self, slot: usize, question: BoxFuture<'static, Answer>) {
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if subscription.phase == Phase::Running {
            subscription.phase = Phase::Fetching;
        }
        self.fetches.push(slot, subscription.generation, question);
    }

    /// Waits for something that no log is asked for, so that slow logs do not
    /// hold it up.
    fn fetch_aside(&mut self, slot: usize, question: BoxFuture<'static, Answer>) {
        if let Some(subscription) = self.slots.get(slot).and_then(Option::as_ref) {
            self.fetches
                .push_aside(slot, subscription.generation, question);
        }
    }

    fn on_answer(&mut self, slot: usize, generation: u32, answer: Answer) {
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if subscription.generation != generation {
            return;
        }
        if subscription.phase == Phase::Fetching {
            subscription.phase = Phase::Running;
        }
        let head = subscription.window.head();
        match answer {
            Answer::Begin(start) => return self.resolve_start(slot, *start),
            Answer::Start(result) => return self.on_start(slot, result),
            Answer::TooFarBehind { start, floor } => {
                return self.on_catch_up_bound(slot, start, floor);
            }
            Answer::Again => {}
            Answer::Page(Ok((source, page))) => {
                subscription.replay.came_from(source);
                let mut entries = Entries::new();
                let moved = subscription.reader.on_page(page, head, &mut entries);
                if !moved {
                    // The log ends below the window's floor: its source is
                    // catching up.
                    return self.ask_again(slot, PAUSE_AT_LOG_END);
                }
                subscription.told_delay = false;
                let messages = self.messages(slot, entries);
                self.pending.extend(messages);
            }
            Answer::Page(Err(error)) => match subscription.reader.on_page_error(&error, head) {
                Verdict::Reset(reset) => self.put_reset(slot, reset),
                Verdict::Retry => return self.delay(slot, &error),
            },
            Answer::Head(Ok(confirmed)) => match subscription.reader.on_head(confirmed, head) {
                HeadVerdict::Reset(reset) => self.put_reset(slot, reset),
                HeadVerdict::WaitFor(seq) => {
                    let handle = ReaderHandle {
                        set: Arc::clone(&self.wake),
                        slot: slot as u32,
                    };
                    let mut state = subscription.window.lock();
                    // The window may have got there in the meantime; then
                    // the reader is stepped at once.
                    let waiting_in = subscription.reader.position().epoch;
                    if state.head().epoch == waiting_in && state.head().seq < seq {
                        state.wait_for_head(seq, handle);
                        return;
                    }
                }
            },
            Answer::Head(Err(error)) => return self.delay(slot, &error),
        }
        self.wake.wake(slot);
    }

    fn messages(&mut self, slot: usize, entries: Entries) -> Option<Output> {
        let subscription = self.slots.get_mut(slot)?.as_mut()?;
        let epoch = entries.first()?.message().position.epoch;
        self.hub.counters().deliveries.add(entries.len() as u64);
        let live = subscription.reader.is_live();
        if !live {
            subscription.replay.add(entries.len());
        }
        Some(Output::Messages {
            channel: subscription.channel.clone(),
            epoch,
            entries,
            live,
        })
    }

    fn put_reset(&mut self, slot: usize, reset: Reset) {
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        subscription.replay = Replay::begun(self.hub.age_ms());
        self.hub.counters().count_reset(reset.reason);
        self.pending.push_back(Output::Reset {
            channel: subscription.channel.clone(),
            reset,
        });
    }

    /// The log is away: tell so once, and ask again later.
    fn delay(&mut self, slot: usize, error: &PageError) {
        let retry_after = match error {
            PageError::Unavailable { retry_after, .. } => *retry_after,
            PageError::Expired { .. } | PageError::UnknownEpoch => PAUSE_AT_LOG_END,
        };
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if matches!(error, PageError::Unavailable { .. })
            && !std::mem::replace(&mut subscription.told_delay, true)
        {
            self.pending.push_back(Output::Delayed {
                channel: subscription.channel.clone(),
                retry_after,
            });
        }
        self.ask_again(slot, retry_after);
    }

    fn ask_again(&mut self, slot: usize, pause: Duration) {
        self.fetch(
            slot,
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                Answer::Again
            }),
        );
    }

    fn slot_of(&self, channel: &Channel) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|known| known.channel == *channel))
    }

    fn free_slot(&mut self) -> Result<usize, SubscribeError> {
        if let Some(slot) = self.slots.iter().position(Option::is_none) {
            return Ok(slot);
        }
        let max = self.hub.limits().subscriptions;
        if self.slots.len() >= max {
            return Err(SubscribeError::TooMany { max });
        }
        // Most connections have one or two subscriptions.
        self.slots.reserve_exact(1);
        self.slots.push(None);
        Ok(self.slots.len() - 1)
    }

    fn remove(&mut self, slot: usize) {
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::take) else {
            return;
        };
        subscription
            .window
            .lock()
            .unregister(&subscription.channel, subscription.registration);
        self.pending
            .retain(|output| output.channel() != &subscription.channel);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        for slot in 0..self.slots.len() {
            self.remove(slot);
        }
    }
}

/// How long a reader pauses when the log has nothing yet. Long enough not to
/// spin, short against a reconnect.
const PAUSE_AT_LOG_END: Duration = Duration::from_millis(50);
