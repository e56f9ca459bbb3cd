//! Publishing from SQL.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use delivery::publish::{Publication, Publish, PublishError, Published};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgPool, PgPoolOptions};
use store::{OutboxRelay, OutboxStats, Store};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::once::ForgetfulStream;
use crate::world::{START_MS, config, database, eventually};

/// The longest payload, as the relays are configured.
const DATA_BYTES: usize = 1_000;

struct Relay {
    stats: Arc<OutboxStats>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Relay {
    fn start(store: &Store, publisher: Arc<dyn Publish>) -> Self {
        let relay = OutboxRelay::new(store, publisher, DATA_BYTES);
        let stats = relay.stats();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(relay.run(async {
            let _ = stopped.await;
        }));
        Self { stats, stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

struct Setting {
    store: Store,
    /// The application's own connections.
    application: PgPool,
    stream: Arc<ForgetfulStream>,
}

async fn setting(lose_every: u64) -> Setting {
    let url = database().await;
    let store = Store::connect(config(url.clone())).await.unwrap();
    let application = PgPoolOptions::new()
        .max_connections(16)
        .connect(&url)
        .await
        .unwrap();
    let now_ms = Arc::new(AtomicI64::new(START_MS));
    Setting {
        store,
        application,
        stream: ForgetfulStream::new(&now_ms, lose_every),
    }
}

const PUBLISH: &str = "SELECT rejoin.publish($1, $2, jsonb_build_object('n', $3::bigint))";

async fn is_empty(application: &PgPool) -> bool {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM rejoin.outbox WHERE refused IS NULL")
        .fetch_one(application)
        .await
        .unwrap();
    rows == 0
}

/// What reached the stream, by channel, as the numbers in the messages.
fn numbers(stream: &ForgetfulStream) -> HashMap<String, Vec<i64>> {
    let mut by_channel: HashMap<String, Vec<i64>> = HashMap::new();
    for message in stream.messages() {
        let data: serde_json::Value = serde_json::from_slice(&message.message.data).unwrap();
        by_channel
            .entry(message.message.channel.to_string())
            .or_default()
            .push(data["n"].as_i64().unwrap());
    }
    by_channel
}

#[tokio::test]
async fn a_message_is_delivered_if_and_only_if_its_transaction_commits() {
    let setting = setting(0).await;
    let relay = Relay::start(
        &setting.store,
        Arc::<ForgetfulStream>::clone(&setting.stream),
    );
    for n in 0..10i64 {
        let mut transaction = setting.application.begin().await.unwrap();
        sqlx::query(PUBLISH)
            .bind("user:42")
            .bind("invoice")
            .bind(n)
            .execute(&mut *transaction)
            .await
            .unwrap();
        if n % 2 == 0 {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    eventually("the outbox is empty", || is_empty(&setting.application)).await;
    assert_eq!(numbers(&setting.stream)["user:42"], [0, 2, 4, 6, 8]);
    let first = &setting.stream.messages()[0];
    assert_eq!(&*first.message.kind, "invoice");
    assert_eq!(first.scope.as_deref(), Some("s.sql"));
    let made_ms = first.message.id.as_ref().and_then(|id| id.created_ms());
    assert!(made_ms.is_some(), "the id is a UUIDv7");
    eventually("it is counted", || async { relay.stats.published() == 5 }).await;
    relay.stop().await;
}

/// Transactions that overlap in every way: each channel gets its messages in
/// the order of commits. The order is witnessed by a number that each
/// transaction takes from a row it holds locked until it has committed.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_a_channel_is_the_order_of_commits() {
    let setting = setting(7).await;
    sqlx::raw_sql("CREATE TABLE counters (channel text PRIMARY KEY, n bigint NOT NULL)")
        .execute(&setting.application)
        .await
        .unwrap();
    for number in 0..3 {
        sqlx::query("INSERT INTO counters VALUES ($1, 0)")
            .bind(format!("room:{number}"))
            .execute(&setting.application)
            .await
            .unwrap();
    }
    let relays: Vec<Relay> = (0..3)
        .map(|_| {
            Relay::start(
                &setting.store,
                Arc::<ForgetfulStream>::clone(&setting.stream),
            )
        })
        .collect();
    let writers: Vec<_> = (0..12u64)
        .map(|writer| {
            let application = setting.application.clone();
            tokio::spawn(async move {
                for round in 0..20u64 {
                    let mut transaction = application.begin().await.unwrap();
                    let name = format!("room:{}", (writer + round) % 3);
                    // Published first, numbered later: entries are taken in
                    // another order than the commits that follow.
                    if writer % 3 == 0 {
                        sqlx::query("SELECT rejoin.publish('topic:busy', '', '{\"n\": 0}')")
                            .execute(&mut *transaction)
                            .await
                            .unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis((writer * 7 + round) % 5)).await;
                    let n: i64 = sqlx::query_scalar(
                        "UPDATE counters SET n = n + 1 WHERE channel = $1 RETURNING n",
                    )
                    .bind(&name)
                    .fetch_one(&mut *transaction)
                    .await
                    .unwrap();
                    sqlx::query(PUBLISH)
                        .bind(&name)
                        .bind("")
                        .bind(n)
                        .execute(&mut *transaction)
                        .await
                        .unwrap();
                    transaction.commit().await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    eventually("the outbox is empty", || is_empty(&setting.application)).await;
    let numbers = numbers(&setting.stream);
    for number in 0..3 {
        let name = format!("room:{number}");
        assert_eq!(numbers[&name], (1..=80).collect::<Vec<i64>>(), "{name}");
    }
    assert_eq!(numbers["topic:busy"].len(), 80);
    for relay in relays {
        relay.stop().await;
    }
}

/// Two transactions publish to the same channels in opposite order.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_do_not_deadlock_over_channels() {
    let setting = setting(0).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let application = setting.application.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let mut transaction = application.begin().await.unwrap();
                    for n in 0..6i64 {
                        let number = if writer % 2 == 0 { n } else { 5 - n };
                        sqlx::query(PUBLISH)
                            .bind(format!("room:{number}"))
                            .bind("")
                            .bind(n)
                            .execute(&mut *transaction)
                            .await
                            .unwrap();
                    }
                    transaction.commit().await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn what_can_never_be_published_does_not_hold_up_the_rest() {
    struct Picky(Arc<ForgetfulStream>);
    impl Publish for Picky {
        fn publish(&self, p: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
            if &*p.kind == "bad" {
                let reason = String::from("too large");
                return async move { Err(PublishError::Refused { reason }) }.boxed();
            }
            self.0.publish(p)
        }
    }
    let setting = setting(0).await;
    let stream = Arc::clone(&setting.stream);
    for (n, kind) in [(1i64, "good"), (2, "bad"), (3, "good")] {
        sqlx::query(PUBLISH)
            .bind("user:1")
            .bind(kind)
            .bind(n)
            .execute(&setting.application)
            .await
            .unwrap();
    }
    let relay = Relay::start(&setting.store, Arc::new(Picky(stream)));
    eventually("the outbox is empty", || is_empty(&setting.application)).await;
    assert_eq!(numbers(&setting.stream)["user:1"], [1, 3]);
    eventually("it is counted", || async {
        let stats = &relay.stats;
        let counts = (stats.published(), stats.refused());
        (counts, stats.waiting(), stats.parked()) == ((2, 1), 0, 1)
    })
    .await;
    relay.stop().await;
    // Whoever mends the cause puts it back; a relay that starts finds it.
    let (entry, reason): (i64, String) =
        sqlx::query_as("SELECT entry, refused FROM rejoin.outbox WHERE refused IS NOT NULL")
            .fetch_one(&setting.application)
            .await
            .unwrap();
    assert_eq!(reason, "too large");
    sqlx::query("UPDATE rejoin.outbox SET refused = NULL WHERE entry = $1")
        .bind(entry)
        .execute(&setting.application)
        .await
        .unwrap();
    let relay = Relay::start(
        &setting.store,
        Arc::<ForgetfulStream>::clone(&setting.stream),
    );
    eventually("it is published", || async {
        numbers(&setting.stream)["user:1"] == [1, 3, 2]
    })
    .await;
    relay.stop().await;
}

/// Rows that did not come through `rejoin.publish`, in the middle of others.
#[tokio::test]
async fn what_no_client_could_be_given_is_parked() {
    let setting = setting(0).await;
    let long = format!("\"{}\"", "x".repeat(600_000));
    let rows = [
        ("user:1", "", "{\"n\": 1}"),
        ("user:1", "", long.as_str()),
        ("user:1", "two words", "1"),
        ("nobody", "", "1"),
        ("user:1", "", "{\"n\": 2}"),
    ];
    for (channel, kind, data) in rows {
        sqlx::query(
            "INSERT INTO rejoin.outbox (channel, kind, data, id) VALUES ($1, $2, $3, gen_random_uuid())",
        )
        .bind(channel)
        .bind(kind)
        .bind(data)
        .execute(&setting.application)
        .await
        .unwrap();
    }
    let relay = Relay::start(
        &setting.store,
        Arc::<ForgetfulStream>::clone(&setting.stream),
    );
    eventually("three are parked", || async { relay.stats.parked() == 3 }).await;
    assert_eq!(numbers(&setting.stream)["user:1"], [1, 2]);
    relay.stop().await;
}

/// The application hears of it while it can still do something else.
#[tokio::test]
async fn a_payload_that_is_too_long_is_refused_in_the_transaction() {
    let setting = setting(0).await;
    let publish = async |bytes: usize| {
        // As JSON it has two quotes.
        sqlx::query("SELECT rejoin.publish('user:1', '', to_jsonb(repeat('x', $1)))")
            .bind(bytes as i32 - 2)
            .execute(&setting.application)
            .await
    };
    // Before a relay has told anything: the default of the configuration.
    publish(65_536).await.unwrap();
    publish(65_537).await.unwrap_err();
    let relay = Relay::start(
        &setting.store,
        Arc::<ForgetfulStream>::clone(&setting.stream),
    );
    // What was accepted before is published.
    eventually("the outbox is empty", || is_empty(&setting.application)).await;
    assert_eq!(setting.stream.messages().len(), 1);
    publish(DATA_BYTES).await.unwrap();
    let error = publish(DATA_BYTES + 1).await.unwrap_err();
    let error = error.into_database_error().unwrap();
    assert_eq!(error.code().as_deref(), Some("54000"));
    assert!(
        error
            .message()
            .contains("at most 1000 bytes of data, this one has 1001"),
        "{error}"
    );
    eventually("the other is published", || async {
        setting.stream.messages().len() == 2
    })
    .await;
    relay.stop().await;
}

#[tokio::test]
async fn nonsense_is_refused_in_the_transaction() {
    let setting = setting(0).await;
    for (channel, kind) in [
        ("user", "x"),
        ("user:1:2", "x"),
        ("user:\n1", "x"),
        ("user:1", "two words"),
    ] {
        let result = sqlx::query(PUBLISH)
            .bind(channel)
            .bind(kind)
            .bind(1i64)
            .execute(&setting.application)
            .await;
        assert!(result.is_err(), "{channel:?} {kind:?} was accepted");
    }
}

/// From commit to the stream, with a relay at rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_wakes_the_relay() {
    let setting = setting(0).await;
    let relay = Relay::start(
        &setting.store,
        Arc::<ForgetfulStream>::clone(&setting.stream),
    );
    let mut latencies = Vec::new();
    for n in 0..20i64 {
        sqlx::query(PUBLISH)
            .bind("user:1")
            .bind("")
            .bind(n)
            .execute(&setting.application)
            .await
            .unwrap();
        let committed = Instant::now();
        while setting.stream.messages().len() as i64 <= n {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(committed.elapsed() < Duration::from_secs(10));
        }
        latencies.push(committed.elapsed());
    }
    latencies.sort();
    // The goal is 20 ms; polling alone would take half a second.
    let median = latencies[10];
    eprintln!(
        "commit to stream: median {median:?}, max {:?}",
        latencies[19]
    );
    assert!(median < Duration::from_millis(200), "{latencies:?}");
    relay.stop().await;
}
