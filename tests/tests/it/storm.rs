//! Everybody comes back at once, and is served from memory.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use client::{ConnectOptions, Connection};
use protocol::{Channel, Cursor, Encoding, From, ServerBody};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Nats, Stack, TokenSpec, setting, sign, texts, until};

/// Messages that each client misses.
const MISSED: usize = 20;

/// Clients of one room.
const ROOM_SIZE: usize = 50;

/// Connections from one source address: under the 28,000 ports that one has, by far.
const PER_ADDRESS: usize = 1_000;

/// For all of them together, on a busy machine with a debug build.
const PATIENCE: Duration = Duration::from_secs(90);

struct Visitor {
    room: Channel,
    source: IpAddr,
    token: String,
    position: Option<Cursor>,
    connection: Option<Connection>,
}

impl Visitor {
    fn new(number: usize) -> Self {
        let room = format!("room:{}", number / ROOM_SIZE);
        let host = 2 + number / PER_ADDRESS;
        let host = u8::try_from(host).expect("at most 250,000 connections");
        Self {
            token: sign(&TokenSpec::new(&format!("user-{number}"), &[&room])),
            room: Channel::parse(&room).unwrap(),
            source: IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)),
            position: None,
            connection: None,
        }
    }

    /// Comes (back) and reads until it is live. Returns what it got.
    async fn come(mut self, url: String) -> (Self, Vec<String>) {
        let options = ConnectOptions {
            source_ip: Some(self.source),
            encoding: Encoding::Proto,
            timeout: PATIENCE,
            ..ConnectOptions::default()
        };
        let from = self.position.map_or(From::Tail, From::Cursor);
        let options = options.subscribe(self.room.clone(), from);
        let connected = Connection::connect(&url, &self.token, &options).await;
        let (mut connection, _) = connected.expect("the edges take everybody");
        let mut got = Vec::new();
        loop {
            match connection.next().await.expect("the connection stays").body {
                ServerBody::Messages(batch) => {
                    got.extend(batch.messages.iter().map(|message| {
                        let text = String::from_utf8_lossy(&message.data).into_owned();
                        text.trim_matches('"').to_owned()
                    }));
                }
                ServerBody::Live { cursor, .. } => {
                    self.position = Some(cursor);
                    break;
                }
                ServerBody::Subscribed(_) | ServerBody::Ping { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        self.connection = Some(connection);
        (self, got)
    }
}

async fn all_come(visitors: Vec<Visitor>, url: &str) -> Vec<(Visitor, Vec<String>)> {
    let mut tasks = JoinSet::new();
    for visitor in visitors {
        tasks.spawn(visitor.come(url.to_owned()));
    }
    timeout(PATIENCE, tasks.join_all())
        .await
        .expect("everybody is live in time")
}

/// Requests to the archive and the stream, of all edges.
async fn log_requests(stack: &Stack) -> f64 {
    let mut sum = 0.0;
    for edge in &stack.edges {
        sum += edge.http().metrics().await.sum("rejoin_log_requests_total");
    }
    sum
}

/// `REJOIN_TEST_STORM=10000` is the figure of the issue; it needs 30,000 file descriptors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_comes_back_at_once_and_is_served_from_memory() {
    let visitors = setting("REJOIN_TEST_STORM", 2_000);
    let stack = Stack::start(1).await;
    let crowd = (0..visitors).map(Visitor::new).collect();
    let crowd = all_come(crowd, &stack.url()).await;
    let mut crowd: Vec<Visitor> = crowd.into_iter().map(|(visitor, _)| visitor).collect();

    stack.proxy.cut();
    for visitor in &mut crowd {
        visitor.connection = None;
    }
    until("every connection is cut", async || {
        stack.proxy.connections() == 0
    })
    .await;
    let missed = texts("missed", MISSED);
    for room in 0..visitors.div_ceil(ROOM_SIZE) {
        let room = Channel::parse(&format!("room:{room}")).unwrap();
        stack.edges[0].http().publish_all(&room, &missed).await;
    }

    // Whatever reads the stream, single or batched, and whatever would read it for one client.
    let reads = Nats::connect(&stack.nats).await;
    let reads = reads
        .count(&[
            "$JS.API.DIRECT.GET.>",
            "$JS.API.STREAM.MSG.GET.>",
            "$JS.API.CONSUMER.CREATE.>",
            "$JS.API.CONSUMER.DURABLE.CREATE.>",
            "$JS.API.CONSUMER.MSG.NEXT.>",
        ])
        .await;
    let counted_before = log_requests(&stack).await;
    let begin = Instant::now();
    let crowd = all_come(crowd, &stack.url()).await;
    let took = begin.elapsed();
    for (visitor, got) in &crowd {
        assert_eq!(*got, missed, "in {}", visitor.room);
    }
    let reads_of_the_stream = reads.get();
    eprintln!(
        "{visitors} clients were cut at once and came back for {MISSED} messages each in {took:?}; \
         reads of the stream: {reads_of_the_stream}"
    );
    assert_eq!(reads_of_the_stream, 0, "as the stream sees it");
    let counted = log_requests(&stack).await - counted_before;
    assert_eq!(counted, 0.0, "as the edges count it, the archive included");
    for edge in &stack.edges {
        let given = stack.proxy.given(edge.address());
        assert!(given > visitors as u64 / 3, "{} had {given}", edge.name);
    }
}
