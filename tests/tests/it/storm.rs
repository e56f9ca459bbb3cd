//! Everybody comes back at once, and is served from memory.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use client::{ConnectOptions, Connection};
use protocol::{Channel, Cursor, Encoding, From, ServerBody};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Nats, Stack, StackOptions, TokenSpec, setting, sign, texts, until};

/// Messages that each client misses.
const MISSED: usize = 20;

/// Clients of one room.
const ROOM_SIZE: usize = 50;

/// Connections from one source address: under the 28,000 ports that one has, by far.
const PER_ADDRESS: usize = 1_000;

/// Attempts to connect beyond the first.
const ATTEMPTS_MAX: u64 = 5;

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
        let mut attempts = 0;
        let mut connection = loop {
            match Connection::connect(&url, &self.token, &options).await {
                Ok((connection, _)) => break connection,
                // A machine that is busy with both sides of ten thousand
                // handshakes exceeds the edge's header timeout for some;
                // clients try again.
                Err(error) if attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                    let pause = Duration::from_millis(500 * attempts);
                    eprintln!("{}: attempt {attempts}: {error}", self.source);
                    tokio::time::sleep(pause).await;
                }
                Err(error) => panic!("the edges take everybody: {error}"),
            }
        };
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

/// Everybody comes, each through the next of the doors.
async fn all_come<'a>(
    visitors: Vec<Visitor>,
    doors: impl Iterator<Item = &'a String>,
) -> Vec<(Visitor, Vec<String>)> {
    let mut tasks = JoinSet::new();
    for (visitor, door) in visitors.into_iter().zip(doors) {
        tasks.spawn(visitor.come(door.clone()));
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

/// The balancer runs in this process and takes two file descriptors for a
/// client's one; beyond this many clients, 20,000 are not enough.
const THROUGH_BALANCER_MAX: usize = 6_000;

/// `REJOIN_TEST_STORM=10000` is the figure of the issue. So many come to the
/// edges in turn, and come back to the other one than they were on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_comes_back_at_once_and_is_served_from_memory() {
    let visitors = setting("REJOIN_TEST_STORM", 2_000);
    let stack = Stack::start_with(StackOptions {
        // The clients and the balancer of this test share the machine with the edges.
        limits: "connect_timeout_ms = 60000".to_owned(),
        ..StackOptions::default()
    })
    .await;
    let doors: Vec<String> = match visitors <= THROUGH_BALANCER_MAX {
        true => vec![stack.url()],
        false => stack.edges.iter().map(|edge| edge.url()).collect(),
    };
    let crowd = (0..visitors).map(Visitor::new).collect();
    let crowd = all_come(crowd, doors.iter().cycle()).await;
    let mut crowd: Vec<Visitor> = crowd.into_iter().map(|(visitor, _)| visitor).collect();

    stack.proxy.cut();
    for visitor in &mut crowd {
        visitor.connection = None;
    }
    until("every connection is cut", async || {
        let mut left = 0.0;
        for edge in &stack.edges {
            left += edge.http().metrics().await.sum("rejoin_connections");
        }
        left == 0.0
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
    let crowd = all_come(crowd, doors.iter().cycle().skip(1)).await;
    let took = begin.elapsed();
    for (visitor, got) in &crowd {
        assert_eq!(*got, missed, "in {}", visitor.room);
    }
    let requests = reads.subjects();
    // A tail that a busy machine kept silent for too long is replaced, once for its edge and not for anybody's catch-up.
    let (tails, reads): (Vec<_>, Vec<_>) =
        requests.iter().partition(|it| it.contains(".CONSUMER."));
    eprintln!(
        "{visitors} clients were cut at once and came back for {MISSED} messages each in {took:?}; \
         reads of the stream: {}, tails replaced: {}",
        reads.len(),
        tails.len()
    );
    // A tail that is replaced makes sure that the stream is still the same: a read or two of its own.
    let allowed = tails.len();
    assert!(reads.len() <= allowed, "as the stream sees it: {reads:?}");
    assert!(tails.len() < 20, "{tails:?}");
    let counted = log_requests(&stack).await - counted_before;
    assert_eq!(counted, 0.0, "as the edges count it, the archive included");
    for edge in &stack.edges {
        let had = edge.http().metrics().await.sum("rejoin_connects_total");
        assert!(had > visitors as f64 / 3.0, "{} had {had}", edge.name);
    }
}
