//! What each client saw, against what is stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::frame::ResetReason;
use protocol::{Channel, Cursor};

use super::truth::{Place, World};
use super::{Anomaly, Verdict};
use crate::history::{ClientId, Event, What};

/// A client over all of its sessions.
struct Client {
    id: ClientId,
    channel: Channel,
    /// What the running session came with.
    from: Option<Place>,
    /// The position, kept as `docs/PROTOCOL.md` says.
    position: Option<Place>,
    seen_in_session: HashSet<Place>,
    /// The first position that it ever was given: what comes later is for it.
    entitled_after: Option<Place>,
    received: HashSet<Place>,
    /// What resets told it to do without: after the first, up to the second.
    excused: Vec<(Place, Place)>,
    left: bool,
}

/// What all clients together know.
struct Seen<'a> {
    /// When each content was first published, and under which id. Contents are unique to their messages.
    published: HashMap<&'a str, (Duration, &'a str)>,
    contents: HashMap<Cursor, &'a str>,
}

pub(super) fn check(history: &[Event], world: &World, verdict: &mut Verdict) {
    let mut clients: BTreeMap<ClientId, Client> = BTreeMap::new();
    let mut seen = Seen {
        published: HashMap::new(),
        contents: HashMap::new(),
    };
    for event in history {
        match &event.what {
            What::Publish { message, content } => {
                let value = (event.at, &*message.id);
                seen.published.entry(content).or_insert(value);
            }
            What::Subscribe {
                client,
                channel,
                from,
            } => {
                verdict.sessions += 1;
                let client = clients
                    .entry(*client)
                    .or_insert_with(|| Client::new(*client, channel));
                client.begin(*from, world);
            }
            What::Received {
                client,
                cursor,
                prev,
                id,
                content,
            } => {
                verdict.deliveries += 1;
                if let Some(client) = clients.get_mut(client) {
                    client.received(*cursor, *prev, world, verdict);
                    let told = (id.as_ref(), content);
                    seen.received(event.at, client, *cursor, told, world, verdict);
                }
            }
            What::Subscribed { client, cursor } => {
                with(&mut clients, *client, |it| {
                    it.subscribed(*cursor, world, verdict)
                });
            }
            What::Live { client, cursor } => {
                with(&mut clients, *client, |it| {
                    it.moved(*cursor, "live", world, verdict)
                });
            }
            What::Moved { client, cursor } => {
                with(&mut clients, *client, |it| {
                    it.moved(*cursor, "a ping", world, verdict)
                });
            }
            What::Reset {
                client,
                reason,
                head,
            } => {
                verdict.resets += 1;
                with(&mut clients, *client, |it| {
                    it.reset(*reason, *head, world, verdict)
                });
            }
            What::Left { client } => with(&mut clients, *client, |it| it.left = true),
            What::Acked { .. }
            | What::Refused { .. }
            | What::Unknown { .. }
            | What::Persisted { .. }
            | What::Disconnected { .. }
            | What::Fault { .. }
            | What::Healed
            | What::EpochEnded { .. }
            | What::Forgotten { .. } => {}
        }
    }
    for client in clients.values() {
        client.end(world, verdict);
    }
}

fn with(clients: &mut BTreeMap<ClientId, Client>, id: ClientId, act: impl FnOnce(&mut Client)) {
    if let Some(client) = clients.get_mut(&id) {
        act(client);
    }
}

impl Client {
    fn new(id: ClientId, channel: &Channel) -> Self {
        Self {
            id,
            channel: channel.clone(),
            from: None,
            position: None,
            seen_in_session: HashSet::new(),
            entitled_after: None,
            received: HashSet::new(),
            excused: Vec::new(),
            left: false,
        }
    }

    fn begin(&mut self, from: Option<Cursor>, world: &World) {
        self.from = from.and_then(|it| world.place(it));
        self.position = self.from;
        self.seen_in_session.clear();
        if self.entitled_after.is_none() {
            self.entitled_after = self.from;
        }
    }

    fn subscribed(&mut self, cursor: Cursor, world: &World, verdict: &mut Verdict) {
        match self.position {
            Some(_) => self.moved(cursor, "subscribed", world, verdict),
            None => self.position = world.place(cursor),
        }
        if self.entitled_after.is_none() {
            self.entitled_after = self.position;
        }
    }

    fn received(&mut self, cursor: Cursor, prev: u64, world: &World, verdict: &mut Verdict) {
        let who = self.id;
        let Some(place) = world.place(cursor) else {
            return verdict.found(Anomaly::Phantom, || {
                format!("client {who} got {cursor}, of an epoch that never was")
            });
        };
        let repeated = !self.seen_in_session.insert(place);
        let before_cursor = self.from.is_some_and(|from| place <= from);
        if repeated || before_cursor {
            let from = self.from;
            verdict.found(Anomaly::Duplicate, || {
                format!("client {who} got {cursor} again (twice: {repeated}, came with {from:?})")
            });
        } else {
            match self.position {
                None => verdict.found(Anomaly::Reorder, || {
                    format!("client {who} got {cursor} before it was subscribed")
                }),
                Some(position) if place < position => verdict.found(Anomaly::Reorder, || {
                    format!("client {who} got {cursor} behind {position:?}")
                }),
                Some(position) => self.continues(position, place, prev, world, verdict),
            }
        }
        self.position = Some(place);
        self.received.insert(place);
    }

