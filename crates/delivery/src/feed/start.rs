//! Where a subscription starts.

use futures_util::future::BoxFuture;
use protocol::{Cursor, From};

use super::fetch::Answer;
use super::{Feed, Output, Phase};
use crate::log::PageError;
use crate::reader::{Reader, ResetReason};

/// Where a subscription is to start.
pub enum Start {
    /// Only messages published from now on.
    Tail,
    /// The oldest message that can be replayed.
    Earliest,
    /// The newest messages, this many.
    Last(usize),
    /// After a position.
    Cursor(Cursor),
    /// A position that has to be looked up first.
    Lookup(BoxFuture<'static, Result<Cursor, PageError>>),
    /// There, but only once something else is done. The tail is that of when
    /// it was asked for.
    After(BoxFuture<'static, ()>, Box<Start>),
}

impl Start {
    /// The start that a client's `from` names; `acked` needs a lookup that
    /// delivery does not know, and gives `None`.
    pub fn from_wire(from: From) -> Option<Self> {
        match from {
            From::Tail => Some(Self::Tail),
            From::Earliest => Some(Self::Earliest),
            From::Last(count) => Some(Self::Last(count as usize)),
            From::Cursor(cursor) => Some(Self::Cursor(cursor)),
            From::Acked => None,
        }
    }
}

impl Feed {
    /// Resolves the start at once where the window knows it, else asks.
    pub(super) fn resolve_start(&mut self, slot: usize, start: Start) {
        let Some(subscription) = self.slots.get(slot).and_then(Option::as_ref) else {
            return;
        };
        let channel = subscription.channel.clone();
        let catch_up = self.hub.catch_up().clone();
        match start {
            // The reader was made at the head when it was registered.
            Start::Tail => self.on_start(slot, Ok(subscription.reader.position())),
            Start::Cursor(cursor) => self.on_start(slot, Ok(cursor)),
            Start::Earliest => self.fetch(
                slot,
                Box::pin(async move { Answer::Start(catch_up.earliest(channel).await) }),
            ),
            Start::After(first, start) => self.fetch_aside(
                slot,
                Box::pin(async move {
                    first.await;
                    Answer::Begin(start)
                }),
            ),
            Start::Lookup(lookup) => {
                self.fetch(slot, Box::pin(async move { Answer::Start(lookup.await) }))
            }
            Start::Last(count) => {
                let (in_window, head, floor) = {
                    let state = subscription.window.lock();
                    let floor = Cursor::new(state.head().epoch, state.floor());
                    (state.before_last(&channel, count), state.head(), floor)
                };
                match in_window {
                    Ok(cursor) => self.on_start(slot, Ok(cursor)),
                    // The stream begins inside the window: there are no more.
                    Err(0) if head.seq == 0 => self.on_start(slot, Ok(head)),
                    Err(held) => self.fetch(
                        slot,
                        Box::pin(async move {
                            Answer::Start(catch_up.before_last(channel, floor, count - held).await)
                        }),
                    ),
                }
            }
        }
    }

    /// The start is known; check it against the client's bound.
    pub(super) fn on_start(&mut self, slot: usize, start: Result<Cursor, PageError>) {
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let start = match start {
            Ok(start) => start,
            Err(error) => {
                let channel = subscription.channel.clone();
                let tag = subscription.tag;
                self.remove(slot);
                self.pending.push_back(Output::Refused {
                    channel,
                    tag,
                    error,
                });
                return;
            }
        };
        let Some(bound) = subscription.max_catchup else {
            return self.begin(slot, start, false);
        };
        let (in_window, head) = {
            let state = subscription.window.lock();
            (
                state.count_after(&subscription.channel, start, bound.saturating_add(1)),
                state.head(),
            )
        };
        match in_window {
            Some(count) => self.begin(slot, start, count > bound),
            None => {
                let catch_up = self.hub.catch_up().clone();
                let channel = subscription.channel.clone();
                self.fetch(
                    slot,
                    Box::pin(async move {
                        Answer::TooFarBehind {
                            start,
                            floor: catch_up.before_last(channel, head, bound).await,
                        }
                    }),
                );
            }
        }
    }

    /// The position from which `max_catchup` messages follow is known.
    pub(super) fn on_catch_up_bound(
        &mut self,
        slot: usize,
        start: Cursor,
        floor: Result<Cursor, PageError>,
    ) {
        match floor {
            Ok(floor) if floor.epoch == start.epoch => {
                self.begin(slot, start, start.seq < floor.seq)
            }
            // The bound lies in an epoch that the cursor has not reached.
            Ok(floor) => {
                let head = self
                    .slots
                    .get(slot)
                    .and_then(Option::as_ref)
                    .map(|known| known.window.head());
                let current = head.is_some_and(|head| head.epoch == floor.epoch);
                self.begin(slot, start, current && floor.seq > 0);
            }
            Err(error) => self.on_start(slot, Err(error)),
        }
    }

    fn begin(&mut self, slot: usize, start: Cursor, too_far_behind: bool) {
        let Some(subscription) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let head = subscription.window.head();
        subscription.reader = Reader::new(start);
        subscription.phase = Phase::Running;
        self.pending.push_back(Output::Subscribed {
            channel: subscription.channel.clone(),
            tag: subscription.tag,
            shard: subscription.window.shard(),
            cursor: start,
            head,
        });
        if too_far_behind {
            let reset = subscription
                .reader
                .reset(ResetReason::TooFarBehind, head, None);
            self.put_reset(slot, reset);
        }
        self.wake.wake(slot);
    }
}
