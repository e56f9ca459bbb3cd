//! The end of a connection that broke the protocol.

use std::future::poll_fn;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A text frame's header with a reserved bit, and one that is over the limit.
const RESERVED: [u8; 6] = [0xc1, 0x81, 0, 0, 0, 0];
const TOO_LONG: [u8; 8] = [0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0];

async fn end(bad: &[u8], expected: u16) {
    let (io, mut peer) = tokio::io::duplex(4 * 1024);
    let mut socket = Socket::new(io, Encoding::Json, 1_000);
    socket.feed(bad);
    match poll_fn(|cx| socket.poll_receive(cx)).await {
        Received::Broken => {}
        Received::TooLarge => socket.close(CloseCode::FrameTooLarge),
        other => panic!("{other:?}"),
    }
    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();

    // The close frame, and then the end, although the socket is still there.
    let mut said = Vec::new();
    let read = peer.read_to_end(&mut said);
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    read.expect("the end").unwrap();
    let &[0x88, length, high, low, ..] = &*said else {
        panic!("{said:?}");
    };
    assert_eq!(usize::from(length), said.len() - 2);
    assert_eq!(u16::from_be_bytes([high, low]), expected);

    // Whatever else it says is taken and means nothing, until it ends too.
    let mut receive = poll_fn(|cx| socket.poll_receive(cx)).boxed();
    for _ in 0..100 {
        let written = peer.write_all(&[0x88; 1_000]);
        tokio::select! {
            written = written => written.unwrap(),
            received = &mut receive => panic!("{received:?}"),
        }
    }
    drop(peer);
    assert!(matches!(receive.await, Received::Gone));
}

#[tokio::test]
async fn who_broke_the_protocol_reads_why_and_is_read_to_the_end() {
    end(&RESERVED, 1002).await;
}

#[tokio::test]
async fn who_says_too_much_reads_why_and_is_read_to_the_end() {
    end(&TOO_LONG, CloseCode::FrameTooLarge.as_u16()).await;
}
