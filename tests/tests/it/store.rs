//! With Postgres: weeks away, killed archivers, an outage, rooms, receipts, retries of any age, publishing from SQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::{ConnectOptions, Connection, RequestError};
use devstack::{Postgres, PostgresOptions};
use protocol::frame::{Ack, Receipt, UnsubscribeReason};
use protocol::{
    Channel, ClientBody, ClientFrame, Cursor, Device, Encoding, ErrorCode, From, MessageId,
    ServerBody,
};
use rand::Rng;
use tokio::time::{sleep, timeout};

use crate::harness::{
    Nats, SOON, Stack, StackOptions, TokenSpec, Watch, connect, setting, sign, texts, until,
    with_one_and_four_shards,
};

with_one_and_four_shards!(
    away_for_weeks,
    the_archiver_is_killed_again_and_again,
    an_old_epoch_is_continued_from_the_archive,
);

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// A deployment with a database of its own on the shared server.
async fn with_store(shards: u16, config: &str) -> StackOptions {
    let postgres = Postgres::shared().await.expect("Postgres");
    let database = postgres.scratch_database().await.expect("a database");
    StackOptions {
        shards,
        // The smallest: whatever is not new is not in it.
        limits: "window_bytes = 1048576".to_owned(),
        store: Some(format!(
            "url = \"{database}\"\n\n[store.archive]\nlease_ms = 1000\n{config}"
        )),
        ..StackOptions::default()
    }
}

