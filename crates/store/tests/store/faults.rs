//! Failures at every call, on both sides, and archivers that replace each
//! other: no row is lost or doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use delivery::archive::{
    ArchiveBatch, ArchiveRetention, ArchiveSink, ArchivedEpoch, Lease, NewEpoch, SinkError,
    SourceMessage,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Cursor, Epoch};
use store::{Sink, Store};
use tokio::sync::oneshot;

use crate::stream::MemoryStream;
use crate::world::{EPOCH, START_MS, archiver, archiver_config, differences, eventually, store};

/// A sink whose calls fail: some before they do anything, some after they
/// did everything, so that only the confirmation is lost.
struct FaultySink {
    inner: Sink,
    calls: AtomicU64,
    fail_every: Arc<AtomicU64>,
}

impl FaultySink {
    fn new(store: &Store, fail_every: &Arc<AtomicU64>) -> Self {
        Self {
            inner: Sink::new(store),
            calls: AtomicU64::new(0),
            fail_every: Arc::clone(fail_every),
        }
    }

    async fn call<T>(
        &self,
        act: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        let call = self.calls.fetch_add(1, Relaxed) + 1;
        let every = self.fail_every.load(Relaxed);
        let fails = every > 0 && call.is_multiple_of(every);
        let injected = SinkError::Unavailable {
            reason: String::from("injected"),
        };
        if fails && (call / every).is_multiple_of(2) {
            return Err(injected);
        }
        let result = act.await;
        if fails {
            result.and(Err(injected))
        } else {
            result
        }
    }
}

impl ArchiveSink for FaultySink {
    fn acquire<'a>(
        &'a self,
        shard: u16,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, SinkError>> {
        self.call(self.inner.acquire(shard, holder, ttl)).boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), SinkError>> {
        self.call(self.inner.release(lease)).boxed()
    }

    fn newest_epoch(&self, shard: u16) -> BoxFuture<'_, Result<Option<ArchivedEpoch>, SinkError>> {
        self.call(self.inner.newest_epoch(shard)).boxed()
    }

    fn archived_time(
        &self,
        shard: u16,
        position: Cursor,
    ) -> BoxFuture<'_, Result<Option<i64>, SinkError>> {
        self.call(self.inner.archived_time(shard, position)).boxed()
    }

    fn begin_epoch<'a>(
        &'a self,
        lease: &'a Lease,
        new: &'a NewEpoch,
    ) -> BoxFuture<'a, Result<bool, SinkError>> {
        self.call(self.inner.begin_epoch(lease, new)).boxed()
    }

    fn raise_floor<'a>(
        &'a self,
        lease: &'a Lease,
        epoch: Epoch,
        floor: u64,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        self.call(self.inner.raise_floor(lease, epoch, floor))
            .boxed()
    }

    fn append<'a>(
        &'a self,
        lease: &'a Lease,
        batch: ArchiveBatch<'a>,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        self.call(self.inner.append(lease, batch)).boxed()
    }

    fn maintain<'a>(
        &'a self,
        lease: &'a Lease,
        retention: &'a ArchiveRetention,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        self.call(self.inner.maintain(lease, retention, now_ms))
            .boxed()
    }
}

async fn publish(stream: &MemoryStream, count: u64) -> Vec<SourceMessage> {
    let mut all = Vec::new();
    for n in 0..count {
        all.push(stream.publish(&format!("room:{}", n % 7), START_MS + n as i64));
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    all
}

async fn assert_archived(store: &Store, stream: &MemoryStream, all: &[SourceMessage]) {
    eventually("everything is archived", || async {
        let sink = Sink::new(store);
        let newest = sink.newest_epoch(0).await.unwrap();
        newest.is_some_and(|newest| newest.watermark == stream.last())
    })
    .await;
    let (missing, extra) = differences(store, EPOCH, all).await;
    assert_eq!(
        (missing.len(), extra.len()),
        (0, 0),
        "missing and extra rows"
    );
}

/// Every second to ninth call on the archive fails, and a few on the stream.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_or_lose_their_confirmation_lose_no_row() {
    for every in [2, 3, 5, 9] {
        let store = store().await;
        let stream = MemoryStream::new(EPOCH);
        stream.set_fail_percent(3);
        let fail_every = Arc::new(AtomicU64::new(every));
        let sink = FaultySink::new(&store, &fail_every);
        let archiver = archiver(&stream, sink, archiver_config("archiver"));
        let stats = archiver.stats();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(archiver.run(async {
            let _ = stopped.await;
        }));
        let all = publish(&stream, 600).await;
        eventually("it was interrupted", || async {
            stats.interruptions() >= 5
        })
        .await;
        // It gets there with the failures; without them this test is sooner done.
        fail_every.store(0, Relaxed);
        stream.set_fail_percent(0);
        assert_archived(&store, &stream, &all).await;
        drop(stop);
        task.await.unwrap();
    }
}

