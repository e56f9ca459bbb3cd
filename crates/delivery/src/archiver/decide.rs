//! What the archiver concludes from what it sees: no I/O, no clock.

use std::time::Duration;

use protocol::Epoch;

use crate::archive::{ArchivedEpoch, NewEpoch, SourceState};

/// How the stream relates to the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same life; archiving goes on after the watermark.
    Continue,
    /// The same life, but messages up to `floor` left the stream without
    /// having been archived.
    Lost { floor: u64 },
    /// The archive knows nothing of the shard yet.
    First,
    /// The stream carries the epoch that the archive knows, but is not that
    /// life any more: restored from a copy, or cut short by a crash.
    Restored,
    /// The stream carries another epoch.
    Replaced,
}

/// Compares the stream with the archive. `witnessed` is the time that the
/// stream has for the sequence of the archive's witness.
pub(crate) fn inspect(
    archived: Option<&ArchivedEpoch>,
    state: &SourceState,
    witnessed: Option<i64>,
) -> Verdict {
    let Some(archived) = archived else {
        return Verdict::First;
    };
    if archived.epoch != state.epoch {
        return Verdict::Replaced;
    }
    if state.last < archived.watermark.max(archived.observed) {
        return Verdict::Restored;
    }
    let differs = archived
        .witness
        .zip(witnessed)
        .is_some_and(|((_, archived), stored)| archived != stored);
    if differs {
        return Verdict::Restored;
    }
    let before_first = state.first.saturating_sub(1);
    if before_first > archived.watermark {
        return Verdict::Lost {
            floor: before_first,
        };
    }
    Verdict::Continue
}

/// Where a new epoch begins.
///
/// `common` is the newest sequence that the stream holds with the same
/// content as the archive has for the old epoch. `restored` says that the
/// stream still carried the old epoch's mark. `told` is the highest sequence
/// of the old epoch that anybody was told of, if everybody who may know was
/// heard.
pub(crate) fn new_epoch(
    epoch: Epoch,
    archived: Option<&ArchivedEpoch>,
    state: &SourceState,
    common: Option<u64>,
    restored: bool,
    max_evidence_age: Duration,
    told: Option<u64>,
) -> NewEpoch {
    let before_first = state.first.saturating_sub(1);
    let empty = state.last < state.first;
    let (start, floor) = match common {
        // What both have stays the old epoch's: nobody sees it twice.
        Some(common) => (common, common.max(before_first)),
        // A restored stream without messages goes on counting where the copy
        // was made; what came before is the old epoch's.
        None if restored && empty => (before_first, before_first),
        // Whatever the stream counted before its first message is unknown.
        None => (0, before_first),
    };
    NewEpoch {
        epoch,
        start,
        floor,
        previous_complete: archived.is_some_and(|archived| {
            may_be_complete(archived, max_evidence_age)
                && told.is_some_and(|told| told <= archived.watermark)
        }),
    }
}

/// Whether the archive may hold all of an epoch that has ended: the archiver
/// saw no more of it than is archived, and had looked recently. What came
/// after that look, and was lost with the stream, only the edges know: it is
/// complete if none of them told anybody of more.
pub(crate) fn may_be_complete(archived: &ArchivedEpoch, max_evidence_age: Duration) -> bool {
    archived.observed <= archived.watermark && archived.observed_age <= max_evidence_age
}

