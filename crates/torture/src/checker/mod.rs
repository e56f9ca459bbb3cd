//! Counts the anomalies of a history: everything that the delivery contract excludes.
//!
//! The checker is pure. It is given what clients and publishers saw, and what the stream and the archive hold after
//! everything has come to rest; it knows nothing of how either came about. `tests/checker` proves that it notices: every
//! anomaly is seeded into good histories and has to be found.

mod publishes;
mod sessions;
mod truth;

use std::fmt;

use crate::history::Event;

pub use truth::{Stored, Truth};

/// One way to break the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Anomaly {
    /// A stored message never reached a subscriber who was entitled to it and not told of a reset, or an acknowledged
    /// one is not stored.
    Lost,
    /// A message that nobody published, that is stored nowhere, or that came before it was published.
    Phantom,
    /// A message twice in one session, at or before the cursor that the client came with, or stored twice.
    Duplicate,
    /// A message behind one with a higher position.
    Reorder,
    /// A message while an earlier one of the channel had not come.
    Gap,
    /// One position with two contents, or one id with two positions.
    Divergent,
    /// The position moved over messages without them and without a reset.
    SilentReset,
    /// A reset although continuity could be proved.
    FalseReset,
    /// A message of which every try was refused, and which exists nevertheless.
    FailedButDelivered,
    /// Archive and stream (or what was acknowledged) do not say the same.
    ArchiveMismatch,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Phantom,
        Self::Duplicate,
        Self::Reorder,
        Self::Gap,
        Self::Divergent,
        Self::SilentReset,
        Self::FalseReset,
        Self::FailedButDelivered,
        Self::ArchiveMismatch,
    ];

    /// As the head of a column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Gap => "gap",
            Self::Divergent => "divergent",
            Self::SilentReset => "silent reset",
            Self::FalseReset => "false reset",
            Self::FailedButDelivered => "failed but delivered",
            Self::ArchiveMismatch => "archive mismatch",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Descriptions that are kept; anomalies beyond are only counted.
const FINDINGS_MAX: usize = 200;

/// What the checker found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    counts: [u64; Anomaly::ALL.len()],
    /// The first of them, in words.
    pub findings: Vec<(Anomaly, String)>,
    /// Messages that publishers tried to store.
    pub published: u64,
    /// Those that were acknowledged.
    pub acknowledged: u64,
    /// Messages that arrived, repeats of later sessions included.
    pub deliveries: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Resets that clients were told of.
    pub resets: u64,
}

impl Verdict {
    /// How often this anomaly was found.
    #[must_use]
    pub const fn count(&self, anomaly: Anomaly) -> u64 {
        self.counts[anomaly.index()]
    }

    /// All anomalies together.
    #[must_use]
    pub fn anomalies(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn found(&mut self, anomaly: Anomaly, words: impl FnOnce() -> String) {
        self.counts[anomaly.index()] += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push((anomaly, words()));
        }
    }

    /// Adds another run's figures.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings
            .extend(other.findings.iter().take(room).cloned());
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.deliveries += other.deliveries;
        self.sessions += other.sessions;
        self.resets += other.resets;
    }
}

/// Checks a whole history. Everything must have come to rest before `truth` was read: publishers have stopped, the archive
/// is complete, and every client that has not left had its time to become live and quiet.
#[must_use]
pub fn check(history: &[Event], truth: &Truth) -> Verdict {
    let mut verdict = Verdict::default();
    let world = truth::World::new(history, truth, &mut verdict);
    publishes::check(history, &world, &mut verdict);
    sessions::check(history, &world, &mut verdict);
    verdict
}