/// Archivers are dropped wherever they happen to wait, some hundred times,
/// while messages come.
#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_dropped_anywhere_loses_no_row() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    let publisher = {
        let stream = stream.clone();
        tokio::spawn(async move { publish(&stream, 3_000).await })
    };
    for round in 0..100u64 {
        let archiver = archiver(&stream, Sink::new(&store), archiver_config("archiver"));
        let run = archiver.run(std::future::pending());
        // 1 to 40 ms, in an order without a pattern.
        let until = Duration::from_micros(1_000 + round * 7_919 % 39_000);
        assert!(tokio::time::timeout(until, run).await.is_err());
    }
    let all = publisher.await.unwrap();
    let archiver = archiver(&stream, Sink::new(&store), archiver_config("archiver"));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(archiver.run(async {
        let _ = stopped.await;
    }));
    assert_archived(&store, &stream, &all).await;
    drop(stop);
    task.await.unwrap();
}

/// Of two archivers one works; when it ends in order the other takes over at
/// once, and when it vanishes, after the lease.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_archivers_one_stands_by() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    let mut running = Vec::new();
    for name in ["one", "two", "three"] {
        let archiver = archiver(&stream, Sink::new(&store), archiver_config(name));
        let stats = archiver.stats();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(archiver.run(async {
            let _ = stopped.await;
        }));
        running.push((stats, stop, task));
    }
    let mut all = publish(&stream, 300).await;
    while let Some(leader) = {
        eventually("one is active", || async {
            running.iter().any(|(stats, ..)| stats.is_active())
        })
        .await;
        assert_archived(&store, &stream, &all).await;
        let active = running.iter().filter(|(stats, ..)| stats.is_active());
        assert_eq!(active.count(), 1);
        running.iter().position(|(stats, ..)| stats.is_active())
    } {
        let (_, stop, task) = running.remove(leader);
        if running.len() == 1 {
            // Killed: its lease has to run out.
            task.abort();
        } else {
            drop(stop);
            task.await.unwrap();
        }
        all.extend(publish(&stream, 100).await);
        if running.is_empty() {
            break;
        }
    }
}

/// What is archived leaves the stream, but for the hot part and the witness.
#[tokio::test(flavor = "multi_thread")]
async fn only_archived_messages_leave_the_stream() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    let mut config = archiver_config("archiver");
    config.hot_time = Duration::ZERO;
    let fail_every = Arc::new(AtomicU64::new(0));
    let sink = FaultySink::new(&store, &fail_every);
    let archiver = archiver(&stream, sink, config);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(archiver.run(async {
        let _ = stopped.await;
    }));
    let mut all = publish(&stream, 100).await;
    eventually("it is trimmed to the witness", || async {
        stream.held() == [100]
    })
    .await;
    // With the archive away everything stays.
    fail_every.store(1, Relaxed);
    all.extend(publish(&stream, 50).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stream.held().len(), 51);
    fail_every.store(0, Relaxed);
    assert_archived(&store, &stream, &all).await;
    eventually("it is trimmed again", || async { stream.held() == [150] }).await;
    drop(stop);
    task.await.unwrap();
}

/// The stream away: nothing happens, and then everything.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_stream_is_survived() {
    let store = store().await;
    let stream = MemoryStream::new(EPOCH);
    let archiver = archiver(&stream, Sink::new(&store), archiver_config("archiver"));
    let stats = archiver.stats();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(archiver.run(async {
        let _ = stopped.await;
    }));
    let mut all = publish(&stream, 50).await;
    stream.set_down(true);
    all.extend(publish(&stream, 50).await);
    eventually("it is interrupted", || async { stats.interruptions() > 0 }).await;
    stream.set_down(false);
    assert_archived(&store, &stream, &all).await;
    drop(stop);
    task.await.unwrap();
}
