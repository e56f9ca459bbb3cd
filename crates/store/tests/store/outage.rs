//! Postgres away: every call says so within about a second, and everything
//! goes on when it is back.

use std::time::{Duration, Instant};

use delivery::archive::{ArchiveSink, History};
use delivery::members::{Members, StoreFailure};
use delivery::receipts::Receipts;
use delivery::{Log, PageError, PageRequest};
use devstack::{Postgres, PostgresOptions};
use protocol::{Cursor, Device};
use store::{ArchiveLog, MemberStore, ReceiptStore, Sink, Store, StoreConfig, StoreError};
use tokio::sync::oneshot;

use crate::stream::MemoryStream;
use crate::world::{
    EPOCH, START_MS, Writer, archiver, archiver_config, channel, differences, eventually, message,
    user,
};

/// The promise is a second; the machine may be busy.
const SOON: Duration = Duration::from_millis(1_500);

async fn soon<T>(call: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = call.await;
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    answer
}

async fn assert_all_unavailable(store: &Store) {
    let log = ArchiveLog::new(store);
    let members = MemberStore::new(store);
    let receipts = ReceiptStore::new(store);
    let name = channel("user:1");
    let request = PageRequest {
        channel: name.clone(),
        after: Cursor::new(EPOCH, 0),
        max_messages: 10,
        max_bytes: 1_000,
    };
    let pages = [
        soon(log.page(request)).await.map(|_| ()),
        soon(log.earliest(name.clone())).await.map(|_| ()),
        soon(log.before_last(name.clone(), Cursor::new(EPOCH, 1), 1))
            .await
            .map(|_| ()),
        soon(log.page_before(name.clone(), None, 10, 1_000))
            .await
            .map(|_| ()),
    ];
    for result in pages {
        assert!(
            matches!(result, Err(PageError::Unavailable { .. })),
            "{result:?}"
        );
    }
    let room = channel("room:1");
    let calls = [
        soon(members.add(room.clone(), vec![user("1")]))
            .await
            .map(|_| ()),
        soon(members.contains(room, user("1"))).await.map(|_| ()),
        soon(receipts.unread(user("1"), name.clone()))
            .await
            .map(|_| ()),
        soon(receipts.position(user("1"), Device::parse("d").unwrap(), name))
            .await
            .map(|_| ()),
        soon(receipts.inbox(user("1"))).await.map(|_| ()),
    ];
    for result in calls {
        assert!(
            matches!(result, Err(StoreFailure::Unavailable { .. })),
            "{result:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_or_hung_it_is_unavailable_soon_and_back_it_answers() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let store = Store::connect(StoreConfig::new(postgres.url()))
        .await
        .unwrap();
    let mut writer = Writer::new(&store, EPOCH).await;
    writer
        .append(&[message(EPOCH, 1, "user:1", START_MS)])
        .await;

    postgres.pause();
    assert_all_unavailable(&store).await;
    postgres.resume();
    let log = ArchiveLog::new(&store);
    let answers = || async { log.earliest(channel("user:1")).await.is_ok() };
    eventually("it answers after the pause", answers).await;

    postgres.stop().await;
    assert_all_unavailable(&store).await;
    postgres.restart().await.unwrap();
    eventually("it answers after the restart", answers).await;
}

#[tokio::test]
async fn a_process_starts_without_postgres_and_migrates_later() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let url = postgres.url();
    postgres.stop().await;
    let store = Store::new(StoreConfig::new(url)).unwrap();
    assert!(matches!(
        soon(store.migrate()).await,
        Err(StoreError::Unavailable { .. })
    ));
    assert_all_unavailable(&store).await;
    postgres.restart().await.unwrap();
    // Reachable, but without a schema.
    assert_all_unavailable(&store).await;
    store.migrate().await.unwrap();
    let sink = Sink::new(&store);
    assert_eq!(sink.newest_epoch(0).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_migrate_at_once() {
    let url = crate::world::database().await;
    let stores: Vec<_> = (0..8)
        .map(|_| tokio::spawn(Store::connect(crate::world::config(url.clone()))))
        .collect();
    for store in stores {
        store.await.unwrap().unwrap();
    }
    assert!(matches!(
        Store::new(StoreConfig::new("nonsense")),
        Err(StoreError::Config { .. })
    ));
}

/// The archive becomes complete after an outage, and the lag tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_archiver_survives_a_killed_postgres() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let store = Store::connect(StoreConfig::new(postgres.url()))
        .await
        .unwrap();
    let stream = MemoryStream::new(EPOCH);
    let archiver = archiver(&stream, Sink::new(&store), archiver_config("archiver"));
    let stats = archiver.stats();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(archiver.run(async {
        let _ = stopped.await;
    }));
    let mut all = Vec::new();
    for round in 0..4 {
        for n in 0..200 {
            all.push(stream.publish("room:1", START_MS + n));
            if n == 100 && round > 0 {
                postgres.kill();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if round > 0 {
            eventually("the lag is told", || async {
                stats.lag_messages() > 0 && !stats.is_active()
            })
            .await;
            postgres.restart().await.unwrap();
        }
        eventually("the archive is complete", || async {
            stats.watermark() == stream.last()
        })
        .await;
        eventually("no lag", || async { stats.lag_messages() == 0 }).await;
    }
    let (missing, extra) = differences(&store, EPOCH, &all).await;
    assert_eq!((missing.len(), extra.len()), (0, 0));
    drop(stop);
    task.await.unwrap();
}
