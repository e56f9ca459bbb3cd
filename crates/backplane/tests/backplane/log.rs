//! Reading older messages from the stream.

use delivery::{Log, Page, PageError, PageRequest, Stream};
use protocol::{Cursor, Epoch};
use serde_json::json;

use crate::support::{World, channel, text};

pub(crate) async fn page(world: &World, name: &str, after: Cursor) -> Result<Page, PageError> {
    page_of(world, name, after, 100, 1 << 20).await
}

async fn page_of(
    world: &World,
    name: &str,
    after: Cursor,
    max_messages: usize,
    max_bytes: usize,
) -> Result<Page, PageError> {
    let request = PageRequest {
        channel: channel(name),
        after,
        max_messages,
        max_bytes,
    };
    world.backplane.stream_log().page(request).await
}

/// A deterministic sequence, so that a failure can be seen again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test]
async fn a_chain_of_pages_is_the_channel() {
    let world = World::new(1).await;
    let mut random = Random(7);
    let mut truth = vec![Vec::new(); 5];
    let mut head = None;
    for n in 0..600 {
        let room = random.below(5);
        let data = "x".repeat(random.below(300)) + &n.to_string();
        let published = world.publish(&format!("room:{room}"), &data).await;
        truth[room].push((published.cursor.seq, data));
        head = Some(published.cursor);
    }
    let head = head.unwrap();
    let log = world.backplane.stream_log();
    assert_eq!(log.head(0).await.unwrap(), head);
    for _ in 0..20 {
        let room = random.below(5);
        let name = format!("room:{room}");
        let start = random.below(600) as u64;
        let mut after = Cursor::new(head.epoch, start);
        let mut got = Vec::new();
        let mut previous = 0;
        loop {
            let (count, bytes) = (1 + random.below(300), 1 + random.below(10_000));
            let page = page_of(&world, &name, after, count, bytes).await.unwrap();
            assert!(page.messages.len() <= count);
            assert_eq!(page.next_epoch, None);
            let size: usize = page.messages.iter().map(|m| m.data.len()).sum();
            assert!(
                size <= bytes || page.messages.len() == 1,
                "{size} > {bytes}"
            );
            for message in &page.messages {
                assert_eq!(message.channel, channel(&name));
                if message.prev != 0 {
                    assert_eq!(message.prev, previous);
                }
                previous = message.seq();
                got.push((message.seq(), text(message)));
            }
            if page.through == after.seq {
                break;
            }
            assert!(page.through > after.seq);
            after.seq = page.through;
        }
        assert_eq!(after.seq, head.seq, "the last page reaches the head");
        let expected: Vec<_> = truth[room]
            .iter()
            .filter(|m| m.0 > start)
            .cloned()
            .collect();
        assert_eq!(got, expected);
    }

    // The last n, for every n around the edges, and at an older position.
    for (room, truth) in truth.iter().enumerate() {
        let name = channel(&format!("room:{room}"));
        for through in [
            head,
            Cursor::new(head.epoch, 300),
            Cursor::new(head.epoch, 0),
        ] {
            let held: Vec<_> = truth.iter().filter(|m| m.0 <= through.seq).collect();
            for count in [
                0,
                1,
                2,
                17,
                held.len().max(1) - 1,
                held.len(),
                held.len() + 1,
            ] {
                let before = log.before_last(name.clone(), through, count).await.unwrap();
                let after = held.iter().filter(|m| m.0 > before.seq).count();
                assert_eq!(after, count.min(held.len()), "room {room}, last {count}");
            }
        }
    }
    assert!(world.backplane.stats().direct_gets > 0);
    assert_eq!(world.backplane.stats().leader_gets, 0);
}

#[tokio::test]
async fn a_channel_without_messages_reaches_the_head() {
    let world = World::new(1).await;
    let log = world.backplane.stream_log();
    let start = log.head(0).await.unwrap();
    assert_eq!(start.seq, 0);
    let empty = page(&world, "room:quiet", start).await.unwrap();
    assert_eq!((empty.messages.len(), empty.through), (0, 0));
    for _ in 0..5 {
        world.publish("room:1", "x").await;
    }
    let quiet = page(&world, "room:quiet", start).await.unwrap();
    assert_eq!((quiet.messages.len(), quiet.through), (0, 5));
}

#[tokio::test]
async fn positions_that_cannot_be_served_are_refused() {
    let world = World::new(1).await;
    let log = world.backplane.stream_log();
    for n in 0..10 {
        world
            .publish(&format!("room:{}", n % 2), &n.to_string())
            .await;
    }
    let epoch = log.head(0).await.unwrap().epoch;
    let purged = world
        .api("STREAM.PURGE.REJOIN_0", json!({ "seq": 5 }))
        .await;
    assert_eq!(purged["success"], true);

    let earliest = Cursor::new(epoch, 4);
    assert_eq!(log.earliest(channel("room:1")).await.unwrap(), earliest);
    for seq in 0..4 {
        let expired = page(&world, "room:1", Cursor::new(epoch, seq)).await;
        assert_eq!(expired.unwrap_err(), PageError::Expired { earliest });
    }
    let rest = page(&world, "room:1", earliest).await.unwrap();
    let seqs: Vec<_> = rest.messages.iter().map(delivery::Message::seq).collect();
    assert_eq!((seqs, rest.through), (vec![6, 8, 10], 10));
    let other = page(&world, "room:1", Cursor::new(Epoch(epoch.0 ^ 1), 8)).await;
    assert_eq!(other.unwrap_err(), PageError::UnknownEpoch);
    let ahead = page(&world, "room:1", Cursor::new(epoch, 11))
        .await
        .unwrap();
    assert_eq!((ahead.messages.len(), ahead.through), (0, 11));

    // All gone: nothing is left, and only the head is complete.
    world.api("STREAM.PURGE.REJOIN_0", json!({})).await;
    let expired = page(&world, "room:1", earliest).await.unwrap_err();
    let earliest = Cursor::new(epoch, 10);
    assert_eq!(expired, PageError::Expired { earliest });
    let at_head = page(&world, "room:1", earliest).await.unwrap();
    assert_eq!((at_head.messages.len(), at_head.through), (0, 10));
    let last = log.before_last(channel("room:1"), earliest, 3).await;
    assert_eq!(last.unwrap(), earliest);
}
