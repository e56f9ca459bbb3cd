//! The lives of a stream and what each kind of cursor gets of them, with
//! archiver and archive together.

use std::sync::Arc;
use std::time::Duration;

use delivery::archive::Told;
use delivery::archiver::ArchiverStats;
use delivery::{Log, Page, PageError, PageRequest};
use protocol::{Cursor, Epoch};
use store::{ArchiveLog, Sink, Store};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::stream::MemoryStream;
use crate::world::{
    EPOCH, START_MS, archiver, archiver_config, channel, differences, eventually, store,
};

const OTHER_EPOCH: Epoch = Epoch(77);

struct Running {
    stats: Arc<ArchiverStats>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(store: &Store, stream: &MemoryStream) -> Self {
        let archiver = archiver(stream, Sink::new(store), archiver_config("archiver"));
        let stats = archiver.stats();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(archiver.run(async {
            let _ = stopped.await;
        }));
        Self { stats, stop, task }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    /// Everything in the stream is archived under its present epoch, and the
    /// archiver has seen so.
    async fn caught_up(&self, store: &Store, stream: &MemoryStream) {
        let log = ArchiveLog::new(store);
        eventually("the archive has everything", || async {
            let request = request("room:1", Cursor::new(stream.epoch(), u64::MAX >> 2));
            let known = log.page(request).await.is_ok();
            known && self.stats.watermark() == stream.last()
        })
        .await;
        // One idle round more: the head was observed.
        let covered = self.stats.covered_ms();
        eventually("the archiver looked again", || async {
            self.stats.covered_ms() > covered
        })
        .await;
    }
}

fn request(name: &str, after: Cursor) -> PageRequest {
    PageRequest {
        channel: channel(name),
        after,
        max_messages: 1_000,
        max_bytes: 1 << 20,
    }
}

async fn page(store: &Store, epoch: Epoch, after: u64) -> Result<Page, PageError> {
    let log = ArchiveLog::new(store);
    log.page(request("room:1", Cursor::new(epoch, after))).await
}

fn publish(stream: &MemoryStream, count: u64, time_ms: i64) {
    for n in 0..count {
        stream.publish("room:1", time_ms + n as i64);
    }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|m| m.seq()).collect()
}

#[tokio::test]
async fn a_cursor_of_the_current_epoch_gets_the_rest() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 120, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let page = page(&store, EPOCH, 117).await.unwrap();
    assert_eq!(seqs(&page), [118, 119, 120]);
    assert_eq!((page.through, page.next_epoch), (120, None));
    running.stop().await;
}

#[tokio::test]
async fn a_stream_with_a_past_is_complete_from_its_first_message_on() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    stream.purge();
    publish(&stream, 5, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let earliest = Cursor::new(EPOCH, 10);
    assert_eq!(
        page(&store, EPOCH, 9).await.unwrap_err(),
        PageError::Expired { earliest }
    );
    assert_eq!(seqs(&page(&store, EPOCH, 10).await.unwrap()).len(), 5);
    running.stop().await;
}

#[tokio::test]
async fn deleted_and_recreated_the_old_epoch_leads_into_the_new_one() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    stream.recreate(OTHER_EPOCH);
    publish(&stream, 4, START_MS + 1_000);
    running.caught_up(&store, &stream).await;
    let old = page(&store, EPOCH, 7).await.unwrap();
    assert_eq!(seqs(&old), [8, 9, 10]);
    assert_eq!(old.next_epoch, Some(OTHER_EPOCH));
    let new = page(&store, OTHER_EPOCH, 0).await.unwrap();
    assert_eq!(seqs(&new), [1, 2, 3, 4]);
    let earliest = ArchiveLog::new(&store)
        .earliest(channel("room:1"))
        .await
        .unwrap();
    assert_eq!(earliest, Cursor::new(EPOCH, 0));
    running.stop().await;
}

#[tokio::test]
async fn recreated_unseen_the_old_epoch_is_not_trusted() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    running.stop().await;
    // The stream went on without an archiver, for longer than the evidence
    // lasts, and was then lost.
    publish(&stream, 3, START_MS);
    stream.recreate(OTHER_EPOCH);
    publish(&stream, 1, START_MS);
    let mut config = archiver_config("late");
    config.max_evidence_age = Duration::ZERO;
    let late = archiver(&stream, Sink::new(&store), config);
    let stats = late.stats();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(late.run(async {
        let _ = stopped.await;
    }));
    eventually("the new epoch begins", || async {
        stats.epochs() == 1 && stats.watermark() == 1
    })
    .await;
    assert_eq!(
        page(&store, EPOCH, 10).await.unwrap_err(),
        PageError::UnknownEpoch
    );
    drop(stop);
    task.await.unwrap();
}

