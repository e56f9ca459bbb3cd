//! What an edge has told others of each life of a stream, and what an
//! archiver hears of it from all edges: state machines without I/O.
//!
//! A stream that is deleted takes with it what was not archived yet. Whether
//! that was anything, only those know who saw it: the edges that acknowledged
//! or delivered it. So each says with every heartbeat how far it has got, and
//! with the first one after a stream became another how far it had got in the
//! one before; from then on it tells nobody of more. Whoever cannot be heard
//! leaves the archiver in doubt, and doubt means a reset for old cursors.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use delivery::archive::Told;
use protocol::Epoch;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Ended lives that an edge remembers of each stream: an archiver asks about
/// one within seconds after it has ended.
const PAST_MAX: usize = 4;

/// For so long an edge that is silent is asked for all the same. Longer than
/// the archive trusts what it saw last, and than any pause of a process from
/// which it comes back unnoticed.
const KNOWN: Duration = Duration::from_secs(120);

/// Edges that are remembered, with those that were replaced.
const EDGES_MAX: usize = 2_048;

/// From looking at a stream until the archive has noted that somebody did: a
/// write gives up after this.
const NOTED: Duration = Duration::from_secs(10);

/// Within this everybody who is there was heard: two heartbeats.
const HEARD: Duration = Duration::from_secs(2);

/// How far an edge has got in one life of a stream; part of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    shard: u16,
    epoch: Epoch,
    /// The highest sequence that it told anybody of.
    highest: u64,
    /// It knows that this life has ended, and tells nobody of more.
    over: bool,
}

/// How far this process has got in the lives of one stream.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    current: Option<Reached>,
    /// Newest last.
    past: VecDeque<Reached>,
}

#[derive(Debug, Clone, Copy)]
struct Reached {
    epoch: Epoch,
    /// The highest sequence that was told.
    highest: u64,
    /// Others were told that there is no more.
    sealed: bool,
}

impl Reached {
    fn reach(&mut self, seq: u64) -> bool {
        if !self.sealed {
            self.highest = self.highest.max(seq);
        }
        seq <= self.highest
    }
}

impl Progress {
    /// The stream is in this life, and has reached this sequence.
    pub(crate) fn lives(&mut self, epoch: Epoch, last: u64) {
        if let Some(current) = &mut self.current {
            if current.epoch == epoch {
                current.reach(last);
                return;
            }
            if self.past.len() == PAST_MAX {
                self.past.pop_front();
            }
            self.past.push_back(*current);
        }
        self.current = Some(Reached {
            epoch,
            highest: last,
            sealed: false,
        });
    }

    /// Whether somebody may be told of this position: not of one in a life of
    /// which others were told that it ended before.
    pub(crate) fn tell(&mut self, epoch: Epoch, seq: u64) -> bool {
        let known = self.past.iter_mut().chain(&mut self.current);
        let mut of_epoch = known.filter(|it| it.epoch == epoch);
        of_epoch.next().is_some_and(|it| it.reach(seq))
    }

    /// For a heartbeat. What it calls over stays as it is from now on; and
    /// all of it if this process is `leaving`.
    pub(crate) fn report(&mut self, shard: u16, leaving: bool) -> Vec<Life> {
        let past = self.past.iter_mut().map(|it| (it, true));
        let current = self.current.iter_mut().map(|it| (it, leaving));
        past.chain(current)
            .map(|(it, over)| {
                it.sealed |= over;
                Life {
                    shard,
                    epoch: it.epoch,
                    highest: it.highest,
                    over,
                }
            })
            .collect()
    }
}

/// An edge process, as its heartbeats show it.
#[derive(Debug)]
struct Witness {
    heard: Instant,
    /// Since when it is known to have ended.
    ended: Option<Instant>,
    lives: Vec<Life>,
}

/// What an archiver heard of all edges.
#[derive(Debug, Default)]
pub(crate) struct Witnesses {
    /// Since when every edge is heard.
    listening: Option<Instant>,
    /// By name, and by process under that name.
    edges: BTreeMap<(Box<str>, u64), Witness>,
}

impl Witnesses {
    /// From now on every edge is heard.
    pub(crate) fn listen(&mut self, at: Instant) {
        self.listening = Some(at);
    }

    /// A heartbeat, or the last word of an edge that leaves.
    pub(crate) fn heard(
        &mut self,
        edge: &str,
        process: u64,
        lives: Vec<Life>,
        leaves: bool,
        at: Instant,
    ) {
        self.edges.retain(|_, it| it.heard + KNOWN >= at);
        let key = (edge.into(), process);
        if !self.edges.contains_key(&key) {
            if self.edges.len() >= EDGES_MAX {
                // Somebody is not listened to.
                self.listening = self.listening.map(|_| at);
                return;
            }
            // A process that comes under a name takes the place of another.
            let same_name = self
                .edges
                .iter_mut()
                .filter(|((name, _), _)| **name == *edge);
            for (_, before) in same_name {
                before.ended.get_or_insert(at);
            }
        }
        let witness = Witness {
            heard: at,
            // Whoever speaks is there.
            ended: leaves.then_some(at),
            lives,
        };
        self.edges.insert(key, witness);
    }

    /// How far any edge told anybody of the ended life of a stream that is in
    /// the life `next` now, and was last looked at at `seen`.
    pub(crate) fn told(&self, shard: u16, ended: Epoch, next: Epoch, seen: Instant) -> Told {
        if self.listening.is_none_or(|since| since + HEARD > seen) {
            return Told::Unknown;
        }
        let asked = self.edges.values().filter(|it| {
            // Whatever it told before it ended was seen.
            it.ended.is_none_or(|ended| ended + NOTED > seen)
        });
        let mut told = asked.map(|it| it.told(shard, ended, next));
        let highest = told.try_fold(0, |highest, it| Some(it?.max(highest)));
        highest.map_or(Told::NotYet, Told::Through)
    }
}

