//! What publishers were told, against what is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use protocol::{Channel, Cursor};

use super::truth::World;
use super::{Anomaly, Verdict};
use crate::history::{Event, Message, What};

#[derive(Default)]
struct Tries {
    content: Option<Arc<str>>,
    /// Where it was said to be.
    acked: Vec<Cursor>,
    /// Tries that may have stored it.
    open: u64,
    refused: u64,
}

pub(super) fn check(history: &[Event], world: &World, verdict: &mut Verdict) {
    let tries = gather(history);
    verdict.published = tries.len() as u64;
    let mut places: HashMap<(&Channel, &Arc<str>), BTreeSet<Sorted>> = HashMap::new();
    for (cursor, (channel, content)) in &world.stored {
        let by_content = places.entry((channel, content)).or_default();
        by_content.insert(Sorted(*cursor));
    }
    let mut known = BTreeSet::new();
    for (message, tries) in &tries {
        if let Some(content) = &tries.content {
            known.insert((&message.channel, content));
            let found = places.get(&(&message.channel, content));
            check_stored(message, tries, found, world, verdict);
        }
        check_acks(message, tries, world, verdict);
        verdict.acknowledged += u64::from(!tries.acked.is_empty());
    }
    for (cursor, (channel, content)) in &world.stored {
        if !known.contains(&(channel, content)) {
            verdict.found(Anomaly::Phantom, || {
                format!("{cursor} of {channel} holds {content}, which nobody published")
            });
        }
    }
}

/// A cursor in some order, as those of different streams have none.
#[derive(Debug, PartialEq, Eq)]
struct Sorted(Cursor);

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.epoch, self.0.seq).cmp(&(other.0.epoch, other.0.seq))
    }
}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn gather(history: &[Event]) -> BTreeMap<Message, Tries> {
    let mut all: BTreeMap<Message, Tries> = BTreeMap::new();
    for event in history {
        match &event.what {
            What::Publish { message, content } => {
                let tries = all.entry(message.clone()).or_default();
                tries.content = Some(content.clone());
                tries.open += 1;
            }
            What::Acked { message, cursor } => {
                all.entry(message.clone()).or_default().acked.push(*cursor);
            }
            What::Refused { message } => {
                let tries = all.entry(message.clone()).or_default();
                tries.open = tries.open.saturating_sub(1);
                tries.refused += 1;
            }
            _ => {}
        }
    }
    all
}

fn check_stored(
    message: &Message,
    tries: &Tries,
    found: Option<&BTreeSet<Sorted>>,
    world: &World,
    verdict: &mut Verdict,
) {
    let Some(found) = found else { return };
    // Whoever asks again while a stream is destroyed under load may be heard by the next one, see `docs/RELIABILITY.md`.
    let lasting = found.iter().filter(|it| !world.is_lost(it.0.epoch));
    if lasting.count() > 1 {
        verdict.found(Anomaly::Duplicate, || {
            format!("{} is stored {} times: {found:?}", message.id, found.len())
        });
    }
    if tries.open == 0 && tries.refused > 0 {
        verdict.found(Anomaly::FailedButDelivered, || {
            format!("{} was refused and is stored at {found:?}", message.id)
        });
    }
}

fn check_acks(message: &Message, tries: &Tries, world: &World, verdict: &mut Verdict) {
    let gone = |at: &Cursor| world.is_lost(at.epoch) || world.is_forgotten(*at);
    // A message whose stream was destroyed may be stored anew, under its old id.
    let lasting = |at: &&Cursor| {
        let forgotten = world.is_forgotten(**at) && !world.stored.contains_key(at);
        !world.is_lost(at.epoch) && !forgotten
    };
    let Some(first) = tries.acked.iter().find(lasting).or(tries.acked.first()) else {
        return;
    };
    for other in tries.acked.iter().filter(lasting).filter(|it| *it != first) {
        verdict.found(Anomaly::Divergent, || {
            format!("{} was acknowledged at {first} and at {other}", message.id)
        });
    }
    match world.stored.get(first) {
        None if gone(first) => {}
        None => verdict.found(Anomaly::Lost, || {
            format!(
                "{} was acknowledged at {first} of {}, where nothing is",
                message.id, message.channel
            )
        }),
        Some((channel, content)) => {
            let same = *channel == message.channel && tries.content.as_ref() == Some(content);
            if !same {
                verdict.found(Anomaly::Divergent, || {
                    format!(
                        "{} was acknowledged at {first}, where {content} of {channel} is",
                        message.id
                    )
                });
            }
        }
    }
}
