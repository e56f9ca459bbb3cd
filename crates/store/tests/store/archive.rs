//! The archive as a log.

use std::sync::Arc;
use std::time::Duration;

use delivery::archive::{ArchiveBatch, ArchiveSink, History, SinkError, SourceMessage};
use delivery::{Log, Message, PageError, PageRequest};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use protocol::{Channel, Cursor, Epoch};
use store::{ArchiveLog, Sink, Store};

use crate::world::{EPOCH, HOUR_MS, START_MS, Writer, channel, message, store};

const NEXT_EPOCH: Epoch = Epoch(2);

fn request(channel: &Channel, after: Cursor, max_messages: usize) -> PageRequest {
    PageRequest {
        channel: channel.clone(),
        after,
        max_messages,
        max_bytes: 1 << 20,
    }
}

/// Reads a channel from a position to the archive's end, page by page.
async fn read_on(
    log: &ArchiveLog,
    channel: &Channel,
    mut after: Cursor,
    max_messages: usize,
    max_bytes: usize,
) -> (Vec<Message>, Cursor) {
    let mut messages = Vec::new();
    loop {
        let request = PageRequest {
            max_bytes,
            ..request(channel, after, max_messages)
        };
        let page = log.page(request).await.unwrap();
        assert!(page.messages.len() <= max_messages);
        let mut prev = 0;
        for message in &page.messages {
            assert_eq!(message.prev, prev);
            prev = message.seq();
        }
        let bytes: usize = page.messages.iter().map(|m| m.data.len()).sum();
        assert!(bytes <= max_bytes || page.messages.len() == 1);
        let moved = page.through != after.seq || page.next_epoch.is_some();
        assert!(moved || page.messages.is_empty());
        after.seq = page.through;
        messages.extend(page.messages);
        match page.next_epoch {
            Some(next) => after = Cursor::new(next, 0),
            None if moved => {}
            None => return (messages, after),
        }
    }
}

/// Messages that the plain model and the archive should agree on.
fn comparable(message: &Message) -> Message {
    Message {
        prev: 0,
        ..message.clone()
    }
}

#[derive(Debug, Clone)]
struct Plan {
    /// Channel, step of the sequence, step of the clock in hours, payload.
    messages: Vec<(u8, u64, i64, usize)>,
    /// How many messages a batch has.
    batch: usize,
    /// Where the first epoch ends, in messages.
    first_epoch: usize,
    max_messages: usize,
    max_bytes: usize,
}

fn plans() -> impl Strategy<Value = Plan> {
    let message = (0u8..3, 1u64..4, -30i64..60, 0usize..300);
    (
        proptest::collection::vec(message, 1..80),
        1usize..30,
        0usize..80,
        1usize..20,
        1usize..2_000,
    )
        .prop_map(
            |(messages, batch, first_epoch, max_messages, max_bytes)| Plan {
                messages,
                batch,
                first_epoch,
                max_messages,
                max_bytes,
            },
        )
}

async fn build(store: &Store, plan: &Plan) -> Vec<SourceMessage> {
    let mut writer = Writer::new(store, EPOCH).await;
    let (mut seq, mut time_ms) = (0, START_MS);
    let mut all = Vec::new();
    let split = plan.first_epoch.min(plan.messages.len());
    for (epoch, part) in [
        (EPOCH, &plan.messages[..split]),
        (NEXT_EPOCH, &plan.messages[split..]),
    ] {
        if epoch == NEXT_EPOCH {
            // As after a restored copy: the new epoch goes on counting.
            writer.begin(NEXT_EPOCH, seq, true).await;
        }
        for batch in part.chunks(plan.batch) {
            let messages: Vec<SourceMessage> = batch
                .iter()
                .map(|(number, step, hours, bytes)| {
                    seq += step;
                    time_ms += hours * HOUR_MS;
                    let mut message = message(epoch, seq, &format!("room:{number}"), time_ms);
                    message.message.data = vec![b'x'; *bytes].into();
                    message
                })
                .collect();
            writer.append(&messages).await;
            all.extend(messages);
        }
    }
    all
}

