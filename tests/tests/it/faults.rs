//! What happens when a part is away: everything waits or says so, and nothing acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{ConnectError, ConnectOptions, Connection, RequestError};
use devstack::{NatsOptions, NatsServer, ProxyMode};
use protocol::frame::{GoawayReason, Published, ResetReason};
use protocol::{Channel, CloseCode, Encoding, ErrorCode, From, MessageId, ServerBody};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::harness::{
    Nats, SOON, Stack, StackOptions, TokenSpec, Watch, connect, sign, texts, until,
    with_one_and_four_shards,
};

with_one_and_four_shards!(
    nats_is_gone_for_a_while,
    the_stream_is_deleted_under_running_edges,
    an_edge_drains_while_messages_are_in_flight,
);

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// Publishing gives up soon, so that a test sees it.
fn impatient(shards: u16) -> StackOptions {
    StackOptions {
        shards,
        config: "publish_timeout_ms = 1000".to_owned(),
        ..StackOptions::default()
    }
}

async fn live(stack: &Stack, encoding: Encoding) -> (Connection, Watch) {
    let options = ConnectOptions::default()
        .encoding(encoding)
        .subscribe(room(), From::Tail);
    let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut connection).await;
    (connection, watch)
}

async fn publish(
    connection: &mut Connection,
    id: &MessageId,
    text: &str,
) -> Result<Published, RequestError> {
    let data = format!("\"{text}\"");
    connection
        .publish(id.clone(), room(), "", data.into())
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_down_when_the_edges_start() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    nats.stop().await;
    let mut stack = Stack::start_on(nats, StackOptions::default()).await;
    for edge in &stack.edges {
        until("the edge is alive", async || edge.http().alive().await).await;
        assert_eq!(edge.http().ready().await, Some(false));
        let token = sign(&TokenSpec::new("42", &[]));
        let refused = Connection::connect(&edge.url(), &token, &ConnectOptions::default()).await;
        match refused {
            Err(ConnectError::Http { status, .. }) => assert_eq!(status, 503),
            other => panic!("{other:?}"),
        }
        let answer = edge.http().publish(&room(), "id", "1").await;
        assert_eq!((answer.status, answer.error_code()), (503, "unavailable"));
    }
    sleep(Duration::from_secs(2)).await;
    stack.nats.restart().await.unwrap();
    for edge in &mut stack.edges {
        edge.ready().await;
    }
    let (mut connection, mut watch) = live(&stack, Encoding::Json).await;
    let expected = texts("message", 10);
    stack.http().publish_all(&room(), &expected).await;
    watch.until_seen(&mut connection, expected.len()).await;
    watch.assert_exactly(&expected);
}

