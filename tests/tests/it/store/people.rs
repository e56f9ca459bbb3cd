//! Rooms and receipts.

use std::time::{Duration, Instant};

use client::ConnectOptions;
use protocol::frame::{Ack, Receipt, UnsubscribeReason};
use protocol::{Channel, ClientBody, ClientFrame, Device, ErrorCode, From, MessageId, ServerBody};
use tokio::time::timeout;

use crate::harness::{SOON, Stack, TokenSpec, Watch, connect, sign, texts, until};

use super::{room, with_store};

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
    let options_of = |device: &str| ConnectOptions {
        device: Some(Device::parse(device).unwrap()),
        ..ConnectOptions::default()
    };
    let (mut phone, _) = connect(&stack.edges[0].url(), &token, &options_of("phone")).await;
    let (mut laptop, _) = connect(&stack.edges[1].url(), &token, &options_of("laptop")).await;
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
            // Its own tells the laptop what it has not read itself, should that have been too late for `subscribed`.
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
    let options = options_of("phone").subscribe(inbox.clone(), From::Acked);
    let (mut phone, _) = connect(&stack.edges[1].url(), &token, &options).await;
    let mut watch = Watch::new(&inbox);
    watch.until_live(&mut phone).await;
    watch.assert_exactly(&notes[2..]);

    // Whichever device comes hears how much is unread, at once or a little later; also where no WebSocket is possible.
    for edge in &stack.edges {
        let options = options_of("tablet").subscribe(inbox.clone(), From::Tail);
        let (mut tablet, _) = connect(&edge.url(), &token, &options).await;
        let counted = async {
            loop {
                match tablet.next().await.unwrap().body {
                    ServerBody::Subscribed(it) if it.unread > 0 => return it.unread,
                    ServerBody::Receipt(it) => return it.unread,
                    _ => {}
                }
            }
        };
        assert_eq!(timeout(SOON, counted).await.expect("a count"), 1);
        let path = "/v1/poll?channels=user:42&device=phone&from=acked";
        let polled = edge.http().get_as(&token, path).await;
        let frames = polled.body["frames"].to_string();
        assert!(frames.contains(&notes[2]), "{polled:?}");
        assert!(!frames.contains(&notes[1]), "{polled:?}");
    }
}
