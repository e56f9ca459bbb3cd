//! What is too long, endless, broken or silent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{ConnectOptions, Connection};
use protocol::{CloseCode, ErrorCode, MessageId, limits};

use crate::harness::SOON;
use crate::harness::raw::{CONTINUATION, End, PING, Raw, TEXT};

use super::{assert_well, closed, connected, next_error, room, stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large() {
    let mut stack = stack().await;
    let frame_bytes = limits::frame_bytes(limits::MESSAGE_BYTES_DEFAULT, 8);
    let mut connection = connected(&stack).await;
    // Within the limit of a frame, though it is no frame.
    let fits = Bytes::from(" ".repeat(frame_bytes));
    connection.send_bytes(fits, false).await.unwrap();
    let (_, code, _) = next_error(&mut connection).await.unwrap();
    assert_eq!(code, ErrorCode::BadFrame);
    let long = Bytes::from(" ".repeat(frame_bytes + 1));
    let _closed = connection.send_bytes(long, false).await;
    assert_eq!(
        closed(&mut connection).await,
        Some(CloseCode::FrameTooLarge)
    );

    let address = stack.edges[0].address();
    // A length that nobody could keep: refused before anything of it has come.
    let mut raw = Raw::open(address, "rejoin.v1.json").await;
    let head = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    raw.write(&head).await.unwrap();
    assert_eq!(raw.end(SOON).await, End::Code(4504));

    // A message that never ends, in fragments that are each small.
    let mut raw = Raw::open(address, "rejoin.v1.json").await;
    let mut opcode = TEXT;
    let mut sent = 0;
    while sent < 4 * frame_bytes && raw.frame(false, opcode, &[b' '; 1_000]).await.is_ok() {
        opcode = CONTINUATION;
        sent += 1_000;
    }
    let end = raw.end(SOON).await;
    assert!(matches!(end, End::Code(4504) | End::Closed), "{end:?}");
    assert!(sent < 4 * frame_bytes || end == End::Code(4504));

    // Payloads at the limit of a message go through, one byte more does not.
    let mut connection = connected(&stack).await;
    for (bytes, stored) in [
        (limits::MESSAGE_BYTES_DEFAULT, true),
        (limits::MESSAGE_BYTES_DEFAULT + 1, false),
    ] {
        let data = Bytes::from(vec![0xff; bytes]);
        let published = connection
            .publish(MessageId::random(), room(), "", data)
            .await;
        match stored {
            true => assert!(published.is_ok(), "{published:?}"),
            false => {
                let refused = published.unwrap_err();
                assert_eq!(refused.refused().unwrap().code, ErrorCode::TooLarge);
            }
        }
        let body = "x".repeat(bytes);
        let answer = stack
            .http()
            .publish(&room(), &format!("id-{bytes}"), &body)
            .await;
        let expected = if stored { 200 } else { 413 };
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    assert_well(&mut stack).await;
}

/// Endless fragments of nothing: no bytes are ever too many, so time has to end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end_and_without_content() {
    let mut stack = stack().await;
    let mut raw = Raw::open(stack.edges[0].address(), "rejoin.v1.json").await;
    let begin = Instant::now();
    let mut opcode = TEXT;
    while begin.elapsed() < SOON && raw.frame(false, opcode, b"").await.is_ok() {
        opcode = CONTINUATION;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It never says connect, so it has one second.
    let end = raw.end(Duration::from_secs(1)).await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{end:?} only after {:?}",
        begin.elapsed()
    );
    assert_well(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_websocket_frames() {
    // One byte more than a control frame may have.
    const LONG_PING: [u8; 8 + 126] = {
        let mut frame = [0; 8 + 126];
        (frame[0], frame[1], frame[3]) = (0x89, 0xfe, 126);
        frame
    };
    let mut stack = stack().await;
    let address = stack.edges[0].address();
    let table: [(&str, &[u8]); 5] = [
        ("without a mask", &[0x81, 0x02, b'{', b'}']),
        ("a reserved opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("a reserved bit", &[0xc1, 0x80, 0, 0, 0, 0]),
        ("a ping in fragments", &[0x09, 0x80, 0, 0, 0, 0]),
        ("a long ping", &LONG_PING),
    ];
    for (what, bytes) in table {
        let mut raw = Raw::open(address, "rejoin.v1.json").await;
        raw.write(bytes).await.unwrap();
        let end = raw.end(SOON).await;
        assert!(
            matches!(end, End::Closed | End::Code(1002)),
            "{what}: {end:?}"
        );
    }
    // Pings of the WebSocket are answered, and keep nobody alive who does not connect.
    let mut raw = Raw::open(address, "rejoin.v1.json").await;
    let begin = Instant::now();
    while begin.elapsed() < SOON && raw.frame(true, PING, b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_well(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing() {
    let mut stack = stack().await;
    let options = ConnectOptions::default();
    let begin = Instant::now();
    let mut connection = Connection::open(&stack.url(), None, &options)
        .await
        .unwrap();
    assert_eq!(
        closed(&mut connection).await,
        Some(CloseCode::ConnectTimeout)
    );
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );

    // Who does not read cannot answer pings either: gone after two of them.
    let mut connection = connected(&stack).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        closed(&mut connection).await,
        Some(CloseCode::HeartbeatTimeout)
    );
    assert_well(&mut stack).await;
}