/// Pages, backward pages and counted positions over random archives, with
/// clocks that go back and partitions that change, equal a plain list.
#[tokio::test(flavor = "multi_thread")]
async fn reading_equals_a_plain_model() {
    let handle = tokio::runtime::Handle::current();
    let checked = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config {
            cases: 15,
            failure_persistence: None,
            ..Config::default()
        });
        runner.run(&plans(), |plan| {
            handle.block_on(check(&plan));
            Ok(())
        })
    });
    checked.await.unwrap().unwrap();
}

async fn check(plan: &Plan) {
    let store = store().await;
    let all = build(&store, plan).await;
    let log = ArchiveLog::new(&store);
    for number in 0..3 {
        let name = channel(&format!("room:{number}"));
        let expected: Vec<Message> = all
            .iter()
            .map(|m| m.message.clone())
            .filter(|m| m.channel == name)
            .collect();
        let start = Cursor::new(EPOCH, 0);
        let (messages, end) = read_on(&log, &name, start, plan.max_messages, plan.max_bytes).await;
        let read: Vec<Message> = messages.iter().map(comparable).collect();
        assert_eq!(read, expected, "forwards");
        assert_eq!(end.epoch, NEXT_EPOCH);

        // From every position, also between messages.
        for from in [0, expected.len() / 2, expected.len()] {
            let after = from.checked_sub(1).map_or(start, |n| expected[n].position);
            let (rest, _) = read_on(&log, &name, after, 100, 1 << 20).await;
            let rest: Vec<Message> = rest.iter().map(comparable).collect();
            assert_eq!(rest, expected[from..], "from the middle");
        }

        let mut backwards = Vec::new();
        let mut before = None;
        loop {
            let page = log
                .page_before(name.clone(), before, plan.max_messages, plan.max_bytes)
                .await
                .unwrap();
            backwards.extend(page.messages.iter().map(comparable));
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        backwards.reverse();
        assert_eq!(backwards, expected, "backwards");

        for count in [1, 2, 7, 1_000] {
            let position = log.before_last(name.clone(), end, count).await.unwrap();
            let (last, _) = read_on(&log, &name, position, 100, 1 << 20).await;
            let from = expected.len().saturating_sub(count);
            let last: Vec<Message> = last.iter().map(comparable).collect();
            assert_eq!(last, expected[from..], "last {count}");
        }
        let earliest = log.earliest(name.clone()).await.unwrap();
        let (from_earliest, _) = read_on(&log, &name, earliest, 100, 1 << 20).await;
        assert_eq!(from_earliest.len(), expected.len(), "from the earliest");
    }
    store.close().await;
}

#[tokio::test]
async fn every_part_of_a_message_comes_back() {
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    let plain = message(EPOCH, 1, "user:1", START_MS);
    let mut bare = message(EPOCH, 2, "user:1", START_MS + 1);
    bare.message.id = None;
    bare.message.sender = None;
    bare.message.kind = "".into();
    bare.message.data = vec![0, 255, 10].into();
    bare.scope = None;
    let mut named = message(EPOCH, 3, "user:1", START_MS + 2);
    named.message.id = Some(protocol::MessageId::parse("order-7").unwrap());
    named.message.traceparent =
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let messages = [plain, bare, named];
    writer.append(&messages).await;
    let log = ArchiveLog::new(&store);
    let page = log
        .page(request(&channel("user:1"), Cursor::new(EPOCH, 0), 10))
        .await
        .unwrap();
    let read: Vec<Message> = page.messages.iter().map(comparable).collect();
    let expected: Vec<Message> = messages.iter().map(|m| m.message.clone()).collect();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_header_that_postgres_cannot_hold_does_not_stop_the_archive() {
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    let mut odd = message(EPOCH, 1, "user:1", START_MS);
    odd.message.kind = "a\0b".into();
    writer.append(&[odd]).await;
    let log = ArchiveLog::new(&store);
    let page = log
        .page(request(&channel("user:1"), Cursor::new(EPOCH, 0), 10))
        .await
        .unwrap();
    assert_eq!(&*page.messages[0].kind, "ab");
}

#[tokio::test]
async fn what_the_archive_cannot_prove_it_refuses() {
    let store = store().await;
    let log = ArchiveLog::new(&store);
    let name = channel("user:1");
    // Nothing is archived yet.
    let error = log.earliest(name.clone()).await.unwrap_err();
    assert!(matches!(error, PageError::Unavailable { .. }));
    let unknown = request(&name, Cursor::new(EPOCH, 0), 10);
    assert_eq!(
        log.page(unknown.clone()).await.unwrap_err(),
        PageError::UnknownEpoch
    );

    let mut writer = Writer::new(&store, EPOCH).await;
    writer
        .append(&[message(EPOCH, 5, "user:1", START_MS)])
        .await;
    // Beyond the watermark it says nothing, and keeps the position.
    let beyond = log
        .page(request(&name, Cursor::new(EPOCH, 9), 10))
        .await
        .unwrap();
    assert_eq!((beyond.messages.len(), beyond.through), (0, 9));
    let ahead = Cursor::new(EPOCH, 9);
    let error = log.before_last(name.clone(), ahead, 1).await.unwrap_err();
    assert!(matches!(error, PageError::Unavailable { .. }));

    // An epoch that ended incompletely gives nothing any more.
    writer.begin(NEXT_EPOCH, 0, false).await;
    assert_eq!(
        log.page(unknown).await.unwrap_err(),
        PageError::UnknownEpoch
    );
    assert_eq!(
        log.earliest(name).await.unwrap(),
        Cursor::new(NEXT_EPOCH, 0)
    );
}

#[tokio::test]
async fn a_batch_is_written_once_and_only_from_the_watermark_on() {
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    let messages = [
        message(EPOCH, 1, "user:1", START_MS),
        message(EPOCH, 2, "user:2", START_MS),
    ];
    writer.append(&messages).await;
    let again = ArchiveBatch {
        messages: &messages,
        epoch: EPOCH,
        after: 0,
        watermark: 2,
        observed: 2,
        covered_ms: 0,
    };
    let error = writer.sink.append(&writer.lease, again).await.unwrap_err();
    assert!(matches!(error, SinkError::Moved { .. }), "{error}");
    let rows = store::archive::check::rows(&store, Cursor::new(EPOCH, 0), 100)
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_superseded_archiver_cannot_write() {
    let store = store().await;
    let sink = Sink::new(&store);
    let short = Duration::from_millis(50);
    let zombie = sink.acquire(0, "one", short).await.unwrap().unwrap();
    let mut writer = loop {
        // Refused until the lease has run out.
        match sink
            .acquire(0, "two", Duration::from_secs(60))
            .await
            .unwrap()
        {
            Some(lease) => {
                break Writer {
                    sink: Sink::new(&store),
                    lease,
                    epoch: EPOCH,
                    watermark: 0,
                };
            }
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(writer.lease.token > zombie.token);
    writer.begin(EPOCH, 0, false).await;
    writer
        .append(&[message(EPOCH, 1, "user:1", START_MS)])
        .await;

    let batch = ArchiveBatch {
        messages: &[message(EPOCH, 2, "user:1", START_MS)],
        epoch: EPOCH,
        after: 1,
        watermark: 2,
        observed: 2,
        covered_ms: 0,
    };
    assert_eq!(sink.append(&zombie, batch).await, Err(SinkError::Fenced));
    assert_eq!(
        sink.raise_floor(&zombie, EPOCH, 7).await,
        Err(SinkError::Fenced)
    );
    let new = delivery::archive::NewEpoch {
        epoch: NEXT_EPOCH,
        start: 0,
        floor: 0,
        previous_complete: true,
    };
    assert_eq!(
        sink.begin_epoch(&zombie, &new).await,
        Err(SinkError::Fenced)
    );
    assert_eq!(
        sink.acquire(0, "one", short).await.unwrap(),
        None,
        "the lease is the other's"
    );
    // The other is not disturbed.
    writer
        .append(&[message(EPOCH, 2, "user:1", START_MS)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_share_queries_and_each_gets_its_own_page() {
    const CHANNELS: u64 = 500;
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    let messages: Vec<SourceMessage> = (1..=CHANNELS * 20)
        .map(|seq| message(EPOCH, seq, &format!("user:{}", seq % CHANNELS), START_MS))
        .collect();
    writer.append(&messages).await;
    let log = Arc::new(ArchiveLog::new(&store));
    let readers = (0..CHANNELS).map(|number| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let name = channel(&format!("user:{number}"));
            let (messages, _) = read_on(&log, &name, Cursor::new(EPOCH, 0), 512, 1 << 20).await;
            assert_eq!(messages.len(), 20);
            assert!(messages.iter().all(|m| m.channel == name));
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
}
