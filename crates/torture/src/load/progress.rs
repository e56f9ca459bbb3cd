//! How far everybody is, so that a run knows when to go on.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{Channel, Cursor, Epoch};
use torture::history::ClientId;

#[derive(Default)]
struct Inner {
    clients: HashMap<ClientId, Standing>,
    acked: HashMap<Channel, Cursor>,
    /// In the order in which they were first acknowledged in.
    epochs: Vec<Epoch>,
    /// When the fault was over.
    healed: Option<Duration>,
    recovered: HashMap<ClientId, Duration>,
    defects: Vec<String>,
}

struct Standing {
    channel: Channel,
    position: Option<Cursor>,
    live: bool,
    /// At least once.
    was_live: bool,
}

/// What clients and publishers have reached.
#[derive(Default)]
pub(crate) struct Progress(Mutex<Inner>);

impl Progress {
    pub(crate) fn register(&self, client: ClientId, channel: Channel) {
        let standing = Standing {
            channel,
            position: None,
            live: false,
            was_live: false,
        };
        self.0.lock().clients.insert(client, standing);
    }

    pub(crate) fn stands(&self, client: ClientId, position: Option<Cursor>, live: bool) {
        if let Some(standing) = self.0.lock().clients.get_mut(&client) {
            standing.position = position;
            standing.live = live;
            standing.was_live |= live;
        }
    }

    pub(crate) fn acked(&self, channel: &Channel, cursor: Cursor) {
        let mut inner = self.0.lock();
        if !inner.epochs.contains(&cursor.epoch) {
            inner.epochs.push(cursor.epoch);
        }
        // A message may be asked for again that an earlier life of the stream had taken.
        let place = |at: Cursor| (inner.epochs.iter().position(|it| *it == at.epoch), at.seq);
        let newest = inner.acked.get(channel);
        if newest.is_none_or(|newest| place(*newest) < place(cursor)) {
            inner.acked.insert(channel.clone(), cursor);
        }
    }

    /// A client got a message that was first published at `published`.
    pub(crate) fn got(&self, client: ClientId, published: Duration, now: Duration) {
        let mut inner = self.0.lock();
        if let Some(healed) = inner.healed.filter(|healed| published >= *healed) {
            let took = now.saturating_sub(healed);
            inner.recovered.entry(client).or_insert(took);
        }
    }

    pub(crate) fn healed(&self, at: Duration) {
        let mut inner = self.0.lock();
        inner.healed = Some(at);
        inner.recovered.clear();
    }

    /// Something that no client should ever see, and that is no event of a history.
    pub(crate) fn defect(&self, words: String) {
        self.0.lock().defects.push(words);
    }

    pub(crate) fn defects(&self) -> Vec<String> {
        self.0.lock().defects.clone()
    }

    pub(crate) fn recoveries(&self) -> Vec<Duration> {
        self.0.lock().recovered.values().copied().collect()
    }

    pub(crate) fn is_warm(&self, channels: usize) -> bool {
        let inner = self.0.lock();
        inner.acked.len() == channels && inner.clients.values().all(|it| it.was_live)
    }

    pub(crate) fn all_recovered(&self) -> bool {
        let inner = self.0.lock();
        inner.recovered.len() == inner.clients.len()
    }

    pub(crate) fn is_settled(&self) -> bool {
        let inner = self.0.lock();
        let reached = |it: &Standing| match (it.position, inner.acked.get(&it.channel)) {
            (Some(position), Some(acked)) => {
                position.epoch == acked.epoch && position.seq >= acked.seq
            }
            (_, None) => true,
            (None, _) => false,
        };
        inner.clients.values().all(|it| it.live && reached(it))
    }

    /// Who does not stand where everybody should, in words.
    pub(crate) fn stragglers(&self) -> Vec<String> {
        let inner = self.0.lock();
        let mut words = Vec::new();
        for (client, it) in &inner.clients {
            let acked = inner.acked.get(&it.channel);
            let behind = match (it.position, acked) {
                (Some(position), Some(acked)) => {
                    position.epoch != acked.epoch || position.seq < acked.seq
                }
                (_, None) => false,
                (None, _) => true,
            };
            if behind || !it.live {
                let (position, live) = (it.position.map(|it| it.to_string()), it.live);
                let acked = acked.map(ToString::to_string);
                words.push(format!(
                    "client {client} of {} at {position:?} (live: {live}), acknowledged: {acked:?}",
                    it.channel
                ));
            }
        }
        words
    }
}
