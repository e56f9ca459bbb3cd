//! Every edge is replaced, one after the other, under load.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{Closed, ConnectError, ConnectOptions, Connection};
use protocol::{Channel, CloseCode, Cursor, Encoding, From, ServerBody};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Nats, Stack, StackOptions, TokenSpec, setting, sign, until};

const EDGES: usize = 4;

/// Clients of one room.
const ROOM_SIZE: usize = 50;

/// Connections from one source address: under the 28,000 ports that one has, by far.
const PER_ADDRESS: usize = 1_000;

/// What each edge takes at one moment, on top of its share of the fleet's rate.
const BURST: usize = 10;

/// For everything together, on a busy machine with a debug build.
const PATIENCE: Duration = Duration::from_secs(280);

/// What became of all clients.
#[derive(Default)]
struct Counts {
    connected: AtomicUsize,
    live: AtomicUsize,
    refused: AtomicUsize,
    sent_away: AtomicUsize,
    abrupt: AtomicUsize,
}

struct Visitor {
    room: Channel,
    token: String,
    options: ConnectOptions,
    doors: Arc<[String]>,
    counts: Arc<Counts>,
    /// How many messages its room will have had, once that is known.
    total: watch::Receiver<Option<usize>>,
    position: Option<Cursor>,
    got: Vec<String>,
}

impl Visitor {
    /// Stays until it has all messages, whatever happens to the edges. Returns them.
    async fn stay(mut self) -> Vec<String> {
        loop {
            let connection = self.come_in().await;
            let Some(retry_after) = self.read(connection).await else {
                return self.got;
            };
            tokio::time::sleep(retry_after).await;
        }
    }

