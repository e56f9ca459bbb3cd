//! What the client listens to and how far it has come: the cursor rules of `docs/PROTOCOL.md`, without any I/O.

use std::collections::BTreeMap;

use protocol::frame::{Messages, Reset, Subscribe, Subscribed};
use protocol::{Channel, Cursor, From as StartFrom};
use tokio::time::Instant;

/// All subscriptions, kept over reconnects.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Channel, Subscription>,
}

#[derive(Debug)]
struct Subscription {
    /// Where to start while there is no position.
    from: StartFrom,
    max_catchup: u32,
    position: Option<Cursor>,
    shard: u16,
    phase: Phase,
}

/// How a subscription stands on the current connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// To be asked for, not before the instant if there is one.
    Wanted(Option<Instant>),
    Asked,
    CatchingUp,
    Live,
}

/// A message is missing between the position and this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) position: Cursor,
    /// The sequence that the edge says came before the next message.
    pub(super) prev: u64,
}

impl Subscriptions {
    /// Begins to listen; false if it does already.
    pub(super) fn add(&mut self, subscribe: Subscribe) -> bool {
        if self.channels.contains_key(&subscribe.channel) {
            return false;
        }
        let position = match subscribe.from {
            StartFrom::Cursor(cursor) => Some(cursor),
            StartFrom::Tail | StartFrom::Earliest | StartFrom::Acked | StartFrom::Last(_) => None,
        };
        let subscription = Subscription {
            from: subscribe.from,
            max_catchup: subscribe.max_catchup,
            position,
            shard: 0,
            phase: Phase::Wanted(None),
        };
        self.channels.insert(subscribe.channel, subscription);
        true
    }

    /// Stops listening. Says whether the edge has to be told.
    pub(super) fn remove(&mut self, channel: &Channel) -> bool {
        match self.channels.remove(channel) {
            Some(subscription) => !matches!(subscription.phase, Phase::Wanted(_)),
            None => false,
        }
    }

    /// The connection is gone: everything is to be asked for again.
    pub(super) fn disconnected(&mut self) {
        for subscription in self.channels.values_mut() {
            subscription.phase = Phase::Wanted(None);
        }
    }

    /// What to ask for now, at most `limit` of them; they count as asked.
    pub(super) fn ask(&mut self, now: Instant, limit: usize) -> Vec<Subscribe> {
        let due = |subscription: &Subscription| match subscription.phase {
            Phase::Wanted(after) => after.is_none_or(|after| after <= now),
            Phase::Asked | Phase::CatchingUp | Phase::Live => false,
        };
        self.channels
            .iter_mut()
            .filter(|(_, subscription)| due(subscription))
            .take(limit)
            .map(|(channel, subscription)| {
                subscription.phase = Phase::Asked;
                Subscribe {
                    channel: channel.clone(),
                    from: subscription
                        .position
                        .map_or(subscription.from, StartFrom::Cursor),
                    max_catchup: subscription.max_catchup,
                }
            })
            .collect()
    }

    /// When something is due that waits.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = |subscription: &Subscription| match subscription.phase {
            Phase::Wanted(after) => after,
            Phase::Asked | Phase::CatchingUp | Phase::Live => None,
        };
        self.channels.values().filter_map(waiting).min()
    }

    /// The edge cannot for now: ask again at `after`.
    pub(super) fn postpone(&mut self, channel: &Channel, after: Instant) {
        if let Some(subscription) = self.channels.get_mut(channel) {
            subscription.phase = Phase::Wanted(Some(after));
        }
    }

    /// The edge subscribed the client, maybe without being asked by name.
    pub(super) fn subscribed(&mut self, subscribed: &Subscribed) {
        let channel = subscribed.channel.clone();
        let entry = self.channels.entry(channel).or_insert(Subscription {
            from: StartFrom::Tail,
            max_catchup: 0,
            position: None,
            shard: 0,
            phase: Phase::Asked,
        });
        entry.position = Some(subscribed.cursor);
        entry.shard = subscribed.shard;
        entry.phase = Phase::CatchingUp;
    }

    /// Takes a batch: repeats go, what is left is in order and moves the position. Nothing is left of a batch of a
    /// channel that is no longer listened to.
    pub(super) fn messages(&mut self, batch: &mut Messages) -> Result<(), Gap> {
        let Some(subscription) = self.channels.get_mut(&batch.channel) else {
            batch.messages.clear();
            return Ok(());
        };
        let epoch = batch.epoch;
        let mut gap = None;
        batch.messages.retain(|message| {
            let same_epoch = subscription.position.filter(|it| it.epoch == epoch);
            if let Some(position) = same_epoch {
                if message.seq <= position.seq || gap.is_some() {
                    return false;
                }
                if message.prev > position.seq {
                    let prev = message.prev;
                    gap = Some(Gap { position, prev });
                    return false;
                }
            }
            subscription.position = Some(Cursor::new(epoch, message.seq));
            true
        });
        gap.map_or(Ok(()), Err)
    }

    /// Replay is over.
    pub(super) fn live(&mut self, channel: &Channel, cursor: Cursor) {
        if let Some(subscription) = self.channels.get_mut(channel) {
            subscription.position = Some(cursor);
            subscription.phase = Phase::Live;
        }
    }

    /// Continuity is lost; it goes on at the head.
    pub(super) fn reset(&mut self, reset: &Reset) {
        if let Some(subscription) = self.channels.get_mut(&reset.channel) {
            subscription.position = Some(reset.head);
            subscription.phase = Phase::CatchingUp;
        }
    }

    /// A ping's positions; returns the moves that it made.
    pub(super) fn ping(&mut self, positions: &BTreeMap<u16, Cursor>) -> Vec<(Channel, Cursor)> {
        let mut moves = Vec::new();
        for (channel, subscription) in &mut self.channels {
            let Some(cursor) = positions.get(&subscription.shard) else {
                continue;
            };
            let ahead =
                |position: Cursor| position.epoch != cursor.epoch || position.seq < cursor.seq;
            if subscription.phase == Phase::Live && subscription.position.is_none_or(ahead) {
                subscription.position = Some(*cursor);
                moves.push((channel.clone(), *cursor));
            }
        }
        moves
    }

    /// Whether everything is live (or there is nothing).
    pub(super) fn all_live(&self) -> bool {
        self.channels
            .values()
            .all(|subscription| subscription.phase == Phase::Live)
    }

    /// Whether any channel is an inbox or whatever else the edge added: its position is known.
    pub(super) fn contains(&self, channel: &Channel) -> bool {
        self.channels.contains_key(channel)
    }
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
