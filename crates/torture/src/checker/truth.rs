//! What is stored, put together from all that know.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use protocol::{Channel, Cursor, Epoch};

use super::{Anomaly, Verdict};
use crate::history::{Event, What};

/// A message as a log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its channel.
    pub channel: Channel,
    /// Its position.
    pub cursor: Cursor,
    /// Its payload.
    pub content: Arc<str>,
}

/// What the logs hold at the end.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// The lives of each stream, in order; the last one is the present. Streams of several shards may be listed one after
    /// the other, as their epochs never meet in one channel.
    pub epochs: Vec<Epoch>,
    /// What the streams hold.
    pub stream: Vec<Stored>,
    /// Per epoch, the first sequence that its stream still holds, or would hold.
    pub stream_first: HashMap<Epoch, u64>,
    /// What the archive holds, if there is one.
    pub archive: Option<Vec<Stored>>,
}

/// A position that can be compared within its channel: the epoch's place in order, and the sequence.
pub(super) type Place = (usize, u64);

/// Everything known of what was stored.
pub(super) struct World {
    places: HashMap<Epoch, usize>,
    epochs: Vec<Epoch>,
    /// Content by position, of stream and archive.
    pub(super) stored: HashMap<Cursor, (Channel, Arc<str>)>,
    /// Per channel, the places of what is or was stored: in a log, or acknowledged.
    log: BTreeMap<Channel, BTreeSet<Place>>,
    /// Epochs that were destroyed before all was archived.
    lost: HashSet<Epoch>,
    /// Epochs that were destroyed at all.
    ended: HashSet<Epoch>,
    forgotten: Option<Place>,
    /// Per epoch, the highest sequence that is known.
    last: HashMap<Epoch, u64>,
}

impl World {
    pub(super) fn new(history: &[Event], truth: &Truth, verdict: &mut Verdict) -> Self {
        let places = truth.epochs.iter().enumerate().map(|(at, it)| (*it, at));
        let mut world = Self {
            places: places.collect(),
            epochs: truth.epochs.clone(),
            stored: HashMap::new(),
            log: BTreeMap::new(),
            lost: HashSet::new(),
            ended: HashSet::new(),
            forgotten: None,
            last: HashMap::new(),
        };
        for event in history {
            match &event.what {
                What::EpochEnded { epoch, archived } => {
                    world.ended.insert(*epoch);
                    if !archived {
                        world.lost.insert(*epoch);
                    }
                }
                What::Forgotten { through } => {
                    let place = world.place(*through);
                    world.forgotten = world.forgotten.max(place);
                }
                What::Acked { message, cursor } => world.know(&message.channel, *cursor),
                _ => {}
            }
        }
        for stored in &truth.stream {
            world.hold(stored, "the stream", verdict);
        }
        if let Some(archive) = &truth.archive {
            world.compare(truth, archive, verdict);
            for stored in archive {
                world.hold(stored, "the archive", verdict);
            }
        }
        world
    }

    /// Both hold the same, where both are to hold it.
    fn compare(&self, truth: &Truth, archive: &[Stored], verdict: &mut Verdict) {
        let mut rows: HashMap<Cursor, &Stored> = HashMap::new();
        for row in archive {
            if rows.insert(row.cursor, row).is_some() {
                let at = row.cursor;
                verdict.found(Anomaly::ArchiveMismatch, || format!("archived twice: {at}"));
            }
        }
        let in_stream: HashSet<Cursor> = truth.stream.iter().map(|it| it.cursor).collect();
        for message in &truth.stream {
            let same = rows.get(&message.cursor).map(|row| *row == message);
            match same {
                Some(true) => {}
                None if self.is_forgotten(message.cursor) => {}
                None => verdict.found(Anomaly::ArchiveMismatch, || {
                    format!("not archived: {} of {}", message.cursor, message.channel)
                }),
                Some(false) => verdict.found(Anomaly::ArchiveMismatch, || {
                    format!(
                        "archived otherwise: {} of {}",
                        message.cursor, message.channel
                    )
                }),
            }
        }
        for row in archive {
            let first = truth.stream_first.get(&row.cursor.epoch);
            let expected = first.is_some_and(|first| row.cursor.seq >= *first);
            if expected && !in_stream.contains(&row.cursor) {
                verdict.found(Anomaly::ArchiveMismatch, || {
                    format!("archived, but not in the stream: {}", row.cursor)
                });
            }
        }
    }

    fn hold(&mut self, stored: &Stored, whose: &str, verdict: &mut Verdict) {
        let value = (stored.channel.clone(), stored.content.clone());
        let at = stored.cursor;
        match self.stored.insert(at, value.clone()) {
            Some(other) if other != value => verdict.found(Anomaly::Divergent, || {
                format!("{at} is {value:?} in {whose}, and {other:?} elsewhere")
            }),
            _ => {}
        }
        self.know(&stored.channel, at);
    }

    fn know(&mut self, channel: &Channel, at: Cursor) {
        if let Some(place) = self.place(at) {
            self.log.entry(channel.clone()).or_default().insert(place);
            let last = self.last.entry(at.epoch).or_default();
            *last = at.seq.max(*last);
        }
    }

    /// Where a position stands; nothing if its epoch never was.
    pub(super) fn place(&self, at: Cursor) -> Option<Place> {
        Some((*self.places.get(&at.epoch)?, at.seq))
    }

    pub(super) fn cursor(&self, place: Place) -> Cursor {
        Cursor::new(self.epochs[place.0], place.1)
    }

    /// The channel's messages after one position, up to and with another.
    pub(super) fn between(
        &self,
        channel: &Channel,
        after: Place,
        through: Place,
    ) -> impl Iterator<Item = Place> {
        let after_bound = std::ops::Bound::Excluded(after);
        let through_bound = std::ops::Bound::Included(through);
        let log = self.log.get(channel).filter(|_| after < through);
        log.into_iter()
            .flat_map(move |log| log.range((after_bound, through_bound)).copied())
    }

    /// The channel's messages after a position.
    pub(super) fn after(&self, channel: &Channel, after: Place) -> impl Iterator<Item = Place> {
        self.between(channel, after, (usize::MAX, u64::MAX))
    }

    /// Whether what an epoch held may be gone.
    pub(super) fn is_lost(&self, epoch: Epoch) -> bool {
        self.lost.contains(&epoch)
    }

    /// Whether this epoch's stream was destroyed.
    pub(super) fn has_ended(&self, epoch: Epoch) -> bool {
        self.ended.contains(&epoch)
    }

    /// Whether an epoch at or after this position's was destroyed before it was archived.
    pub(super) fn loses_after(&self, place: Place) -> bool {
        self.epochs[place.0..].iter().any(|it| self.is_lost(*it))
    }

    /// Whether retention may have taken it.
    pub(super) fn is_forgotten(&self, at: Cursor) -> bool {
        let place = self.place(at);
        place.is_some() && place <= self.forgotten
    }

    /// Whether retention may have taken something after it.
    pub(super) fn is_before_retention(&self, place: Place) -> bool {
        self.forgotten.is_some_and(|through| place < through)
    }

    /// The highest sequence that is known in an epoch.
    pub(super) fn last_of(&self, epoch: Epoch) -> u64 {
        self.last.get(&epoch).copied().unwrap_or(0)
    }
}
