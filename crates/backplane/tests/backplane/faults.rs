//! What happens when the server does what servers do.

use std::time::{Duration, Instant};

use delivery::Log;
use delivery::publish::{Publish, PublishError};
use futures_util::future::join_all;
use protocol::Cursor;
use serde_json::json;

use crate::support::{World, channel, publication};

#[tokio::test]
async fn a_recreated_stream_is_a_new_epoch() {
    let world = World::new(1).await;
    let mut reader = world.fill(0);
    let mut old = world.publish("room:1", "a").await.cursor;
    for _ in 0..9 {
        old = world.publish("room:1", "a").await.cursor;
    }
    reader.until(old).await;
    let deleted = world.api("STREAM.DELETE.REJOIN_0", ().into()).await;
    assert_eq!(deleted["success"], true);
    let mut reader_task = tokio::spawn(async move {
        reader.until_started(2).await;
        reader
    });
    let new = world.publish("room:1", "b").await.cursor;
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(new.seq, 1);
    let mut reader = (&mut reader_task).await.unwrap();
    reader.until(new).await;
    assert_eq!(reader.messages.last().unwrap().position, new);
    let page = crate::log::page(&world, "room:1", old).await;
    assert_eq!(page.unwrap_err(), delivery::PageError::UnknownEpoch);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let world = World::new(1).await;
    let publisher = world.backplane.publisher();
    let mut reader = world.fill(0);
    reader.until_started(1).await;
    let start = reader.starts[0].0;
    let publishing = async {
        let mut acknowledged = Vec::new();
        for n in 0..400 {
            let batch = (0..10).map(|m| {
                let publisher = publisher.clone();
                async move {
                    let data = format!("{n}-{m}");
                    let publication = publication("room:1", &data);
                    // As a client would: under the same id until it is
                    // acknowledged.
                    loop {
                        match publisher.publish(publication.clone()).await {
                            Ok(published) => return (published.cursor, data),
                            Err(PublishError::Unavailable { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
            acknowledged.extend(join_all(batch).await);
        }
        acknowledged
    };
    let killing = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            world.nats.kill();
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.nats.restart().await.unwrap();
        }
    };
    let (mut acknowledged, ()) = tokio::join!(publishing, killing);
    acknowledged.sort_by_key(|one| one.0.seq);
    let last = acknowledged.last().unwrap().0;
    reader.until(last).await;
    assert!(reader.starts.len() > 1, "the server was never missed");
    let mut position = start;
    for (after, _) in &reader.starts {
        assert_eq!(after.epoch, start.epoch);
        assert!(after.seq >= position.seq);
        position = *after;
    }
    let got: Vec<_> = reader
        .messages
        .iter()
        .map(|message| (message.position, crate::support::text(message)))
        .collect();
    assert_eq!(got.len(), acknowledged.len());
    assert_eq!(got, acknowledged);
    assert!(world.backplane.stats().reconnects > 0);
}

#[tokio::test]
async fn a_tail_is_back_soon_after_an_outage() {
    let world = World::new(1).await;
    let mut reader = world.fill(0);
    reader.until_started(1).await;
    world.nats.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!world.backplane.connected());
    world.nats.restart().await.unwrap();
    let back = Instant::now();
    let published = world.publish("room:1", "x").await;
    reader.until(published.cursor).await;
    let silence = back.elapsed();
    // The aim is 1 s; a busy machine gets another one.
    assert!(silence < Duration::from_secs(2), "silent for {silence:?}");
    assert!(world.backplane.connected());
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_more_than_its_pause() {
    let world = World::new(1).await;
    let mut reader = world.fill(0);
    reader.until_started(1).await;
    world.nats.pause();
    // Long enough for the tail to miss its heartbeats and to be asked anew.
    let publisher = world.backplane.publisher();
    let hanging = tokio::spawn(async move { publisher.publish(publication("room:1", "x")).await });
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    world.nats.resume();
    let back = Instant::now();
    let published = hanging.await.unwrap().unwrap();
    reader.until(published.cursor).await;
    let silence = back.elapsed();
    assert!(silence < Duration::from_millis(1_500), "{silence:?}");
    let second = world.publish("room:1", "y").await;
    reader.until(second.cursor).await;
    assert_eq!(reader.data(), ["x", "y"], "stored once, seen once");
}

#[tokio::test]
async fn a_publish_without_a_server_ends_in_time() {
    let world = World::with(1, |config| {
        config.publish_timeout_ms = 1_200;
        config.request_timeout_ms = 300;
    })
    .await;
    world.nats.kill();
    let publisher = world.backplane.publisher();
    let begin = Instant::now();
    let error = publisher.publish(publication("room:1", "x")).await;
    let took = begin.elapsed();
    let error = error.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable { .. }), "{error}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let log = world.backplane.stream_log();
    let error = log.earliest(channel("room:1")).await.unwrap_err();
    assert!(
        matches!(error, delivery::PageError::Unavailable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_stream_refuses_and_keeps() {
    let world = World::with(1, |config| config.stream_max_bytes = 1 << 20).await;
    let publisher = world.backplane.publisher();
    let mut last = None;
    let error = loop {
        let mut large = publication("room:1", "");
        large.data = vec![b'x'; 50_000].into();
        match publisher.publish(large).await {
            Ok(published) => last = Some(published.cursor),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PublishError::Full { .. }), "{error}");
    let last = last.unwrap();
    assert!(last.seq >= 19, "full after {last}");
    let mut reader = world.fill(0);
    reader.until(last).await;
    let seqs: Vec<_> = reader.messages.iter().map(|m| m.seq()).collect();
    assert_eq!(seqs, (1..=last.seq).collect::<Vec<_>>());
    // Once the archiver has made room, it goes on.
    world
        .api("STREAM.PURGE.REJOIN_0", json!({ "seq": last.seq }))
        .await;
    assert_eq!(world.publish("room:1", "y").await.cursor.seq, last.seq + 1);
}

#[tokio::test]
async fn messages_removed_from_inside_do_not_stop_a_tail() {
    let world = World::new(1).await;
    for n in 0..20 {
        world.publish(&format!("room:{}", n % 2), "x").await;
    }
    // A channel purged by an operator: holes everywhere, and at the end.
    let purge = json!({ "filter": "rejoin.msg.0.room.1" });
    world.api("STREAM.PURGE.REJOIN_0", purge).await;
    let mut reader = world.fill(0);
    reader.until_started(1).await;
    let (after, last) = reader.starts[0];
    assert_eq!((after.seq, last), (0, 20));
    reader.until(Cursor::new(after.epoch, 20)).await;
    assert_eq!(reader.messages.len(), 10);
    // And while it runs, before it has seen them.
    let published = world.publish("room:0", "y").await;
    reader.until(published.cursor).await;
    assert_eq!(reader.starts.len(), 1, "the tail was replaced");
}

#[tokio::test]
async fn a_message_that_the_client_library_cannot_read_does_not_stop_a_tail() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new(1).await;
    let mut reader = world.fill(0);
    let before = world.publish("room:1", "before").await;
    reader.until(before.cursor).await;
    // Headers that no client library would send; the server stores them.
    let address = world.nats.url().replace("nats://", "");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let headers = b"NATS/1.0\r\nno colon here\r\nBad: \xff\xfe\r\n\r\n";
    let total = headers.len() + 6;
    let head = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB rejoin.msg.0.room.1 {} {total}\r\n",
        headers.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(headers).await.unwrap();
    socket.write_all(b"poison\r\nPING\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"PONG\r\n") {
        assert!(socket.read_buf(&mut answer).await.unwrap() > 0);
    }
    let begin = Instant::now();
    let after = world.publish("room:1", "after").await;
    reader.until(after.cursor).await;
    assert_eq!(reader.data(), ["before", "poison", "after"]);
    assert_eq!(after.cursor.seq, 3);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut at = Cursor::new(after.cursor.epoch, 0);
    let mut data = Vec::new();
    while at.seq < 3 {
        let page = crate::log::page(&world, "room:1", at).await.unwrap();
        assert!(page.through > at.seq, "no page gets past {at}");
        at.seq = page.through;
        data.extend(page.messages.iter().map(crate::support::text));
    }
    assert_eq!(data, ["before", "poison", "after"]);

    use delivery::archive::ArchiveSource;
    let source = world.backplane.archive_source(0);
    let mut archived = Vec::new();
    while archived.len() < 3 {
        assert!(begin.elapsed() < crate::support::PATIENCE);
        let Ok(batch) = source.next_batch(10, Duration::from_secs(1)).await else {
            continue;
        };
        for one in batch.messages {
            archived.push(crate::support::text(&one.message));
            source.ack_through(one.message.seq()).await.unwrap();
        }
    }
    assert_eq!(archived, ["before", "poison", "after"]);
}

#[tokio::test]
async fn a_data_directory_restored_from_an_older_copy_is_noticed() {
    use delivery::archive::ArchiveSource;
    let world = World::new(1).await;
    let mut reader = world.fill(0);
    for n in 0..5 {
        world.publish("room:1", &format!("kept {n}")).await;
    }
    world.nats.stop().await;
    let store = world.nats.data_dir().join("jetstream");
    let backup = tempfile::tempdir().unwrap();
    copy(&store, backup.path());
    world.nats.restart().await.unwrap();
    let mut lost = None;
    for n in 0..5 {
        lost = Some(world.publish("room:1", &format!("lost {n}")).await.cursor);
    }
    let lost = lost.unwrap();
    reader.until(lost).await;
    let starts = reader.starts.len();
    world.nats.stop().await;
    std::fs::remove_dir_all(&store).unwrap();
    copy(backup.path(), &store);
    world.nats.restart().await.unwrap();

    // The sequences of what was lost are given to other messages, past what
    // the tail had seen, before it is back.
    let client = world.foreign().await;
    for n in 0..7 {
        let payload = format!("new {n}");
        let answer = client.request("rejoin.msg.0.room.1", payload.into()).await;
        answer.unwrap();
    }
    reader.until_started(starts + 1).await;
    let (after, last) = *reader.starts.last().unwrap();
    // Its epoch is the same until the archiver notices.
    assert_eq!(after.epoch, lost.epoch);
    assert_eq!(after.seq, 0, "the window is filled anew");
    assert!(last < 13);
    let published = world.publish("room:1", "now").await.cursor;
    assert_eq!((published.epoch, published.seq), (lost.epoch, 13));
    let before = reader.messages.len();
    reader.until(published).await;
    let data = &reader.data()[before..];
    assert_eq!(data.len(), 13);
    assert_eq!(
        (&*data[4], &*data[5], &*data[12]),
        ("kept 4", "new 0", "now")
    );

    let source = world.backplane.archive_source(0);
    let epoch = source.begin_epoch().await.unwrap();
    let published = world.publish("room:1", "later").await.cursor;
    assert_eq!((published.epoch, published.seq), (epoch, 14));
    reader.until(published).await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
