//! The archive: weeks away, killed archivers, epochs, an outage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::ConnectOptions;
use devstack::{Postgres, PostgresOptions};
use protocol::{Channel, Encoding, From, MessageId, ServerBody};
use rand::Rng;
use tokio::time::{sleep, timeout};

use crate::harness::{
    Nats, SOON, Stack, StackOptions, TokenSpec, Watch, connect, setting, sign, texts, until,
    with_one_and_four_shards,
};

use super::{archived, now_us, room, with_store};

with_one_and_four_shards!(
    away_for_weeks,
    the_archiver_is_killed_again_and_again,
    an_old_epoch_is_continued_from_the_archive,
);

/// Longer than two heartbeats of the edges and a look of the archiver at the stream.
const LISTENED: Duration = Duration::from_secs(3);

/// The stream has nothing any more, the edges are new: everything comes from the archive.
async fn away_for_weeks(shards: u16) {
    let count = setting("REJOIN_TEST_AWAY", 20_000);
    let options = with_store(shards, "hot_time_s = 0\nhot_byte_share = 0.0").await;
    let mut stack = Stack::start_with(options).await;
    let mut nats = Nats::connect(&stack.nats).await;
    let options = ConnectOptions::default().subscribe(room(), From::Tail);
    let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut connection).await;
    connection.close().await;
    watch.away();
    let mut missed = texts("missed", count);
    nats.publish_all("rejoin.pub.room.1", &missed).await;
    let shard = room().shard(shards);
    let begin = Instant::now();
    let patience = SOON * 3 + Duration::from_millis(count as u64);
    loop {
        let info = nats
            .ask(&format!("$JS.API.STREAM.INFO.REJOIN_{shard}"), "")
            .await;
        // The last one stays, so that the stream knows where it is.
        if info["state"]["first_seq"].as_u64() >= Some(count as u64) {
            break;
        }
        assert!(begin.elapsed() < patience, "{}", info["state"]);
        sleep(Duration::from_millis(50)).await;
    }
    let archived_in = begin.elapsed();
    for edge in &mut stack.edges {
        edge.restart();
    }
    for edge in &mut stack.edges {
        edge.ready().await;
    }
    let from = watch.position.map_or(From::Tail, From::Cursor);
    for encoding in Encoding::ALL {
        let options = ConnectOptions::default()
            .encoding(encoding)
            .subscribe(room(), from);
        let begin = Instant::now();
        let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
        let mut watch = Watch::new(&room());
        watch.until_live(&mut connection).await;
        eprintln!(
            "{count} messages, archived and gone from the stream in {archived_in:?}, caught up in {:?} ({encoding:?})",
            begin.elapsed()
        );
        watch.assert_exactly(&missed);
        assert!(watch.seen.iter().all(|seen| seen.replayed));
        let new = stack
            .http()
            .publish(&room(), encoding.subprotocol(), "1")
            .await;
        watch.until_seen(&mut connection, missed.len() + 1).await;
        assert_eq!(watch.position, Some(new.cursor()));
        missed.push("1".to_owned());
    }
}