    fn continues(
        &self,
        position: Place,
        place: Place,
        prev: u64,
        world: &World,
        verdict: &mut Verdict,
    ) {
        let who = self.id;
        let mut skipped = world
            .between(&self.channel, position, place)
            .filter(|it| *it != place);
        let said = place.0 == position.0 && prev > position.1;
        if let Some(first) = skipped.next() {
            let (first, at) = (world.cursor(first), world.cursor(place));
            verdict.found(Anomaly::Gap, || {
                format!("client {who} got {at} without {first} before it")
            });
        } else if said {
            verdict.found(Anomaly::Gap, || {
                format!("client {who} was at {position:?} and is told of {prev} before {place:?}")
            });
        }
    }

    /// The position moves without a message.
    fn moved(&mut self, cursor: Cursor, by: &str, world: &World, verdict: &mut Verdict) {
        let Some(place) = world.place(cursor) else {
            // Of an epoch that nobody else saw: it says nothing about messages.
            return;
        };
        let (who, channel) = (self.id, &self.channel);
        if let Some(position) = self.position
            && let Some(first) = world.between(channel, position, place).next()
        {
            let first = world.cursor(first);
            verdict.found(Anomaly::SilentReset, || {
                format!("client {who} was moved to {cursor} by {by}, over {first} of {channel}")
            });
        }
        self.position = Some(place);
    }

    fn reset(&mut self, reason: ResetReason, head: Cursor, world: &World, verdict: &mut Verdict) {
        let who = self.id;
        let place = world.place(head);
        if let Some(position) = self.position {
            if !is_needed(reason, position, world) {
                let at = world.cursor(position);
                verdict.found(Anomaly::FalseReset, || {
                    format!("client {who} was at {at} and got {reason:?}, to go on at {head}")
                });
            }
            if let Some(place) = place {
                self.excused.push((position, place));
            }
        }
        if place.is_some() {
            self.position = place;
        }
    }

    /// What should have come by now.
    fn end(&self, world: &World, verdict: &mut Verdict) {
        let Some(after) = self.entitled_after.filter(|_| !self.left) else {
            return;
        };
        for place in world.after(&self.channel, after) {
            let excused = |(from, to): &(Place, Place)| *from < place && place <= *to;
            if self.received.contains(&place) || self.excused.iter().any(excused) {
                continue;
            }
            let (at, who) = (world.cursor(place), self.id);
            verdict.found(Anomaly::Lost, || {
                format!("client {who} never got {at} of {}", self.channel)
            });
        }
    }
}

/// Whether continuity from a position could not be proved.
fn is_needed(reason: ResetReason, position: Place, world: &World) -> bool {
    let epoch = world.cursor(position).epoch;
    match reason {
        // A cursor of an epoch that never was has no place at all, and is not asked about.
        ResetReason::Epoch => world.loses_after(position),
        ResetReason::Expired => world.is_before_retention(position),
        ResetReason::Ahead => position.1 > world.last_of(epoch) || world.has_ended(epoch),
        // No client of the harness asks for it.
        ResetReason::TooFarBehind => false,
    }
}

impl<'a> Seen<'a> {
    fn received(
        &mut self,
        at: Duration,
        client: &Client,
        cursor: Cursor,
        (id, content): (Option<&'a Arc<str>>, &'a Arc<str>),
        world: &World,
        verdict: &mut Verdict,
    ) {
        let who = client.id;
        let content: &str = content;
        let other = *self.contents.entry(cursor).or_insert(content);
        let stored = world.stored.get(&cursor);
        let diverges = other != content
            || stored.is_some_and(|(channel, it)| **it != *content || *channel != client.channel);
        if diverges {
            verdict.found(Anomaly::Divergent, || {
                format!("client {who} got {content} at {cursor}; there is {other} or {stored:?}")
            });
        }
        let may_be_gone = world.is_lost(cursor.epoch) || world.is_forgotten(cursor);
        if stored.is_none() && !may_be_gone {
            verdict.found(Anomaly::Phantom, || {
                format!("client {who} got {content} at {cursor}, where nothing is stored")
            });
            return;
        }
        match self.published.get(content) {
            None => verdict.found(Anomaly::Phantom, || {
                format!("client {who} got {content} at {cursor} before anybody published it")
            }),
            Some((when, _)) if at < *when => verdict.found(Anomaly::Phantom, || {
                format!("client {who} got {content} before it was published")
            }),
            Some((_, published_as)) => {
                if id.is_some_and(|id| **id != **published_as) {
                    verdict.found(Anomaly::Divergent, || {
                        format!("client {who} got {content} under {id:?}, not {published_as}")
                    });
                }
            }
        }
    }
}
