//! The stream as the archiver reads it.

use std::time::Duration;

use delivery::Stream;
use delivery::archive::{ArchiveSource, SourceBatch};

use crate::support::{World, text};

const WAIT: Duration = Duration::from_secs(5);

fn seqs(batch: &SourceBatch) -> Vec<u64> {
    batch.messages.iter().map(|one| one.message.seq()).collect()
}

/// What comes up to `last`, acknowledged. A batch is what had arrived: it may
/// be cut anywhere.
async fn archived_through(source: &impl ArchiveSource, last: u64) -> Vec<u64> {
    let mut archived = Vec::new();
    while archived.last() != Some(&last) {
        let batch = source.next_batch(100, WAIT).await.unwrap();
        let Some(&end) = seqs(&batch).last() else {
            panic!("nothing follows {archived:?}, where {last} should");
        };
        archived.extend(seqs(&batch));
        source.ack_through(end).await.unwrap();
    }
    archived
}

#[tokio::test]
async fn batches_follow_what_is_acknowledged() {
    let world = World::new(1).await;
    for n in 0..10 {
        world.publish("room:1", &n.to_string()).await;
    }
    let source = world.backplane.archive_source(0);
    let state = source.state().await.unwrap();
    assert_eq!((state.first, state.last), (1, 10));
    assert!(state.bytes > 0 && state.max_bytes == 64 << 20);

    let first = source.next_batch(4, WAIT).await.unwrap();
    let read = seqs(&first);
    assert!(
        read.len() <= 4 && [1, 2, 3, 4].starts_with(&read),
        "{read:?}"
    );
    assert!(first.pending >= 6, "all ten were there: {first:?}");
    assert_eq!(text(&first.messages[0].message), "0");
    assert_eq!(first.messages[0].scope.as_deref(), Some("u.42"));
    // Not archived, it comes again.
    let again = source.next_batch(4, WAIT).await.unwrap();
    assert_eq!(seqs(&again), read);
    source.ack_through(1).await.unwrap();
    let rest = source.next_batch(4, WAIT).await.unwrap();
    assert_eq!(rest.messages[0].message.seq(), 2);

    // Another archiver takes over while a batch is under way.
    drop(source);
    let source = world.backplane.archive_source(0);
    assert_eq!(
        archived_through(&source, 10).await,
        [2, 3, 4, 5, 6, 7, 8, 9, 10]
    );
    let nothing = source.next_batch(100, Duration::from_millis(50)).await;
    let nothing = nothing.unwrap();
    assert_eq!((seqs(&nothing), nothing.pending), (vec![], 0));

    let info = world
        .api("CONSUMER.INFO.REJOIN_0.archiver", ().into())
        .await;
    assert_eq!(info["ack_floor"]["stream_seq"], 10, "{info}");

    source.rewind(7).await.unwrap();
    let again = source.next_batch(100, WAIT).await.unwrap();
    assert_eq!(again.messages[0].message.seq(), 8);
    // Beyond what was read: as good as a rewind.
    source.ack_through(10).await.unwrap();
    let source = world.backplane.archive_source(0);
    source.ack_through(9).await.unwrap();
    source.rewind(0).await.unwrap();
    source.ack_through(8).await.unwrap();
    assert_eq!(archived_through(&source, 10).await, [9, 10]);
}

/// What the last message of a cut batch says is behind it is of when it was
/// sent: here nothing, although the third message has arrived.
#[tokio::test]
async fn a_batch_that_was_cut_is_not_the_end() {
    let world = World::new(1).await;
    let source = world.backplane.archive_source(0);
    let nothing = source.next_batch(2, Duration::from_millis(50)).await;
    assert_eq!(seqs(&nothing.unwrap()), [0u64; 0]);
    for n in 1..=3 {
        world.publish("room:1", "x").await;
        // Sent before the next one is stored.
        loop {
            let info = world
                .api("CONSUMER.INFO.REJOIN_0.archiver", ().into())
                .await;
            if info["delivered"]["stream_seq"] == n {
                break;
            }
        }
    }
    // Sent is not arrived: on a busy machine a batch may be shorter.
    let cut = source.next_batch(2, WAIT).await.unwrap();
    let read = seqs(&cut);
    assert!(
        read == [1] || (read == [1, 2] && cut.pending >= 1),
        "{cut:?}"
    );
    source.ack_through(1).await.unwrap();
    assert_eq!(archived_through(&source, 3).await, [2, 3]);
}

