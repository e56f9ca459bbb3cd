//! Who was away gets what was missed: exactly that, in order, then `live`, then new messages, on any edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{ConnectOptions, Connection};
use protocol::frame::Connected;
use protocol::{Channel, Encoding, From, MessageId};
use rand::Rng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{
    Stack, TokenSpec, Watch, connect, setting, sign, texts, with_one_and_four_shards,
};

with_one_and_four_shards!(
    after_a_disconnect,
    after_its_edge_was_killed,
    after_nats_was_restarted,
    while_publishing_goes_on,
);

/// What a client misses in these tests.
const MISSED: usize = 1_000;

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

fn resume(watch: &Watch, encoding: Encoding) -> ConnectOptions {
    let from = watch.position.map_or(From::Tail, From::Cursor);
    ConnectOptions::default()
        .encoding(encoding)
        .subscribe(room(), from)
}

/// Connects through the balancer until it is another edge than this.
async fn connect_elsewhere(
    stack: &Stack,
    edge: &str,
    options: &ConnectOptions,
) -> (Connection, Connected) {
    for _ in 0..10 {
        let (connection, connected) = stack.connect("42", &["room:1"], options).await;
        if *connected.edge != *edge {
            return (connection, connected);
        }
        connection.close().await;
    }
    panic!("the balancer gave no other edge than {edge}");
}

/// A client that is live and has seen some messages, and the edge that it is on.
async fn present(stack: &Stack, encoding: Encoding) -> (Connection, Watch, String) {
    let mut watch = Watch::new(&room());
    let options = resume(&watch, encoding);
    let (mut connection, connected) = stack.connect("42", &["room:1"], &options).await;
    watch.until_live(&mut connection).await;
    // An id is one message for ever, so each client's are its own.
    let before = texts(&format!("before-{}", connected.session), 10);
    stack.http().publish_all(&room(), &before).await;
    watch.until_seen(&mut connection, before.len()).await;
    watch.assert_exactly(&before);
    (connection, watch, connected.edge.to_string())
}

/// The client has come back: exactly what was missed, then `live`, then new messages.
async fn rejoined(
    stack: &Stack,
    connection: &mut Connection,
    watch: &mut Watch,
    missed: &[String],
) {
    watch.until_live(connection).await;
    watch.assert_exactly(missed);
    assert!(watch.seen.iter().all(|seen| seen.replayed));
    let new = texts(&format!("new-{}", missed[0]), 10);
    stack.http().publish_all(&room(), &new).await;
    watch.until_seen(connection, missed.len() + new.len()).await;
    watch.assert_exactly(&[missed, &new].concat());
    let live = watch.seen.iter().filter(|seen| !seen.replayed).count();
    assert_eq!(live, new.len());
}

async fn after_a_disconnect(shards: u16) {
    let stack = Stack::start(shards).await;
    for encoding in Encoding::ALL {
        let (connection, mut watch, edge) = present(&stack, encoding).await;
        connection.close().await;
        watch.away();
        let missed = texts(encoding.subprotocol(), MISSED);
        stack.http().publish_all(&room(), &missed).await;
        let options = resume(&watch, encoding);
        let (mut connection, _) = connect_elsewhere(&stack, &edge, &options).await;
        rejoined(&stack, &mut connection, &mut watch, &missed).await;
    }
}

async fn after_its_edge_was_killed(shards: u16) {
    let mut stack = Stack::start(shards).await;
    let (mut connection, mut watch, edge) = present(&stack, Encoding::Json).await;
    // Half of it before the kill, while nobody reads: it may be in the dead edge's buffers, or the client's.
    let missed = texts("missed", MISSED);
    let (early, late) = missed.split_at(MISSED / 2);
    watch.away();
    stack.http().publish_all(&room(), early).await;
    let killed = stack.edges.iter_mut().find(|it| it.name == edge);
    killed.expect("the edge it was on").kill();
    // What had reached the client counts as seen.
    let _broken = watch.until_closed(&mut connection).await;
    let seen = watch.texts();
    assert_eq!(seen, early[..seen.len()], "an order with a hole");
    watch.away();
    stack.http().publish_all(&room(), late).await;
    let options = resume(&watch, Encoding::Json);
    let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
    rejoined(&stack, &mut connection, &mut watch, &missed[seen.len()..]).await;
}

