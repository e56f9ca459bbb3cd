//! Figures, not tests: `cargo test -p store --test store measure -- --ignored
//! --nocapture --test-threads 1`, better with `--release`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use delivery::archive::SourceMessage;
use delivery::{Log, PageRequest};
use devstack::{Postgres, PostgresOptions};
use protocol::{Cursor, Epoch};
use store::{ArchiveLog, Store, StoreConfig};

use crate::world::{EPOCH, START_MS, Writer, channel, message};

const CLIENTS: u64 = 10_000;
const MISSED: u64 = 20;
const BATCH: usize = 5_000;

fn request(name: String, after: Cursor, max_messages: usize) -> PageRequest {
    PageRequest {
        channel: channel(&name),
        after,
        max_messages,
        max_bytes: 1 << 20,
    }
}

/// How fast a durable Postgres takes 200-byte messages, and how fast 10,000
/// clients who return at once get their 20 missed messages each.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn rows_and_first_pages() {
    let postgres = Postgres::start(PostgresOptions {
        durable: true,
        ..PostgresOptions::default()
    })
    .await
    .unwrap();
    let store = Store::connect(StoreConfig::new(postgres.url()))
        .await
        .unwrap();
    let mut writer = Writer::new(&store, EPOCH).await;
    let messages: Vec<SourceMessage> = (1..=CLIENTS * MISSED)
        .map(|seq| {
            let name = format!("user:{}", seq % CLIENTS);
            let mut message = message(EPOCH, seq, &name, START_MS + seq as i64);
            message.message.data = vec![b'x'; 200].into();
            message
        })
        .collect();
    let begun = Instant::now();
    for batch in messages.chunks(BATCH) {
        writer.append(batch).await;
    }
    let rows = messages.len() as f64 / begun.elapsed().as_secs_f64();
    eprintln!("archived {rows:.0} rows/s in batches of {BATCH}");

    let log = Arc::new(ArchiveLog::new(&store));
    for round in 0..3 {
        let begun = Instant::now();
        let readers: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let request = request(format!("user:{n}"), Cursor::new(EPOCH, 0), 512);
                    let page = log.page(request).await.unwrap();
                    assert_eq!(page.messages.len() as u64, MISSED.min(64));
                    begun.elapsed()
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for reader in readers {
            latencies.push(reader.await.unwrap());
        }
        latencies.sort();
        let median = latencies[latencies.len() / 2];
        eprintln!(
            "round {round}: {CLIENTS} first pages in {:?} (median {median:?})",
            latencies[latencies.len() - 1]
        );
    }

    // One client with everything: page after page.
    let mut big = Vec::new();
    let mut seq = CLIENTS * MISSED;
    for _ in 0..100_000 {
        seq += 1;
        let mut message = message(EPOCH, seq, "room:big", START_MS + seq as i64);
        message.message.data = vec![b'x'; 200].into();
        big.push(message);
    }
    for batch in big.chunks(BATCH) {
        writer.append(batch).await;
    }
    let begun = Instant::now();
    let mut after = Cursor::new(EPOCH, 0);
    let mut read = 0;
    while read < big.len() {
        let page = log
            .page(request(String::from("room:big"), after, 512))
            .await
            .unwrap();
        read += page.messages.len();
        after.seq = page.through;
    }
    let rate = read as f64 / begun.elapsed().as_secs_f64();
    eprintln!("one client reads {rate:.0} messages/s in pages of 512");
}

/// First pages of an archive that exists: `REJOIN_MEASURE_URL` names its
/// database, whose epoch 77 has messages in `user:0` to `user:199999`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn first_pages_of_a_large_archive() {
    let Ok(url) = std::env::var("REJOIN_MEASURE_URL") else {
        eprintln!("REJOIN_MEASURE_URL is not set");
        return;
    };
    let store = Store::new(StoreConfig::new(url)).unwrap();
    let log = ArchiveLog::new(&store);
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in ["cold", "warm", "warm"] {
        let mut latencies: Vec<Duration> = Vec::new();
        for _ in 0..2_000 {
            let name = format!("user:{}", next(200_000));
            let after = Cursor::new(Epoch(77), next(51_000_000));
            let begun = Instant::now();
            log.page(request(name, after, 100)).await.unwrap();
            latencies.push(begun.elapsed());
        }
        latencies.sort();
        eprintln!(
            "{round}: p50 {:?} p99 {:?} max {:?}",
            latencies[1_000], latencies[1_980], latencies[1_999]
        );
    }
}