#[tokio::test]
async fn live_messages_are_batched_as_they_come() {
    let world = World::new(1).await;
    let source = world.backplane.archive_source(0);
    let waiting = source.next_batch(100, WAIT);
    let (batch, published) = tokio::join!(waiting, world.publish("room:1", "x"));
    assert_eq!(seqs(&batch.unwrap()), [published.cursor.seq]);
    source.ack_through(published.cursor.seq).await.unwrap();
    // Dropped calls lose nothing.
    for n in 0..20 {
        let impatient = source.next_batch(100, WAIT);
        let _ = tokio::time::timeout(Duration::from_micros(n * 50), impatient).await;
        world.publish("room:1", &n.to_string()).await;
    }
    let mut got = Vec::new();
    while got.len() < 20 {
        let batch = source.next_batch(7, WAIT).await.unwrap();
        got.extend(seqs(&batch));
        source.ack_through(*got.last().unwrap()).await.unwrap();
    }
    assert_eq!(got, (2..=21).collect::<Vec<_>>());
}

#[tokio::test]
async fn foreign_messages_without_a_channel_do_not_block() {
    let world = World::new(1).await;
    let client = world.foreign().await;
    for _ in 0..3 {
        let subject = "rejoin.msg.0.room.sp%ce";
        client.request(subject, "x".into()).await.unwrap();
    }
    let source = world.backplane.archive_source(0);
    let nothing = source.next_batch(10, Duration::from_millis(50)).await;
    assert_eq!(seqs(&nothing.unwrap()), Vec::<u64>::new());
    world.publish("room:1", "x").await;
    let batch = source.next_batch(10, WAIT).await.unwrap();
    assert_eq!(seqs(&batch), [4]);
    // Nor are they a gap that the archiver would wait for.
    assert_eq!(source.time_of(2).await.unwrap(), None);
    assert!(source.time_of(4).await.unwrap().is_some());
}

#[tokio::test]
async fn trimming_is_bounded_by_the_stream() {
    let world = World::new(1).await;
    for _ in 0..5 {
        world.publish("room:1", "x").await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let source = world.backplane.archive_source(0);
    let third = source.time_of(3).await.unwrap().unwrap();
    assert_eq!(source.time_of(6).await.unwrap(), None);
    assert_eq!(source.time_of(0).await.unwrap(), None);
    assert_eq!(source.last_before(third).await.unwrap(), Some(2));
    assert_eq!(source.last_before(0).await.unwrap(), None);
    assert_eq!(
        source.last_before(third + 3_600_000).await.unwrap(),
        Some(5)
    );

    source.trim_through(2).await.unwrap();
    source.trim_through(1).await.unwrap();
    let state = source.state().await.unwrap();
    assert_eq!((state.first, state.last), (3, 5));
    assert!(source.trim_through(6).await.is_err(), "beyond the head");
    source.trim_through(5).await.unwrap();
    let state = source.state().await.unwrap();
    assert_eq!((state.first, state.last), (6, 5));
    assert_eq!(source.last_before(third).await.unwrap(), None);
    assert_eq!(world.publish("room:1", "x").await.cursor.seq, 6);
}

#[tokio::test]
async fn a_new_epoch_reaches_tails_publishers_and_the_archiver() {
    let world = World::new(1).await;
    let before = world.publish("room:1", "a").await.cursor;
    let mut reader = world.fill(0);
    reader.until(before).await;
    let source = world.backplane.archive_source(0);
    let batch = source.next_batch(10, WAIT).await.unwrap();
    assert_eq!(batch.messages[0].message.position, before);

    let epoch = source.begin_epoch().await.unwrap();
    assert_ne!(epoch, before.epoch);
    let head = world.backplane.stream_log().head(0).await.unwrap();
    assert_eq!((head.epoch, head.seq), (epoch, 1));
    let after = world.publish("room:1", "b").await.cursor;
    assert_eq!((after.epoch, after.seq), (epoch, 2));
    reader.until(after).await;
    assert_eq!(reader.data(), ["a", "a", "b"]);
    assert_eq!(reader.starts.len(), 2);
    let batch = source.next_batch(10, WAIT).await.unwrap();
    assert!(
        batch
            .messages
            .iter()
            .all(|one| one.message.position.epoch == epoch)
    );
}
