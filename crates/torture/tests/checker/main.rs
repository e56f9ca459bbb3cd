//! The checker finds every anomaly that is seeded into a good history, and nothing in a good one.

mod good;
mod seeded;

use proptest::prelude::*;
use torture::checker::{Anomaly, check};

use good::Shape;

fn shape() -> impl Strategy<Value = Shape> {
    (any::<u64>(), 20..160_usize, any::<bool>(), any::<bool>()).prop_map(
        |(seed, steps, epochs, retention)| Shape {
            seed,
            steps,
            epochs,
            retention,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_good_history_is_clean(shape in shape()) {
        let good = good::run(&shape);
        let verdict = check(&good.events, &good.truth);
        prop_assert_eq!(verdict.anomalies(), 0, "{:#?}", verdict.findings);
    }
}

/// Seeds an anomaly into many good histories. Each one that can hold it must be found out.
fn every_one_is_caught(anomaly: Anomaly, seed_it: seeded::Mutation) {
    let mut seeded = 0;
    for seed in 0..150_u64 {
        let shape = Shape {
            seed,
            steps: 20 + (seed as usize % 120),
            epochs: seed.is_multiple_of(3),
            retention: seed.is_multiple_of(4),
        };
        let mut history = good::run(&shape);
        if !seed_it(&mut history, seed) {
            continue;
        }
        seeded += 1;
        let verdict = check(&history.events, &history.truth);
        assert!(
            verdict.count(anomaly) > 0,
            "seed {seed}: {anomaly} was not noticed; found: {:#?}",
            verdict.findings
        );
    }
    assert!(seeded >= 10, "only {seeded} histories could hold it");
}

macro_rules! caught {
    ($($name:ident: $anomaly:ident by $mutation:ident),+ $(,)?) => {
        $(#[test]
        fn $name() { every_one_is_caught(Anomaly::$anomaly, seeded::$mutation); })+
    };
}

caught! {
    a_message_that_never_arrives: Lost by never_arrives,
    an_acknowledged_message_that_is_not_stored: Lost by not_stored,
    a_message_that_nobody_published: Phantom by nobody_published,
    a_message_that_is_stored_nowhere: Phantom by stored_nowhere,
    a_message_before_it_was_published: Phantom by before_it_was_published,
    a_stored_message_that_nobody_published: Phantom by stored_unpublished,
    a_message_twice_in_a_session: Duplicate by twice_in_a_session,
    a_message_before_the_cursor: Duplicate by before_the_cursor,
    a_message_that_is_stored_twice: Duplicate by stored_twice,
    two_messages_in_the_wrong_order: Reorder by wrong_order,
    a_hole_in_a_session: Gap by hole,
    a_prev_that_tells_of_another_message: Gap by told_of_another,
    another_content: Divergent by another_content,
    another_id: Divergent by another_id,
    an_ack_of_another_position: Divergent by ack_elsewhere,
    a_live_that_skips: SilentReset by skips_at_live,
    a_subscribed_that_skips: SilentReset by skips_at_subscribed,
    a_reset_without_need: FalseReset by reset_without_need,
    a_refused_message_that_exists: FailedButDelivered by refused_but_stored,
    a_row_that_is_missing: ArchiveMismatch by row_missing,
    a_row_that_is_there_twice: ArchiveMismatch by row_twice,
    a_row_that_differs: ArchiveMismatch by row_differs,
    a_row_that_the_stream_does_not_have: ArchiveMismatch by row_too_many,
}