async fn after_nats_was_restarted(shards: u16) {
    let stack = Stack::start(shards).await;
    let (connection, mut watch, edge) = present(&stack, Encoding::Proto).await;
    drop(connection);
    watch.away();
    let missed = texts("missed", MISSED);
    let (early, late) = missed.split_at(MISSED / 2);
    stack.http().publish_all(&room(), early).await;
    // Another client stays, and sees the outage as a pause.
    let mut other = Watch::new(&room());
    let options = resume(&other, Encoding::Json);
    let (mut stays, _) = stack.connect("43", &["room:1"], &options).await;
    other.until_live(&mut stays).await;
    stack.nats.kill();
    stack.nats.restart().await.unwrap();
    for text in late {
        publish_until_acknowledged(&stack, text).await;
    }
    other.until_seen(&mut stays, late.len()).await;
    other.assert_exactly(late);
    let options = resume(&watch, Encoding::Proto);
    let (mut connection, _) = connect_elsewhere(&stack, &edge, &options).await;
    rejoined(&stack, &mut connection, &mut watch, &missed).await;
}

async fn publish_until_acknowledged(stack: &Stack, text: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let data = format!("\"{text}\"");
        let answer = stack.http().publish(&room(), text, &data).await;
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.body["error"]["retryable"], true, "{answer:?}");
        assert!(Instant::now() < end, "{answer:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Publishes one message after the other until it is stopped. Returns what was acknowledged, in order.
fn publish_on(url: String, stop: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let token = sign(&TokenSpec::new("writer", &["room:1"]));
        let (mut writer, _) = connect(&url, &token, &ConnectOptions::default()).await;
        let mut acknowledged = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let text = format!("m-{}", acknowledged.len());
            let data = format!("\"{text}\"");
            let published = writer
                .publish(MessageId::random(), room(), "", data.into())
                .await;
            published.expect("nothing is wrong with publishing");
            acknowledged.push(text);
        }
        acknowledged
    })
}

/// Comes and goes while messages are published. `REJOIN_TEST_REPEATS=1000` is the figure of the issue.
async fn while_publishing_goes_on(shards: u16) {
    let repeats = setting("REJOIN_TEST_REPEATS", 50);
    let stack = Stack::start(shards).await;
    let mut watch = Watch::new(&room());
    let options = resume(&watch, Encoding::Json);
    let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
    watch.until_live(&mut connection).await;
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_on(stack.edges[0].url(), Arc::clone(&stop));
    let mut replayed = 0;
    for repeat in 0..repeats {
        // It goes at any moment: before `subscribed`, in the replay, or live.
        let stays = Duration::from_micros(rand::rng().random_range(0..20_000));
        let _elapsed = timeout(stays, async {
            loop {
                let frame = connection.next().await.expect("the connection stays");
                watch.take(&frame);
            }
        })
        .await;
        match rand::random() {
            true => connection.close().await,
            false => drop(connection),
        }
        watch.live = false;
        let away = Duration::from_micros(rand::rng().random_range(0..20_000));
        sleep(away).await;
        let encoding = Encoding::ALL[repeat % 2];
        let options = resume(&watch, encoding);
        connection = stack.connect("42", &["room:1"], &options).await.0;
        replayed = watch.seen.iter().filter(|seen| seen.replayed).count();
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = publisher.await.unwrap();
    watch.until_seen(&mut connection, acknowledged.len()).await;
    watch
        .quiet(&mut connection, Duration::from_millis(200))
        .await;
    let seen = watch.texts();
    let lost = acknowledged.iter().filter(|it| !seen.contains(it)).count();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let duplicated = seen.len() - sorted.len();
    let reordered = watch
        .seen
        .windows(2)
        .filter(|it| it[0].cursor.seq >= it[1].cursor.seq)
        .count();
    eprintln!(
        "{repeats} reconnects over {} messages ({replayed} replayed), {shards} streams: lost {lost}, \
         duplicated {duplicated}, reordered {reordered}",
        acknowledged.len()
    );
    watch.assert_exactly(&acknowledged);
    assert!(repeats < 20 || replayed > 0, "nothing was ever missed");
}
