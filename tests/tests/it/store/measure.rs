//! Figures, not tests: `cargo test -p tests --test it measure -- --ignored --nocapture --test-threads 1`.

use std::time::Duration;

use client::ConnectOptions;
use devstack::{Postgres, PostgresOptions};
use protocol::{From, ServerBody};
use tokio::time::{Instant, interval, timeout};

use crate::harness::{Nats, SOON, Stack, StackOptions, setting};

use super::{archived, now_us, room};

async fn with_durable_store(edges: usize) -> (Postgres, Stack) {
    let postgres = Postgres::start(PostgresOptions {
        durable: true,
        settings: vec![("track_commit_timestamp".to_owned(), "on".to_owned())],
        ..PostgresOptions::default()
    })
    .await
    .unwrap();
    let stack = Stack::start_with(StackOptions {
        edges,
        store: Some(format!("url = \"{}\"", postgres.url())),
        ..StackOptions::default()
    })
    .await;
    (postgres, stack)
}

/// How old a message is when its row is committed, with 5,000 messages of 200 bytes per second over 100 channels for
/// `REJOIN_TEST_MEASURE_S` seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn how_far_the_archive_lags() {
    const EACH: usize = 50;
    let seconds = setting("REJOIN_TEST_MEASURE_S", 20);
    let (postgres, stack) = with_durable_store(1).await;
    let mut nats = Nats::connect(&stack.nats).await;
    let texts = vec!["x".repeat(198); EACH];
    let begin = Instant::now();
    let mut ticks = interval(Duration::from_millis(10));
    for n in 0..seconds * 100 {
        ticks.tick().await;
        let subject = format!("rejoin.pub.room.{}", n % 100);
        nats.publish_all(&subject, &texts).await;
    }
    let rate = (seconds * 100 * EACH) as f64 / begin.elapsed().as_secs_f64();
    archived(&stack).await;
    let figures = "SELECT count(*), percentile_disc(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (ORDER BY age)
         FROM (SELECT round(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000) - time_ms AS age
               FROM rejoin.messages) m";
    let figures = postgres.execute(figures).await.unwrap();
    eprintln!(
        "{rate:.0} messages/s: rows, and ms from the stream to the commit (p50, p99, longest): {figures}"
    );
}

/// From the commit of `rejoin.publish` to a subscriber on another edge, and to the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn how_long_a_commit_takes_to_a_subscriber() {
    const COUNT: usize = 200;
    let (postgres, stack) = with_durable_store(2).await;
    let options = ConnectOptions::default().subscribe(room(), From::Tail);
    let (mut reader, _) = stack.connect("42", &["room:1"], &options).await;
    let (mut to_reader, mut to_stream) = (Vec::new(), Vec::new());
    // The stamp is of just before the commit, which is counted with it.
    let publish = "SELECT rejoin.publish('room:1', '', to_jsonb((extract(epoch FROM clock_timestamp()) * 1000000)::bigint))";
    while to_reader.len() < COUNT {
        postgres.execute(publish).await.unwrap();
        let arrived = async {
            loop {
                if let ServerBody::Messages(batch) = reader.next().await.unwrap().body {
                    return batch.messages;
                }
            }
        };
        for message in timeout(SOON, arrived).await.expect("in time") {
            let now = now_us();
            let sent: u128 = std::str::from_utf8(&message.data).unwrap().parse().unwrap();
            to_reader.push(now.saturating_sub(sent) as f64 / 1_000.0);
            to_stream.push(message.time_ms as f64 - sent as f64 / 1_000.0);
        }
    }
    for (what, mut ms) in [("subscriber", to_reader), ("stream (whole ms)", to_stream)] {
        ms.sort_by(f64::total_cmp);
        let of = |share: f64| ms[((ms.len() - 1) as f64 * share) as usize];
        let (median, p99, longest) = (of(0.5), of(0.99), of(1.0));
        eprintln!(
            "commit to {what}: median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms"
        );
    }
}
