//! Which edges were heard of: a state machine without a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use delivery::fleet::Peer;
use tokio::time::Instant;

/// An edge that is silent for longer is not waited for, and its share of the
/// fleet's connects goes to the others: three beats.
const ALIVE: Duration = Duration::from_secs(3);

/// For so long an edge that is silent is named among those that do not
/// answer. Then it is forgotten, like one that said that it leaves.
const KNOWN: Duration = Duration::from_secs(60);

/// Edges that are remembered; a fleet of more would have other needs.
const EDGES_MAX: usize = 1_024;

/// The edges that were heard of.
#[derive(Debug)]
pub(super) struct Roster {
    own: Box<str>,
    edges: BTreeMap<Box<str>, Heard>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    takes_connections: bool,
}

impl Roster {
    pub(super) fn new(own: &str) -> Self {
        Self {
            own: own.into(),
            edges: BTreeMap::new(),
        }
    }

    /// An edge says that it is there. Returns whether it was not known.
    pub(super) fn heard(&mut self, edge: &str, takes_connections: bool, at: Instant) -> bool {
        let heard = Heard {
            at,
            takes_connections,
        };
        if let Some(known) = self.edges.get_mut(edge) {
            *known = heard;
        } else if self.edges.len() < EDGES_MAX {
            self.edges.insert(edge.into(), heard);
            return *edge != *self.own;
        }
        if *edge == *self.own {
            self.edges.retain(|_, known| known.at + KNOWN >= at);
        }
        false
    }

    /// An edge says that it leaves.
    pub(super) fn gone(&mut self, edge: &str) {
        self.edges.remove(edge);
    }

    /// The others. The clock is this edge's own beat: while it does not hear
    /// itself it is the one who is cut off, and says nothing about others.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let now = self.edges.get(&self.own).map(|own| own.at);
        let others = self.edges.iter().filter(|(name, _)| **name != self.own);
        others
            .map(|(name, heard)| Peer {
                name: name.clone(),
                alive: now.is_none_or(|now| heard.at + ALIVE >= now),
                takes_connections: heard.takes_connections,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(roster: &Roster) -> Vec<(String, bool)> {
        let peers = roster.peers().into_iter();
        peers.map(|peer| (peer.name.into(), peer.alive)).collect()
    }

    #[test]
    fn a_silent_edge_is_named_for_a_while_and_then_forgotten() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut roster = Roster::new("a");
        assert!(!roster.heard("a", true, begin), "itself");
        assert!(roster.heard("b", true, begin));
        assert!(!roster.heard("b", true, begin));
        assert_eq!(alive(&roster), [("b".to_owned(), true)]);
        roster.heard("a", true, after(3));
        assert_eq!(alive(&roster), [("b".to_owned(), true)]);
        roster.heard("a", true, after(4));
        assert_eq!(alive(&roster), [("b".to_owned(), false)]);
        roster.heard("a", true, after(61));
        assert_eq!(alive(&roster), []);
    }

    #[test]
    fn who_is_cut_off_says_nothing_about_the_others() {
        let begin = Instant::now();
        let mut roster = Roster::new("a");
        roster.heard("a", true, begin);
        roster.heard("b", true, begin);
        // However much later: neither is heard.
        assert_eq!(alive(&roster), [("b".to_owned(), true)]);
        roster.gone("b");
        assert_eq!(alive(&roster), []);
    }

    #[test]
    fn no_more_edges_are_remembered_than_that() {
        let mut roster = Roster::new("own");
        for number in 0..2 * EDGES_MAX {
            roster.heard(&format!("edge-{number}"), true, Instant::now());
        }
        assert_eq!(roster.peers().len(), EDGES_MAX);
    }
}