/// How far the stream may be trimmed: to the hot time, and further if that
/// leaves more than `byte_share` of the stream's limit; but never anything
/// that is not archived, and not the last archived message, which is the
/// witness of the epoch. `None` if there is nothing to trim.
pub(crate) fn trim_target(
    state: &SourceState,
    watermark: u64,
    older_than_hot: Option<u64>,
    byte_share: f64,
) -> Option<u64> {
    let by_age = older_than_hot.unwrap_or(0);
    let allowed = state.max_bytes as f64 * byte_share;
    let by_size = if state.max_bytes > 0 && state.bytes as f64 > allowed {
        // Sequences are taken as equally large: an error is made good by the
        // next round.
        let held = state.last.saturating_add(1).saturating_sub(state.first);
        let excess = 1.0 - allowed / state.bytes as f64;
        state
            .first
            .saturating_add((held as f64 * excess).ceil() as u64)
            .saturating_sub(1)
    } else {
        0
    };
    let target = by_age.max(by_size).min(watermark.saturating_sub(1));
    (target >= state.first && target > 0).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: Epoch = Epoch(1);
    const NEW: Epoch = Epoch(2);
    const FRESH: Duration = Duration::from_secs(60);

    fn archived(watermark: u64, observed: u64) -> ArchivedEpoch {
        ArchivedEpoch {
            epoch: OLD,
            start: 0,
            floor: 0,
            watermark,
            witness: (watermark > 0).then_some((watermark, watermark as i64 * 10)),
            observed,
            observed_age: Duration::ZERO,
        }
    }

    fn stream(epoch: Epoch, first: u64, last: u64) -> SourceState {
        SourceState {
            epoch,
            first,
            last,
            bytes: 0,
            max_bytes: 0,
        }
    }

    #[test]
    fn an_empty_archive_starts_where_the_stream_starts() {
        let state = stream(NEW, 11, 20);
        assert_eq!(inspect(None, &state, None), Verdict::First);
        let new = new_epoch(NEW, None, &state, None, false, FRESH, Some(0));
        assert_eq!((new.start, new.floor), (0, 10));
        assert!(!new.previous_complete);
    }

    #[test]
    fn the_same_life_goes_on() {
        let archived = archived(10, 10);
        for (first, last) in [(1, 10), (1, 15), (11, 10), (11, 15)] {
            let state = stream(OLD, first, last);
            assert_eq!(
                inspect(Some(&archived), &state, Some(100)),
                Verdict::Continue
            );
            assert_eq!(inspect(Some(&archived), &state, None), Verdict::Continue);
        }
    }

    #[test]
    fn a_purge_of_unarchived_messages_is_a_loss_and_one_of_archived_is_not() {
        let state = stream(OLD, 16, 15);
        assert_eq!(
            inspect(Some(&archived(10, 15)), &state, None),
            Verdict::Lost { floor: 15 }
        );
        assert_eq!(
            inspect(Some(&archived(15, 15)), &state, None),
            Verdict::Continue
        );
    }

    #[test]
    fn a_shorter_stream_or_another_time_at_the_witness_is_another_life() {
        let shorter = stream(OLD, 1, 9);
        assert_eq!(
            inspect(Some(&archived(10, 10)), &shorter, None),
            Verdict::Restored
        );
        let shorter_than_seen = stream(OLD, 1, 11);
        assert_eq!(
            inspect(Some(&archived(10, 12)), &shorter_than_seen, Some(100)),
            Verdict::Restored
        );
        let overgrown = stream(OLD, 1, 50);
        assert_eq!(
            inspect(Some(&archived(10, 10)), &overgrown, Some(101)),
            Verdict::Restored
        );
        assert_eq!(
            inspect(Some(&archived(10, 10)), &stream(NEW, 1, 50), Some(100)),
            Verdict::Replaced
        );
    }

    #[test]
    fn a_restored_copy_begins_where_it_parts_from_the_archive() {
        let state = stream(OLD, 1, 8);
        let archived = archived(10, 10);
        let told = Some(10);
        let new = new_epoch(NEW, Some(&archived), &state, Some(6), true, FRESH, told);
        assert_eq!((new.start, new.floor), (6, 6));
        assert!(new.previous_complete);
        let empty = stream(OLD, 6, 5);
        let new = new_epoch(NEW, Some(&archived), &empty, None, true, FRESH, told);
        assert_eq!((new.start, new.floor), (5, 5));
    }

    #[test]
    fn an_epoch_is_complete_only_on_recent_evidence_of_everybody() {
        let state = stream(NEW, 1, 0);
        let told = |archived: &ArchivedEpoch, told| {
            new_epoch(NEW, Some(archived), &state, None, false, FRESH, told).previous_complete
        };
        let complete = |archived: &ArchivedEpoch| told(archived, Some(10));
        assert!(complete(&archived(10, 10)));
        assert!(!complete(&archived(10, 11)));
        // Acknowledged after the archiver had looked, and lost with the stream.
        assert!(!told(&archived(10, 10), Some(11)));
        // Somebody who may know of such a message cannot be heard.
        assert!(!told(&archived(10, 10), None));
        let stale = ArchivedEpoch {
            observed_age: FRESH + Duration::from_millis(1),
            ..archived(10, 10)
        };
        assert!(!complete(&stale));
    }

    #[test]
    fn trimming_keeps_the_hot_time_and_the_byte_share() {
        let state = SourceState {
            bytes: 1_000,
            max_bytes: 1_000,
            ..stream(OLD, 1, 100)
        };
        assert_eq!(trim_target(&state, 100, Some(30), 1.0), Some(30));
        assert_eq!(trim_target(&state, 100, None, 1.0), None);
        assert_eq!(trim_target(&state, 100, None, 0.5), Some(50));
        assert_eq!(trim_target(&state, 40, None, 0.5), Some(39));
        assert_eq!(trim_target(&state, 0, Some(30), 0.5), None);
    }

    proptest! {
        /// Every small combination of archive and stream: nothing that the
        /// archive lacks is ever trimmed or passed over unmarked.
        #[test]
        fn nothing_unarchived_is_passed_over(
            watermark in 0u64..20, ahead in 0u64..5, first in 1u64..25, held in 0u64..20,
            same: bool, witnessed in proptest::option::of(0i64..200),
        ) {
            let archived = archived(watermark, watermark + ahead);
            let state = stream(if same { OLD } else { NEW }, first, first - 1 + held);
            match inspect(Some(&archived), &state, witnessed) {
                Verdict::Continue => {
                    prop_assert!(state.first <= watermark + 1);
                    prop_assert!(state.last >= watermark + ahead);
                    prop_assert!(same);
                }
                Verdict::Lost { floor } => prop_assert_eq!(floor + 1, state.first),
                Verdict::First => prop_assert!(false),
                Verdict::Restored => prop_assert!(same),
                Verdict::Replaced => prop_assert!(!same),
            }
        }

        #[test]
        fn only_archived_messages_are_trimmed(
            first in 1u64..1_000, held in 0u64..1_000, watermark in 0u64..2_000,
            age in proptest::option::of(0u64..3_000), bytes in 0u64..10_000,
            max_bytes in 0u64..10_000, share in 0.0f64..=1.0,
        ) {
            let state = SourceState {
                epoch: OLD, first, last: first - 1 + held, bytes, max_bytes,
            };
            if let Some(target) = trim_target(&state, watermark, age, share) {
                prop_assert!(target < watermark && target >= first);
            }
        }

        #[test]
        fn a_new_epoch_never_claims_what_it_cannot_have(
            first in 1u64..50, held in 0u64..50, common in proptest::option::of(0u64..50),
            restored: bool,
        ) {
            let state = stream(NEW, first, first - 1 + held);
            let common = common.filter(|c| *c >= state.first && *c <= state.last);
            let archived = archived(50, 50);
            let new =
                new_epoch(NEW, Some(&archived), &state, common, restored, FRESH, Some(50));
            prop_assert!(new.start <= new.floor);
            prop_assert!(new.floor + 1 >= state.first);
        }
    }
}
