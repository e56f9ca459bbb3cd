//! From a publish to the tails.

use async_nats::HeaderMap;
use backplane::TailStart;
use delivery::publish::{Publish, PublishError, Publisher};
use futures_util::future::join_all;
use protocol::{MessageId, UserId};
use std::time::Duration;

use crate::support::{Reader, World, channel, publication};

#[tokio::test]
async fn what_is_published_arrives_in_order_on_every_shard() {
    for shards in [1, 4] {
        let world = World::new(shards).await;
        let mut readers: Vec<_> = (0..shards).map(|shard| world.fill(shard)).collect();
        let mut expected = vec![Vec::new(); usize::from(shards)];
        let mut heads = vec![None; usize::from(shards)];
        for n in 0..200 {
            let name = format!("room:{}", n % 20);
            let published = world.publish(&name, &n.to_string()).await;
            assert!(!published.duplicate);
            let shard = usize::from(channel(&name).shard(shards));
            expected[shard].push((n.to_string(), published.cursor));
            heads[shard] = Some(published.cursor);
        }
        for (shard, reader) in readers.iter_mut().enumerate() {
            let Some(head) = heads[shard] else {
                panic!("shard {shard} of {shards} got nothing")
            };
            reader.until(head).await;
            let got: Vec<_> = reader
                .messages
                .iter()
                .map(|message| (crate::support::text(message), message.position))
                .collect();
            assert_eq!(got, expected[shard]);
        }
    }
}

#[tokio::test]
async fn a_message_arrives_whole() {
    let world = World::new(1).await;
    let mut reader = world.fill(0);
    let mut sent = publication("room:1", "{\"a\":1}");
    sent.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let publisher = world.backplane.publisher();
    let published = publisher.publish(sent.clone()).await.unwrap();
    reader.until(published.cursor).await;
    let message = &reader.messages[0];
    assert_eq!(message.channel, sent.channel);
    assert_eq!(message.position, published.cursor);
    assert_eq!(message.id, Some(sent.id));
    assert_eq!(message.kind, sent.kind);
    assert_eq!(message.sender, sent.sender);
    assert_eq!(message.data, sent.data);
    assert_eq!(message.traceparent, sent.traceparent);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let age = i64::try_from(now.as_millis()).unwrap() - message.time_ms;
    assert!((0..10_000).contains(&age), "stored {age} ms ago");
}

#[tokio::test]
async fn one_id_is_one_message_within_its_scope() {
    let world = World::new(1).await;
    let publisher = world.backplane.publisher();
    let first = publication("room:1", "once");
    let stored = publisher.publish(first.clone()).await.unwrap();
    world.publish("room:1", "between").await;
    let again = publisher.publish(first.clone()).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.cursor, stored.cursor);

    // Another user, another service and another channel have other ids.
    let mut other_user = first.clone();
    other_user.publisher = Publisher::User(UserId::parse("43").unwrap());
    let mut service = first.clone();
    service.publisher = Publisher::Service("42".into());
    let mut elsewhere = first.clone();
    elsewhere.channel = channel("room:2");
    for publication in [other_user, service, elsewhere] {
        assert!(!publisher.publish(publication).await.unwrap().duplicate);
    }
    let stats = world.backplane.stats();
    assert_eq!(
        (stats.publishes, stats.acks, stats.duplicates),
        (6, 6, 1),
        "{stats:?}"
    );
}

#[tokio::test]
async fn a_hostile_part_is_refused_and_nothing_is_stored() {
    let world = World::new(1).await;
    let publisher = world.backplane.publisher();
    let mut with_kind = publication("room:1", "x");
    with_kind.kind = "a\r\nNats-Rollup: all".into();
    let mut too_large = publication("room:1", "x");
    too_large.data = vec![0; 2 << 20].into();
    for hostile in [with_kind, too_large] {
        let error = publisher.publish(hostile).await.unwrap_err();
        assert!(matches!(error, PublishError::Refused { .. }), "{error}");
    }
    let published = world.publish("room:1", "y").await;
    assert_eq!(published.cursor.seq, 1);
}