/// Killed and hung: a publish is answered "unavailable, retry", and a retry makes one message of it.
async fn nats_is_gone_for_a_while(shards: u16) {
    let stack = Stack::start_with(impatient(shards)).await;
    let (mut connection, mut watch) = live(&stack, Encoding::Proto).await;
    let options = ConnectOptions::default();
    let (mut writer, _) = stack.connect("writer", &["room:1"], &options).await;
    let mut expected = Vec::new();
    for outage in ["killed", "hung"] {
        let before = format!("before {outage}");
        publish(&mut writer, &MessageId::random(), &before)
            .await
            .unwrap();
        expected.push(before);
        match outage {
            "killed" => stack.nats.kill(),
            _ => stack.nats.pause(),
        }
        let during = format!("during {outage}");
        let id = MessageId::random();
        let begin = Instant::now();
        let error = publish(&mut writer, &id, &during).await.unwrap_err();
        let error = error.refused().expect("the connection stays").clone();
        assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
        assert!(error.retry_after_ms > 0, "{error:?}");
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{:?}",
            begin.elapsed()
        );
        let answer = stack
            .http()
            .publish(&room(), &format!("http-{outage}"), "1")
            .await;
        assert_eq!((answer.status, answer.error_code()), (503, "unavailable"));
        assert_eq!(answer.body["error"]["retryable"], true);
        for edge in &stack.edges {
            until("the edge is not ready", async || {
                edge.http().ready().await == Some(false)
            })
            .await;
            assert!(edge.http().alive().await);
        }
        match outage {
            "killed" => stack.nats.restart().await.unwrap(),
            _ => stack.nats.resume(),
        }
        let begin = Instant::now();
        let published = loop {
            match publish(&mut writer, &id, &during).await {
                Ok(published) => break published,
                Err(RequestError::Refused(error)) if error.code.is_retryable() => {
                    assert!(begin.elapsed() < SOON, "{error:?}");
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let again = publish(&mut writer, &id, &during).await.unwrap();
        assert_eq!((again.cursor, again.duplicate), (published.cursor, true));
        expected.push(during);
        // What was tried over HTTP is indeterminate: it is there at most once, after its retry exactly once.
        let answer = stack
            .http()
            .publish(&room(), &format!("http-{outage}"), "1")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        expected.push("1".to_owned());
        for edge in &stack.edges {
            until("the edge is ready", async || {
                edge.http().ready().await == Some(true)
            })
            .await;
        }
    }
    watch.until_seen(&mut connection, expected.len()).await;
    watch
        .quiet(&mut connection, Duration::from_millis(300))
        .await;
    let mut seen = watch.texts();
    assert_eq!(watch.defects, [""; 0]);
    assert_eq!(watch.resets, []);
    // An indeterminate publish may have been stored when the server came back, before its retry was.
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

async fn the_stream_is_deleted_under_running_edges(shards: u16) {
    let stack = Stack::start(shards).await;
    let (mut connection, mut watch) = live(&stack, Encoding::Json).await;
    let old = texts("old", 20);
    let cursors = stack.http().publish_all(&room(), &old).await;
    watch.until_seen(&mut connection, old.len()).await;
    let mut nats = Nats::connect(&stack.nats).await;
    let shard = room().shard(shards);
    let answer = nats
        .ask(&format!("$JS.API.STREAM.DELETE.REJOIN_{shard}"), "")
        .await;
    assert_eq!(answer["success"], true, "{answer}");
    watch
        .until(&mut connection, "a reset", |watch| !watch.resets.is_empty())
        .await;
    assert_eq!(watch.resets[0].reason, ResetReason::Epoch);
    assert_ne!(watch.resets[0].head.epoch, cursors[0].epoch);
    watch.until_live(&mut connection).await;
    watch.away();
    watch.live = true;
    let new = texts("new", 20);
    for text in &new {
        let data = format!("\"{text}\"");
        until("publishing works again", async || {
            stack.http().publish(&room(), text, &data).await.status == 200
        })
        .await;
    }
    watch.until_seen(&mut connection, new.len()).await;
    assert_eq!(watch.texts(), new);
    assert_eq!(watch.defects, [""; 0]);
    assert_eq!(watch.resets.len(), 1, "a reset is never sent without need");
    // An old cursor gets the same, on both edges.
    for edge in &stack.edges {
        let token = sign(&TokenSpec::new("43", &["room:1"]));
        let options = ConnectOptions::default().subscribe(room(), From::Cursor(cursors[10]));
        let (mut late, _) = connect(&edge.url(), &token, &options).await;
        let mut watch = Watch::new(&room());
        watch.until_live(&mut late).await;
        assert_eq!(watch.resets.len(), 1, "{watch:?}");
        assert_eq!(watch.resets[0].reason, ResetReason::Epoch);
        assert!(watch.seen.is_empty());
    }
}

/// A server that says it is old, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_too_old_is_refused() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let old = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let info = "INFO {\"server_id\":\"old\",\"server_name\":\"old\",\"version\":\"2.9.25\",\"proto\":1,\
                 \"headers\":true,\"host\":\"127.0.0.1\",\"port\":4222,\"max_payload\":1048576,\"jetstream\":true}\r\nPONG\r\n";
            stream.write_all(info.as_bytes()).await.expect("a client");
            open.push(stream);
        }
    });
    let options = StackOptions {
        edges: 1,
        nats_url: Some(format!("nats://{address}")),
        ..StackOptions::default()
    };
    let mut stack = Stack::start_on(nats, options).await;
    let edge = &mut stack.edges[0];
    let status = edge.ended(SOON).await;
    assert!(!status.success(), "{status}");
    let log = edge.log();
    assert!(log.contains("2.9.25") && log.contains("2.12.6"), "{log}");
    old.abort();
}