    /// Knocks at one door after the other, as a balancer that does not know which edge is there.
    async fn come_in(&mut self) -> Connection {
        let from = self.position.map_or(From::Tail, From::Cursor);
        let options = self.options.clone().subscribe(self.room.clone(), from);
        loop {
            let door = &self.doors[rand::random_range(0..self.doors.len())];
            let wait = match Connection::connect(door, &self.token, &options).await {
                Ok((connection, _)) => {
                    self.counts.connected.fetch_add(1, Ordering::Relaxed);
                    return connection;
                }
                Err(ConnectError::Http { status: 503, body }) => {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                    let body: Value = serde_json::from_str(&body).unwrap_or_default();
                    let ms = body["error"]["retry_after_ms"].as_u64().unwrap_or(200);
                    Duration::from_millis(ms)
                }
                // The edge is down, or went down in between.
                Err(_) => Duration::from_millis(rand::random_range(20..200)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads until it is over (`None`), or until the edge sends it away.
    async fn read(&mut self, mut connection: Connection) -> Option<Duration> {
        let mut retry_after = Duration::ZERO;
        let mut live = false;
        let closed = loop {
            if self
                .total
                .borrow()
                .is_some_and(|total| self.got.len() >= total)
            {
                break None;
            }
            let frame = tokio::select! {
                frame = connection.next() => frame,
                _ = self.total.changed() => continue,
            };
            match frame {
                Ok(frame) => match frame.body {
                    ServerBody::Messages(batch) => {
                        for message in &batch.messages {
                            self.position = Some(Cursor::new(batch.epoch, message.seq));
                            let text = String::from_utf8_lossy(&message.data).into_owned();
                            self.got.push(text.trim_matches('"').to_owned());
                        }
                    }
                    ServerBody::Live { cursor, .. } => {
                        self.position = Some(cursor);
                        live = true;
                        self.counts.live.fetch_add(1, Ordering::Relaxed);
                    }
                    ServerBody::Goaway(goaway) => {
                        retry_after = Duration::from_millis(goaway.retry_after_ms);
                    }
                    ServerBody::Subscribed(subscribed) => {
                        self.position = Some(subscribed.cursor);
                    }
                    ServerBody::Ping { .. } => {}
                    other => panic!("{other:?}"),
                },
                Err(closed) => break Some(closed),
            }
        };
        if live {
            self.counts.live.fetch_sub(1, Ordering::Relaxed);
        }
        self.note(&closed?);
        Some(retry_after)
    }

    fn note(&self, closed: &Closed) {
        let count = match closed.close_code() {
            Some(CloseCode::Draining) => &self.counts.sent_away,
            _ => {
                eprintln!("{closed}");
                &self.counts.abrupt
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an edge had let in at a moment of its own clock.
#[derive(Debug, Clone)]
struct Sample {
    edge: String,
    admitted: f64,
    uptime_s: f64,
}

/// The fastest second of the whole fleet, until it is told to stop.
async fn watch_rate(stack: &[crate::harness::Http], stop: watch::Receiver<bool>) -> f64 {
    let mut last: Vec<Sample> = Vec::new();
    let mut peak = 0.0_f64;
    while !*stop.borrow() {
        let mut samples = Vec::new();
        for http in stack {
            // Only itself: each is asked, and one that is down says nothing.
            let report = http.get("/v1/admin/edges").await.body;
            let edges = report["edges"].as_array().cloned().unwrap_or_default();
            if edges.len() >= samples.len() {
                samples = edges;
            }
        }
        let samples: Vec<Sample> = samples
            .iter()
            .map(|it| Sample {
                edge: it["edge"].as_str().unwrap_or_default().to_owned(),
                admitted: it["admitted"].as_f64().unwrap_or_default(),
                uptime_s: it["uptime_ms"].as_f64().unwrap_or_default() / 1_000.0,
            })
            .collect();
        let rate = |now: &Sample| {
            let before = last.iter().find(|it| it.edge == now.edge);
            // A new process begins anew.
            let before = before.filter(|it| it.uptime_s < now.uptime_s);
            let (admitted, uptime_s) = before.map_or((0.0, 0.0), |it| (it.admitted, it.uptime_s));
            (now.admitted - admitted) / (now.uptime_s - uptime_s).max(1.0)
        };
        peak = peak.max(samples.iter().map(rate).sum());
        last = samples;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
    }
    peak
}

/// `REJOIN_TEST_ROLL=10000` is the long form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing_and_makes_no_storm() {
    let visitors = setting("REJOIN_TEST_ROLL", 400);
    let per_s = visitors / 5;
    let mut stack = Stack::start_with(StackOptions {
        edges: EDGES,
        limits: format!(
            "connect_timeout_ms = 60000\n\
             [edge.admission]\nconnects_burst = {BURST}\nfleet_connects_per_s = {per_s}"
        ),
        ..StackOptions::default()
    })
    .await;
    let counts = Arc::new(Counts::default());
    let (total, total_known) = watch::channel(None);
    let doors: Arc<[String]> = stack.edges.iter().map(|edge| edge.url()).collect();
    let mut crowd = JoinSet::new();
    for number in 0..visitors {
        let room = format!("room:{}", number / ROOM_SIZE);
        let host = u8::try_from(2 + number / PER_ADDRESS).expect("at most 250,000");
        let visitor = Visitor {
            token: sign(&TokenSpec::new(&format!("user-{number}"), &[&room])),
            room: Channel::parse(&room).unwrap(),
            options: ConnectOptions {
                source_ip: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host))),
                encoding: Encoding::Proto,
                timeout: PATIENCE,
                ..ConnectOptions::default()
            },
            doors: Arc::clone(&doors),
            counts: Arc::clone(&counts),
            total: total_known.clone(),
            position: None,
            got: Vec::new(),
        };
        crowd.spawn(visitor.stay());
    }
    let https: Vec<_> = stack.edges.iter().map(|edge| edge.http()).collect();
    let (stop, stopped) = watch::channel(false);
    let rate = tokio::spawn(async move { watch_rate(&https, stopped).await });
    let everybody_is_live = async || {
        let begin = Instant::now();
        while counts.live.load(Ordering::Relaxed) < visitors {
            assert!(begin.elapsed() < PATIENCE, "not everybody is live");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    everybody_is_live().await;

    // A message to every room now and then, all the time.
    let rooms = visitors.div_ceil(ROOM_SIZE);
    let mut nats = Nats::connect(&stack.nats).await;
    let (roll, rolled) = watch::channel(false);
    let publisher = tokio::spawn(async move {
        let mut rounds = 0;
        while !*rolled.borrow() || rounds < 3 {
            for room in 0..rooms {
                let subject = format!("rejoin.pub.room.{room}");
                nats.publish_all(&subject, &[format!("round-{rounds}")])
                    .await;
            }
            rounds += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        rounds
    });

    let begin = Instant::now();
    for edge in &mut stack.edges {
        edge.terminate();
        edge.ended(Duration::from_secs(60)).await;
        edge.restart();
        edge.ready().await;
        everybody_is_live().await;
    }
    let took = begin.elapsed();
    roll.send_replace(true);
    let rounds = publisher.await.expect("no panic");
    total.send_replace(Some(rounds));
    let expected: Vec<String> = (0..rounds).map(|round| format!("round-{round}")).collect();
    let got = timeout(PATIENCE, crowd.join_all()).await;
    for got in got.expect("everybody gets everything in time") {
        assert_eq!(got, expected);
    }
    stop.send_replace(true);
    let peak = rate.await.expect("no panic");
    let (sent_away, abrupt) = (
        counts.sent_away.load(Ordering::Relaxed),
        counts.abrupt.load(Ordering::Relaxed),
    );
    eprintln!(
        "{EDGES} edges were replaced under {visitors} connections in {took:.1?}; lost: 0 of {rounds} messages each; \
         closed with code 4000: {sent_away}, without: {abrupt}; told to come back later: {}; \
         fastest second: {peak:.0} connects of {per_s} allowed",
        counts.refused.load(Ordering::Relaxed)
    );
    assert_eq!(abrupt, 0, "every close has its code");
    assert!(sent_away >= visitors, "everybody had to move: {sent_away}");
    let bursts = (EDGES * BURST) as f64;
    let allowed = per_s as f64 + bursts;
    assert!(
        peak <= allowed,
        "{peak} connects in a second, {allowed} allowed"
    );
}

/// A connection that has lived long enough moves, and loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_lived_long_enough_is_sent_away_with_its_code() {
    let stack = Stack::start_with(StackOptions {
        edges: 1,
        limits: "lifetime_ms = 1000".to_owned(),
        ..StackOptions::default()
    })
    .await;
    let (mut connection, _) = stack
        .connect("42", &["room:1"], &ConnectOptions::default())
        .await;
    let mut said = None;
    let closed = loop {
        match connection.next().await {
            Ok(frame) => {
                if let ServerBody::Goaway(goaway) = frame.body {
                    said = Some(goaway.reason);
                }
            }
            Err(closed) => break closed,
        }
    };
    assert_eq!(said, Some(protocol::frame::GoawayReason::Lifetime));
    assert_eq!(closed.close_code(), Some(CloseCode::Lifetime));
    until("it is counted", async || {
        stack.edges[0]
            .http()
            .metrics()
            .await
            .sum("rejoin_connections")
            == 0.0
    })
    .await;
}