/// `REJOIN_TEST_KILLS=100` is the figure of the issue.
async fn the_archiver_is_killed_again_and_again(shards: u16) {
    let kills = setting("REJOIN_TEST_KILLS", 8);
    let mut stack = Stack::start_with(with_store(shards, "batch_messages = 50").await).await;
    let stop = Arc::new(AtomicBool::new(false));
    let http = stack.http();
    let stopped = Arc::clone(&stop);
    let publisher = tokio::spawn(async move {
        let mut published = 0_usize;
        while !stopped.load(Ordering::Relaxed) {
            // Over several channels, so that every shard has some.
            let channel = Channel::parse(&format!("room:{}", published % 16)).unwrap();
            let id = MessageId::random();
            loop {
                let answer = http.publish(&channel, id.as_str(), "1").await;
                match answer.status {
                    200 => break,
                    0 | 503 => sleep(Duration::from_millis(10)).await,
                    _ => panic!("{answer:?}"),
                }
            }
            published += 1;
        }
        published
    });
    for kill in 0..kills {
        let lives = Duration::from_millis(rand::rng().random_range(0..600));
        sleep(lives).await;
        let edge = &mut stack.edges[kill % 2];
        edge.kill();
        edge.restart();
        edge.ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    let published = publisher.await.unwrap();
    archived(&stack).await;
    let report = stack.check_archive().await;
    let mut compared = 0;
    for line in report
        .lines()
        .filter(|line| line.contains("messages compared"))
    {
        assert!(line.contains(" 0 missing, 0 extra, 0 different"), "{line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words
            .iter()
            .position(|word| *word == "messages")
            .expect("a number of messages");
        compared += words[at - 1].parse::<usize>().expect("a number");
    }
    eprintln!(
        "{kills} kills while {published} messages were published; {compared} compared:\n{report}"
    );
    assert_eq!(compared, published);
}

async fn an_old_epoch_is_continued_from_the_archive(shards: u16) {
    let stack = Stack::start_with(with_store(shards, "").await).await;
    let options = ConnectOptions::default().subscribe(room(), From::Tail);
    let (mut stays, _) = stack.connect("43", &["room:1"], &options).await;
    let mut staying = Watch::new(&room());
    staying.until_live(&mut stays).await;
    let old = texts("old", 300);
    let cursors = stack.http().publish_all(&room(), &old).await;
    staying.until_seen(&mut stays, old.len()).await;
    archived(&stack).await;
    // An archiver that has just started has not heard of every edge yet, and an ended epoch would be in doubt.
    sleep(LISTENED).await;
    let mut nats = Nats::connect(&stack.nats).await;
    let shard = room().shard(shards);
    let answer = nats
        .ask(&format!("$JS.API.STREAM.DELETE.REJOIN_{shard}"), "")
        .await;
    assert_eq!(answer["success"], true, "{answer}");
    let new = texts("new", 300);
    for text in &new {
        until("publishing works again", async || {
            let data = format!("\"{text}\"");
            stack.http().publish(&room(), text, &data).await.status == 200
        })
        .await;
    }
    // Who was there, and who comes back with an old cursor, gets both epochs and no reset.
    staying.until_seen(&mut stays, old.len() + new.len()).await;
    staying.assert_exactly(&[old.clone(), new.clone()].concat());
    for edge in &stack.edges {
        let token = sign(&TokenSpec::new("42", &["room:1"]));
        let options = ConnectOptions::default().subscribe(room(), From::Cursor(cursors[99]));
        let (mut connection, _) = connect(&edge.url(), &token, &options).await;
        let mut watch = Watch::new(&room());
        watch.until_live(&mut connection).await;
        watch.until_seen(&mut connection, 200 + new.len()).await;
        watch.assert_exactly(&[&old[100..], &new].concat());
    }
}

/// Nobody who is connected notices, and the archive becomes complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_gone_under_load() {
    let outage = Duration::from_secs(setting("REJOIN_TEST_OUTAGE_S", 4) as u64);
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let stack = Stack::start_with(StackOptions {
        store: Some(format!(
            "url = \"{}\"\n\n[store.archive]\nlease_ms = 1000",
            postgres.url()
        )),
        ..StackOptions::default()
    })
    .await;
    let options = ConnectOptions::default().subscribe(room(), From::Tail);
    let (mut reader, _) = stack.connect("42", &["room:1"], &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut reader).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (url, stopped) = (stack.edges[0].url(), Arc::clone(&stop));
    let publisher = tokio::spawn(async move {
        let token = sign(&TokenSpec::new("writer", &["room:1"]));
        let (mut writer, _) = connect(&url, &token, &ConnectOptions::default()).await;
        let mut published = 0_usize;
        while !stopped.load(Ordering::Relaxed) {
            let data = now_us().to_string();
            let publishing = writer.publish(MessageId::random(), room(), "", data.into());
            publishing.await.expect("publishing needs no Postgres");
            published += 1;
            sleep(Duration::from_millis(5)).await;
        }
        published
    });
    let mut late = Vec::new();
    let postgres_switch = async {
        // Until then ids may be older than the stream, and are looked up.
        sleep(Duration::from_secs(6)).await;
        postgres.kill();
        sleep(outage).await;
        postgres.restart().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let reading = async {
        loop {
            let Ok(frame) = timeout(Duration::from_secs(3), reader.next()).await else {
                break;
            };
            if let ServerBody::Messages(batch) = &frame.as_ref().expect("the connection stays").body
            {
                let now = now_us();
                let sent =
                    |data: &[u8]| std::str::from_utf8(data).unwrap().parse::<u128>().unwrap();
                late.extend(
                    batch
                        .messages
                        .iter()
                        .map(|it| now.saturating_sub(sent(&it.data))),
                );
            }
            watch.take(&frame.unwrap());
        }
    };
    tokio::join!(postgres_switch, reading);
    let published = publisher.await.unwrap();
    assert_eq!(watch.defects, [""; 0]);
    assert_eq!(watch.seen.len(), published);
    late.sort_unstable();
    let of = |share: f64| late[((late.len() - 1) as f64 * share) as usize] / 1_000;
    eprintln!(
        "{published} messages, Postgres away for {outage:?}: latency p50 {} ms, p99 {} ms, longest {} ms",
        of(0.5),
        of(0.99),
        of(1.0)
    );
    assert!(
        of(1.0) < outage.as_millis() / 2,
        "a message waited for Postgres"
    );
    archived(&stack).await;
    let report = stack.check_archive().await;
    assert!(
        report.contains(&format!(
            "{published} messages compared: 0 missing, 0 extra, 0 different"
        )),
        "{report}"
    );
}