#[tokio::test]
async fn what_only_an_edge_saw_of_a_deleted_stream_is_not_passed_over() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    // Number 11 is stored, acknowledged and gone between two looks of the
    // archiver: the edge that acknowledged it has not spoken yet.
    stream.set_told(Told::NotYet);
    stream.recreate(OTHER_EPOCH);
    publish(&stream, 1, START_MS);
    let interrupted = running.stats.interruptions();
    eventually("the archiver has found the new epoch", || async {
        running.stats.interruptions() > interrupted
    })
    .await;
    assert_eq!(running.stats.epochs(), 1, "it waits for the edge");
    stream.set_told(Told::Through(11));
    running.caught_up(&store, &stream).await;
    for after in [7, 10] {
        assert_eq!(
            page(&store, EPOCH, after).await.unwrap_err(),
            PageError::UnknownEpoch
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn restored_from_an_older_copy_a_new_epoch_begins_where_they_part() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 20, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let copy = stream.snapshot();
    publish(&stream, 10, START_MS + 100);
    running.caught_up(&store, &stream).await;
    let old: Vec<u64> = seqs(&page(&store, EPOCH, 0).await.unwrap());
    assert_eq!(old.len(), 30);

    stream.restore(copy);
    // It has grown past the archive's watermark under reused sequences.
    publish(&stream, 15, START_MS + 5_000);
    eventually("the archiver notices", || async { stream.epoch() != EPOCH }).await;
    running.caught_up(&store, &stream).await;
    let new_epoch = stream.epoch();
    let before = page(&store, EPOCH, 18).await.unwrap();
    assert_eq!(seqs(&before), (19..=30).collect::<Vec<u64>>());
    assert_eq!(before.next_epoch, Some(new_epoch));
    // The common part is the old epoch's alone: nobody sees it twice.
    let after = page(&store, new_epoch, 0).await.unwrap();
    assert_eq!(seqs(&after), (21..=35).collect::<Vec<u64>>());
    assert!(
        stream.held().iter().all(|seq| *seq > 20),
        "{:?}",
        stream.held()
    );
    running.stop().await;
}

#[tokio::test]
async fn restored_with_its_mark_again_and_again() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 5, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let copy = stream.snapshot();
    for round in 1..=2i64 {
        publish(&stream, 3, START_MS + 1_000 * round);
        running.caught_up(&store, &stream).await;
        let before = stream.epoch();
        stream.restore(copy.clone());
        publish(&stream, 1, START_MS + 1_000 * round + 500);
        eventually("another epoch", || async {
            stream.epoch() != EPOCH && stream.epoch() != before
        })
        .await;
        running.caught_up(&store, &stream).await;
    }
    // The second time the stream carried an epoch that had ended before.
    assert_eq!(running.stats.epochs(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_purge_of_what_is_archived_loses_nothing() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    stream.purge();
    publish(&stream, 2, START_MS);
    running.caught_up(&store, &stream).await;
    assert_eq!(seqs(&page(&store, EPOCH, 0).await.unwrap()).len(), 12);
    assert_eq!(running.stats.epochs(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_purge_of_what_is_not_archived_expires_the_cursors_before_it() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    running.stop().await;
    publish(&stream, 5, START_MS);
    stream.purge();
    publish(&stream, 2, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let earliest = Cursor::new(EPOCH, 15);
    assert_eq!(
        page(&store, EPOCH, 10).await.unwrap_err(),
        PageError::Expired { earliest }
    );
    // Who had seen everything goes on without a reset.
    assert_eq!(seqs(&page(&store, EPOCH, 15).await.unwrap()), [16, 17]);
    running.stop().await;
}

#[tokio::test]
async fn messages_deleted_from_inside_are_passed_over() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 20, START_MS);
    for seq in [5, 6, 7, 19, 20] {
        stream.delete(seq);
    }
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let page = page(&store, EPOCH, 3).await.unwrap();
    assert_eq!(page.through, 20);
    assert_eq!(seqs(&page).len(), 12);
    running.stop().await;
}

#[tokio::test]
async fn messages_that_went_to_another_consumer_are_fetched_again() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    publish(&stream, 10, START_MS);
    let running = Running::start(&store, &stream);
    running.caught_up(&store, &stream).await;
    let mut all: Vec<_> = (0..20)
        .map(|n| {
            stream.steal(2);
            stream.publish("room:1", START_MS + n)
        })
        .collect();
    stream.steal(20);
    all.push(stream.publish("room:1", START_MS + 20));
    running.caught_up(&store, &stream).await;
    let (missing, _) = differences(&store, EPOCH, &all).await;
    assert_eq!(missing, Vec::<u64>::new());
    running.stop().await;
}