/// Waits until the archive has everything of the channel's shard up to a position.
async fn archived(stack: &Stack) {
    let comparison = async || {
        let report = stack.check_archive().await;
        let complete = report
            .lines()
            .filter(|line| line.ends_with("; 0 not archived yet"));
        complete.count() == usize::from(stack.shards)
    };
    until("the archive is complete", comparison).await;
}

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
    loop {
        let info = nats
            .ask(&format!("$JS.API.STREAM.INFO.REJOIN_{shard}"), "")
            .await;
        // The last one stays, so that the stream knows where it is.
        if info["state"]["first_seq"].as_u64() >= Some(count as u64) {
            break;
        }
        assert!(begin.elapsed() < SOON * 3, "{}", info["state"]);
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

fn now_us() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_micros()
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
        sleep(Duration::from_secs(2)).await;
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

/// Half of the acknowledgements are cut; everything is tried again at once, beyond the stream's memory, and "a week later".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_any_age_are_one_message() {
    let count = setting("REJOIN_TEST_RETRIES", 400);
    let mut options = with_store(1, "").await;
    // A quarter of the window is for what a publish may take.
    options.config = "duplicate_window_ms = 8000\npublish_timeout_ms = 1500".to_owned();
    let stack = Stack::start_with(options).await;
    let week_ms = 7 * 24 * 3_600 * 1_000;
    // Made now, and made a week ago by a device that was offline.
    let ids: Vec<MessageId> = (0..count)
        .map(|number| match number % 4 {
            0 => uuid_v7(now_us() as u64 / 1_000 - week_ms),
            _ => MessageId::random(),
        })
        .collect();
    let mut positions: Vec<Option<Cursor>> = vec![None; count];
    let token = sign(&TokenSpec::new("writer", &["room:1"]));
    let (mut writer, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
    for (index, id) in ids.iter().enumerate() {
        let data = format!("\"{index}\"");
        if index % 2 == 0 {
            let published = publish(&mut writer, id, &data).await;
            positions[index] = Some(published);
        } else {
            // Sent, and gone before the answer.
            let body = ClientBody::Publish(protocol::frame::Publish {
                id: id.clone(),
                channel: room(),
                kind: "".into(),
                data: data.into(),
                traceparent: None,
            });
            let req = writer.new_req();
            writer.send(&ClientFrame::request(req, body)).await.unwrap();
            if index % 16 == 1 {
                stack.proxy.cut();
                (writer, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
            }
        }
    }
    for round in ["at once", "beyond the window"] {
        let (mut writer, _) = connect(&stack.url(), &token, &ConnectOptions::default()).await;
        for (index, id) in ids.iter().enumerate() {
            let data = format!("\"{index}\"");
            let published = publish(&mut writer, id, &data).await;
            let first = *positions[index].get_or_insert(published);
            assert_eq!(published, first, "{round}: {id}");
        }
        archived(&stack).await;
        sleep(Duration::from_secs(9)).await;
    }
    let options = ConnectOptions::default().subscribe(room(), From::Earliest);
    let (mut reader, _) = stack.connect("42", &["room:1"], &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut reader).await;
    assert_eq!(watch.defects, [""; 0]);
    let mut seen: Vec<String> = watch
        .seen
        .iter()
        .filter_map(|seen| seen.id.clone())
        .collect();
    let mut expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

/// Publishes until it is acknowledged.
async fn publish(writer: &mut Connection, id: &MessageId, data: &str) -> Cursor {
    let begin = Instant::now();
    loop {
        match writer
            .publish(id.clone(), room(), "", data.to_owned().into())
            .await
        {
            Ok(published) => {
                assert_eq!(published.id, *id);
                return published.cursor;
            }
            Err(RequestError::Refused(error)) if error.code.is_retryable() => {
                assert!(begin.elapsed() < SOON, "{error:?}");
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A UUID of version 7 of a millisecond (RFC 9562, section 5.7).
fn uuid_v7(ms: u64) -> MessageId {
    let random: u128 = rand::random();
    let bits = u128::from(ms) << 80 | random & ((1 << 80) - 1);
    let bits = bits & !(0xf << 76) | 7 << 76;
    let bits = bits & !(0x3 << 62) | 2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    MessageId::parse(&parts.join("-")).expect("a message id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_from_sql_if_and_only_if_it_commits() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let stack = Stack::start_with(StackOptions {
        store: Some(format!("url = \"{}\"", postgres.url())),
        ..StackOptions::default()
    })
    .await;
    let inbox = Channel::parse("user:42").unwrap();
    let options = ConnectOptions::default().subscribe(inbox.clone(), From::Tail);
    let (mut reader, _) = stack.connect("42", &[], &options).await;
    let mut watch = Watch::new(&inbox);
    watch.until_live(&mut reader).await;
    let publish =
        |text: &str| format!("SELECT rejoin.publish('user:42', 'invoice_approved', '\"{text}\"')");
    postgres.execute(&publish("committed")).await.unwrap();
    watch.until_seen(&mut reader, 1).await;
    let rolled_back = format!("BEGIN; {}; ROLLBACK", publish("rolled back"));
    postgres.execute(&rolled_back).await.unwrap();
    let many = texts("sql", 100);
    let all: Vec<String> = many.iter().map(|text| publish(text)).collect();
    postgres
        .execute(&format!("BEGIN; {}; COMMIT", all.join("; ")))
        .await
        .unwrap();
    let expected = [vec!["committed".to_owned()], many].concat();
    watch.until_seen(&mut reader, expected.len()).await;
    watch.quiet(&mut reader, Duration::from_millis(300)).await;
    watch.assert_exactly(&expected);
    // It waits for an edge, if there is none.
    drop(reader);
    let mut stack = stack;
    for edge in &mut stack.edges {
        edge.kill();
    }
    postgres
        .execute(&publish("nobody was there"))
        .await
        .unwrap();
    for edge in &mut stack.edges {
        edge.restart();
    }
    for edge in &mut stack.edges {
        edge.ready().await;
    }
    let from = watch.position.map_or(From::Tail, From::Cursor);
    let options = ConnectOptions::default().subscribe(inbox, from);
    let (mut reader, _) = stack.connect("42", &[], &options).await;
    watch.away();
    watch.until_seen(&mut reader, 1).await;
    assert_eq!(watch.texts(), ["nobody was there"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_decides_on_every_edge() {
    let stack = Stack::start_with(with_store(1, "").await).await;
    let http = stack.http();
    let token = sign(&TokenSpec::new("42", &[]));
    let mut connections = Vec::new();
    for edge in &stack.edges {
        let (mut connection, _) = connect(&edge.url(), &token, &ConnectOptions::default()).await;
        let refused = connection.subscribe(room(), From::Tail).await.unwrap_err();
        assert_eq!(refused.refused().unwrap().code, ErrorCode::Forbidden);
        connections.push(connection);
    }
    let added = http.put("/v1/rooms/1/members/42").await;
    assert_eq!(
        (added.status, &added.body["added"]),
        (200, &1.into()),
        "{added:?}"
    );
    for connection in &mut connections {
        connection.subscribe(room(), From::Tail).await.unwrap();
        let publishing = connection.publish(MessageId::random(), room(), "", "1".into());
        publishing.await.unwrap();
    }
    // Without naming it.
    let options = ConnectOptions {
        rooms: true,
        inbox: true,
        ..ConnectOptions::default()
    };
    let (mut all, _) = connect(&stack.url(), &token, &options).await;
    let mut subscribed = Vec::new();
    while subscribed.len() < 2 {
        let frame = timeout(SOON, all.next()).await.expect("in time").unwrap();
        if let ServerBody::Subscribed(it) = frame.body {
            subscribed.push(it.channel.to_string());
        }
    }
    subscribed.sort_unstable();
    assert_eq!(subscribed, ["room:1", "user:42"]);
    connections.push(all);
    let begin = Instant::now();
    let removed = http.delete("/v1/rooms/1/members/42").await;
    assert_eq!(
        (removed.status, &removed.body["removed"]),
        (200, &1.into()),
        "{removed:?}"
    );
    for connection in &mut connections {
        let told = async {
            loop {
                if let ServerBody::Unsubscribed(it) = connection.next().await.unwrap().body {
                    return it;
                }
            }
        };
        let told = timeout(SOON, told).await.expect("the subscription ends");
        assert_eq!(
            (told.channel, told.reason),
            (room(), UnsubscribeReason::Removed)
        );
        let refused = connection
            .publish(MessageId::random(), room(), "", "2".into())
            .await;
        assert_eq!(
            refused.unwrap_err().refused().unwrap().code,
            ErrorCode::Forbidden
        );
    }
    let took = begin.elapsed();
    eprintln!("a removal ended subscriptions on both edges in {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_on_one_device_is_known_on_the_others() {
    let stack = Stack::start_with(with_store(1, "").await).await;
    let http = stack.http();
    let inbox = Channel::parse("user:42").unwrap();
    let token = sign(&TokenSpec::new("42", &[]));
    let options = |device: &str| ConnectOptions {
        device: Some(Device::parse(device).unwrap()),
        ..ConnectOptions::default()
    };
    let (mut phone, _) = connect(&stack.edges[0].url(), &token, &options("phone")).await;
    let (mut laptop, _) = connect(&stack.edges[1].url(), &token, &options("laptop")).await;
    for connection in [&mut phone, &mut laptop] {
        connection
            .subscribe(inbox.clone(), From::Tail)
            .await
            .unwrap();
    }
    let notes = texts("note", 3);
    let cursors = http.publish_all(&inbox, &notes).await;
    let path = "/v1/users/42/inbox";
    until("three are unread", async || {
        http.get_as(&token, path).await.body["unread"] == 3
    })
    .await;
    let ack = Ack {
        channel: inbox.clone(),
        delivered: Some(cursors[1]),
        read: Some(cursors[1]),
    };
    phone
        .send(&ClientFrame::new(ClientBody::Ack(ack)))
        .await
        .unwrap();
    let told = async {
        loop {
            // The first one tells the laptop what it has not read itself.
            if let ServerBody::Receipt(it) = laptop.next().await.unwrap().body
                && it
                    .device
                    .as_ref()
                    .is_some_and(|device| device.as_str() != "laptop")
            {
                return it;
            }
        }
    };
    let Receipt {
        device,
        read,
        unread,
        ..
    } = timeout(SOON, told).await.expect("a receipt");
    assert_eq!(device.unwrap().as_str(), "phone");
    assert_eq!((read, unread), (Some(cursors[1]), 1));
    until("one is unread", async || {
        http.get_as(&token, path).await.body["unread"] == 1
    })
    .await;
    // The phone lost its storage: it goes on from what it had acknowledged.
    drop(phone);
    let options = options("phone").subscribe(inbox.clone(), From::Acked);
    let (mut phone, _) = connect(&stack.edges[1].url(), &token, &options).await;
    let mut watch = Watch::new(&inbox);
    watch.until_live(&mut phone).await;
    watch.assert_exactly(&notes[2..]);
}