#[tokio::test]
async fn foreign_publishers_are_heard_and_cannot_forge_a_position() {
    let world = World::new(4).await;
    let client = world.foreign().await;
    let target = channel("room:7");
    let shard = target.shard(4);
    let mut reader = world.fill(shard);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Nats-Sequence", "99"),
        ("Nats-Subject", "rejoin.msg.0.room.other"),
        ("Nats-Stream", "OTHER"),
        ("Nats-Time-Stamp", "2001-01-01T00:00:00Z"),
        ("Nats-Num-Pending", "0"),
        ("Nats-Last-Sequence", "77"),
        ("Nats-Msg-Id", "order-7"),
        ("Rejoin-Sender", "not a user!"),
    ] {
        headers.insert(name, value);
    }
    // As any NATS client would, without knowing of shards.
    for n in 0..3 {
        let mut headers = headers.clone();
        headers.insert("Nats-Msg-Id", format!("order-{n}"));
        let answer = client
            .request_with_headers("rejoin.pub.room.7", headers, n.to_string().into())
            .await
            .unwrap();
        let ack: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(ack["stream"], format!("REJOIN_{shard}"), "{ack}");
    }
    // A subject that no channel has, and one in a shard that is not its own.
    let nowhere = [
        format!("rejoin.msg.{shard}.room.sp%ce"),
        format!("rejoin.msg.{}.room.7", (shard + 1) % 4),
    ];
    for subject in nowhere {
        client.request(subject, "x".into()).await.unwrap();
    }
    let last = world.publish("room:7", "ours").await;
    reader.until(last.cursor).await;
    assert_eq!(reader.data(), ["0", "1", "2", "ours"]);
    let message = &reader.messages[1];
    assert_eq!(message.id, Some(MessageId::parse("order-1").unwrap()));
    assert_eq!(message.sender, None);
    assert_eq!(message.channel, target);

    // The same by reading the stream.
    let page = crate::log::page(&world, "room:7", reader.starts[0].0).await;
    let page = page.unwrap();
    let positions: Vec<_> = page.messages.iter().map(|m| m.position).collect();
    let live: Vec<_> = reader.messages.iter().map(|m| m.position).collect();
    assert_eq!(positions, live);
    assert_eq!(page.messages[0].time_ms, reader.messages[0].time_ms);
}

#[tokio::test]
async fn a_tail_starts_where_it_is_told() {
    let world = World::new(1).await;
    for n in 0..100 {
        world.publish("room:1", &n.to_string()).await;
    }
    let mut head = Reader::new(world.backplane.tail(0, TailStart::Head));
    head.until_started(1).await;
    assert_eq!(head.starts[0].0.seq, 100);

    let info = world.api("STREAM.INFO.REJOIN_0", ().into()).await;
    let bytes = info["state"]["bytes"].as_u64().unwrap();
    let start = TailStart::Fill {
        budget_bytes: bytes / 4,
        max_age: None,
    };
    let mut quarter = Reader::new(world.backplane.tail(0, start));
    quarter.until_started(1).await;
    let after = quarter.starts[0].0.seq;
    assert!((74..=76).contains(&after), "a quarter starts after {after}");

    let start = TailStart::Fill {
        budget_bytes: u64::MAX,
        max_age: Some(Duration::from_secs(3600)),
    };
    let mut recent = Reader::new(world.backplane.tail(0, start));
    recent.until_started(1).await;
    assert_eq!(recent.starts[0].0.seq, 0);
}

#[tokio::test]
async fn a_burst_larger_than_any_request_arrives_whole() {
    let world = World::new(1).await;
    let publisher = world.backplane.publisher();
    // More messages than one pull asks for, and some larger than its bytes
    // leave room for.
    let mut sent = Vec::new();
    for round in 0..6 {
        let batch = (0..2_000).map(|n| {
            let size = if n % 500 == 0 { 600_000 } else { 10 };
            let mut publication = publication("room:1", "");
            publication.data = vec![b'a' + round; size].into();
            publisher.publish(publication)
        });
        sent.extend(join_all(batch).await.into_iter().map(Result::unwrap));
    }
    let last = sent.iter().map(|one| one.cursor.seq).max().unwrap();
    assert_eq!(last, 12_000);
    let mut reader = world.fill(0);
    reader.until(sent.last().unwrap().cursor).await;
    while reader.position.unwrap().seq < last {
        reader.step().await;
    }
    assert_eq!(reader.messages.len(), 12_000);
    assert_eq!(reader.starts.len(), 1, "the tail was replaced");
}
