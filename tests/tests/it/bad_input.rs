//! What hostile and broken clients get: the documented code, and nothing else breaks.

mod entry;
mod frames;
mod sockets;

use client::{Closed, ConnectOptions, Connection};
use protocol::{Channel, CloseCode, ErrorCode, MessageId, ServerBody};
use tokio::time::timeout;

use crate::harness::{SOON, Stack, StackOptions};

/// One edge whose clients have to hurry.
async fn stack() -> Stack {
    Stack::start_with(StackOptions {
        edges: 1,
        limits: "connect_timeout_ms = 1000\nping_ms = 1000\nsubscriptions = 8".to_owned(),
        ..StackOptions::default()
    })
    .await
}

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

async fn connected(stack: &Stack) -> Connection {
    let options = ConnectOptions::default();
    stack.connect("42", &["room:1", "many:*"], &options).await.0
}

/// The edge still does its work.
async fn assert_well(stack: &mut Stack) {
    assert!(stack.edges[0].runs(), "{}", stack.edges[0].log());
    assert!(stack.http().alive().await);
    let mut connection = connected(stack).await;
    let published = connection
        .publish(MessageId::random(), room(), "", "1".into())
        .await;
    assert!(published.is_ok(), "{published:?}");
}

/// The next error, with pings and whatever else left out.
async fn next_error(connection: &mut Connection) -> Result<(u32, ErrorCode, String), Closed> {
    let reading = async {
        loop {
            let frame = connection.next().await?;
            if let ServerBody::Error(error) = frame.body {
                return Ok((frame.req, error.code, error.message.into()));
            }
        }
    };
    timeout(SOON, reading).await.expect("an error or a close")
}

async fn closed(connection: &mut Connection) -> Option<CloseCode> {
    let reading = async {
        loop {
            if let Err(closed) = connection.next().await {
                return closed.close_code();
            }
        }
    };
    timeout(SOON, reading).await.expect("the edge closes")
}