/// SIGTERM: `goaway`, then 4000, exit code 0, and every publish in flight is answered or can be tried again.
async fn an_edge_drains_while_messages_are_in_flight(shards: u16) {
    let mut stack = Stack::start(shards).await;
    let token = sign(&TokenSpec::new("42", &["room:1"]));
    let leaving = stack.edges[0].url();
    let options = ConnectOptions::default().subscribe(room(), From::Tail);
    let (mut reader, _) = connect(&leaving, &token, &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut reader).await;

    let writers: Vec<_> = (0..4)
        .map(|number| tokio::spawn(publish_until_sent_away(leaving.clone(), number)))
        .collect();
    watch.until_seen(&mut reader, 50).await;
    stack.edges[0].terminate();
    until("the edge is not ready", async || {
        stack.edges[0].http().ready().await != Some(true)
    })
    .await;
    let (goaway, code) = read_until_sent_away(&mut reader, &mut watch).await;
    assert_eq!(goaway, Some(GoawayReason::Drain));
    assert_eq!(code, Some(CloseCode::Draining));
    let mut acknowledged = Vec::new();
    let mut in_flight = Vec::new();
    for writer in writers {
        let (done, open) = writer.await.unwrap();
        acknowledged.extend(done);
        in_flight.extend(open);
    }
    let status = stack.edges[0].ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", stack.edges[0].log());

    // On the other edge: what was open is tried again under its id, and the reader goes on.
    let (mut writer, _) = stack
        .connect("writer", &["room:1"], &ConnectOptions::default())
        .await;
    for (id, text) in &in_flight {
        publish(&mut writer, id, text).await.unwrap();
        acknowledged.push(text.clone());
    }
    let position = watch.position.map_or(From::Tail, From::Cursor);
    let options = ConnectOptions::default().subscribe(room(), position);
    let (mut reader, _) = stack.connect("42", &["room:1"], &options).await;
    watch.live = false;
    watch.until_seen(&mut reader, acknowledged.len()).await;
    watch.until_live(&mut reader).await;
    watch.quiet(&mut reader, Duration::from_millis(200)).await;
    assert_eq!(watch.defects, [""; 0]);
    assert_eq!(watch.resets, []);
    let mut seen = watch.texts();
    seen.sort_unstable();
    acknowledged.sort_unstable();
    assert_eq!(seen, acknowledged);
}