impl Witness {
    fn told(&self, shard: u16, ended: Epoch, next: Epoch) -> Option<u64> {
        let life = |epoch: Epoch| {
            let mut of_shard = self.lives.iter().filter(|it| it.shard == shard);
            of_shard.find(|it| it.epoch == epoch)
        };
        match life(ended) {
            Some(life) => life.over.then_some(life.highest),
            // It came later: one that knows the next life never gets to know
            // one before it.
            None => life(next).map(|_| 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Epoch = Epoch(1);
    const NEW: Epoch = Epoch(2);

    fn told_of(old: u64, new: Option<u64>) -> Progress {
        let mut told = Progress::default();
        told.lives(OLD, old);
        if let Some(new) = new {
            told.lives(NEW, new);
        }
        told
    }

    #[test]
    fn after_it_was_called_over_nobody_is_told_of_more() {
        let mut told = told_of(5, None);
        assert!(told.tell(OLD, 7));
        assert!(!told.tell(NEW, 1), "not known yet");
        told.lives(NEW, 0);
        assert!(told.tell(OLD, 8), "an acknowledgement that came late");
        let report = told.report(0, false);
        assert_eq!(
            (report[0].epoch, report[0].highest, report[0].over),
            (OLD, 8, true)
        );
        assert_eq!((report[1].epoch, report[1].over), (NEW, false));
        assert!(told.tell(OLD, 8) && !told.tell(OLD, 9));
        assert_eq!(told.report(0, false)[0].highest, 8);
        assert!(told.tell(NEW, 3));
        assert!(told.report(0, true)[1].over);
        assert!(!told.tell(NEW, 4), "it has left");
    }

    #[test]
    fn a_shorter_copy_does_not_take_back_what_was_told() {
        let mut told = told_of(9, None);
        told.lives(OLD, 4);
        assert_eq!(told.report(0, false)[0].highest, 9);
    }

    /// Seconds after the archiver began to listen.
    fn at(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn an_ended_life_is_known_once_everybody_has_called_it_over() {
        let begin = Instant::now();
        let mut all = Witnesses::default();
        assert_eq!(
            all.told(0, OLD, NEW, at(begin, 60)),
            Told::Unknown,
            "nobody listens"
        );
        all.listen(begin);
        let asked = |all: &Witnesses| all.told(0, OLD, NEW, at(begin, 60));
        assert_eq!(asked(&all), Told::Through(0), "there is nobody");
        assert_eq!(
            all.told(0, OLD, NEW, at(begin, 1)),
            Told::Unknown,
            "too soon"
        );
        let (mut a, mut b) = (told_of(5, None), told_of(7, None));
        all.heard("a", 1, a.report(0, false), false, at(begin, 59));
        all.heard("b", 2, b.report(0, false), false, at(begin, 59));
        assert_eq!(
            asked(&all),
            Told::NotYet,
            "neither knows yet that it is over"
        );
        a.lives(NEW, 0);
        b.lives(NEW, 0);
        all.heard("a", 1, a.report(0, false), false, at(begin, 61));
        assert_eq!(asked(&all), Told::NotYet, "the other may know of more");
        all.heard("b", 2, b.report(0, false), false, at(begin, 61));
        assert_eq!(asked(&all), Told::Through(7));
        // One that starts knows only the new life, or nothing yet.
        all.heard("c", 3, Vec::new(), false, at(begin, 62));
        assert_eq!(asked(&all), Told::NotYet);
        let mut c = Progress::default();
        c.lives(NEW, 3);
        all.heard("c", 3, c.report(0, false), false, at(begin, 63));
        assert_eq!(asked(&all), Told::Through(7));
    }

    #[test]
    fn who_ended_before_the_stream_was_last_seen_is_not_asked() {
        let begin = Instant::now();
        let mut all = Witnesses::default();
        all.listen(begin);
        let mut a = told_of(5, None);
        all.heard("a", 1, a.report(0, false), false, at(begin, 10));
        // The same name in a new process, which knows the new life only.
        let mut again = Progress::default();
        again.lives(NEW, 0);
        all.heard("a", 2, again.report(0, false), false, at(begin, 11));
        assert_eq!(
            all.told(0, OLD, NEW, at(begin, 12)),
            Told::NotYet,
            "it may have died later"
        );
        assert_eq!(all.told(0, OLD, NEW, at(begin, 30)), Told::Through(0));
        // A second process under one name that goes on is asked.
        all.heard("a", 1, a.report(0, false), false, at(begin, 31));
        assert_eq!(all.told(0, OLD, NEW, at(begin, 30)), Told::NotYet);
        // Whoever leaves says so.
        assert!(a.tell(OLD, 6));
        all.heard("a", 1, a.report(0, true), true, at(begin, 32));
        assert_eq!(all.told(0, OLD, NEW, at(begin, 30)), Told::Through(6));
    }

    #[test]
    fn a_fleet_that_is_too_large_to_be_remembered_leaves_doubt() {
        let begin = Instant::now();
        let mut all = Witnesses::default();
        all.listen(begin);
        let mut told = told_of(1, Some(0));
        for process in 0..=EDGES_MAX as u64 {
            let name = format!("edge-{process}");
            all.heard(&name, process, told.report(0, false), false, at(begin, 60));
        }
        assert_eq!(all.edges.len(), EDGES_MAX);
        assert_eq!(all.told(0, OLD, NEW, at(begin, 60)), Told::Unknown);
    }
}