/// Publishes without a pause until the edge closes the connection. Returns what was acknowledged, and what was open.
async fn publish_until_sent_away(
    url: String,
    number: usize,
) -> (Vec<String>, Option<(MessageId, String)>) {
    let token = sign(&TokenSpec::new("writer", &["room:1"]));
    let (mut writer, _) = connect(&url, &token, &ConnectOptions::default()).await;
    let mut acknowledged = Vec::new();
    loop {
        let text = format!("writer-{number}-{}", acknowledged.len());
        let id = MessageId::random();
        match publish(&mut writer, &id, &text).await {
            Ok(_) => acknowledged.push(text),
            Err(RequestError::Closed(closed)) => {
                assert_eq!(closed.close_code(), Some(CloseCode::Draining), "{closed}");
                return (acknowledged, Some((id, text)));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn read_until_sent_away(
    reader: &mut Connection,
    watch: &mut Watch,
) -> (Option<GoawayReason>, Option<CloseCode>) {
    let mut goaway = None;
    let reading = async {
        loop {
            match reader.next().await {
                Ok(frame) => {
                    if let ServerBody::Goaway(told) = &frame.body {
                        goaway = Some(told.reason);
                    }
                    watch.take(&frame);
                }
                Err(closed) => return closed.close_code(),
            }
        }
    };
    let code = timeout(SOON, reading).await.expect("the edge sends away");
    (goaway, code)
}

/// Every edge is replaced, one after the other, while messages flow: a rolling update.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing() {
    let mut stack = Stack::start(1).await;
    let mut watch = Watch::new(&room());
    let stop = Arc::new(AtomicBool::new(false));
    let published = tokio::spawn(publish_through_everything(stack.http(), Arc::clone(&stop)));
    let url = stack.url();
    let token = sign(&TokenSpec::new("42", &["room:1"]));
    // From the beginning: the first message may be there before the reader is.
    let mut from = From::Earliest;
    let reader_stop = Arc::clone(&stop);
    let reader = tokio::spawn(async move {
        let mut sent_away = 0;
        while !reader_stop.load(Ordering::Relaxed) {
            let options = ConnectOptions::default().subscribe(room(), from);
            let Ok((mut connection, _)) = Connection::connect(&url, &token, &options).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            watch.live = false;
            while !reader_stop.load(Ordering::Relaxed) {
                match timeout(Duration::from_millis(100), connection.next()).await {
                    Ok(Ok(frame)) => watch.take(&frame),
                    Ok(Err(closed)) => {
                        assert!(closed.comes_back(), "{closed}");
                        sent_away += 1;
                        break;
                    }
                    Err(_) => {}
                }
            }
            from = watch.position.map_or(from, From::Cursor);
        }
        (watch, sent_away)
    });
    for round in 0..2 {
        for index in 0..stack.edges.len() {
            let edge = &mut stack.edges[index];
            match round {
                0 => {
                    edge.terminate();
                    let status = edge.ended(Duration::from_secs(15)).await;
                    assert_eq!(status.code(), Some(0), "{}", edge.log());
                }
                _ => edge.kill(),
            }
            edge.restart();
            edge.ready().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let published = published.await.unwrap();
    let (mut watch, sent_away) = reader.await.unwrap();
    assert!(sent_away >= 2, "the reader was on both edges: {sent_away}");
    let from = watch.position.map_or(From::Earliest, From::Cursor);
    let options = ConnectOptions::default().subscribe(room(), from);
    let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
    watch.live = false;
    watch.until_live(&mut connection).await;
    watch.assert_exactly(&published);
}

/// One message after the other over HTTP, each until it is acknowledged.
async fn publish_through_everything(
    http: crate::harness::Http,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let mut published = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("message-{}", published.len());
        let data = format!("\"{text}\"");
        loop {
            let answer = http.publish(&room(), &text, &data).await;
            match answer.status {
                200 => break,
                // Broken in the middle: it may be stored or not.
                0 | 503 => sleep(Duration::from_millis(20)).await,
                _ => panic!("{answer:?}"),
            }
        }
        published.push(text);
        sleep(Duration::from_millis(2)).await;
    }
    published
}

/// A connection that hangs in between is noticed on the edge's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_given_up_by_the_edge() {
    let stack = Stack::start_with(StackOptions {
        edges: 1,
        limits: "ping_ms = 1000".to_owned(),
        ..StackOptions::default()
    })
    .await;
    let (connection, _watch) = live(&stack, Encoding::Json).await;
    let connections = async || {
        let metrics = stack.edges[0].http().metrics().await;
        metrics.sum("rejoin_connections")
    };
    assert_eq!(connections().await, 1.0);
    stack.proxy.set_mode(ProxyMode::HalfOpen).await;
    until("the edge gives up", async || connections().await == 0.0).await;
    drop(connection);
}

/// Who does not read is no burden: memory stays, others go on, and the place is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_does_not_hold_up_the_others() {
    let stack = Stack::start(1).await;
    let (mut slow, mut slow_watch) = live(&stack, Encoding::Json).await;
    let (mut fast, mut fast_watch) = live(&stack, Encoding::Json).await;
    // Some 15 MB while the slow one reads nothing: more than the sockets on the way hold.
    let padding = "x".repeat(50_000);
    let expected = texts("big", 300);
    for text in &expected {
        let data = format!("\"{text} {padding}\"");
        let published = stack.http().publish(&room(), text, &data).await;
        assert_eq!(published.status, 200);
    }
    fast_watch.until_seen(&mut fast, expected.len()).await;
    slow_watch.until_seen(&mut slow, expected.len()).await;
    for watch in [fast_watch, slow_watch] {
        assert_eq!(watch.defects, [""; 0]);
        let ids: Vec<_> = watch
            .seen
            .iter()
            .filter_map(|seen| seen.id.clone())
            .collect();
        assert_eq!(ids, expected);
    }
}
