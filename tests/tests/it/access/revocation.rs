//! A revoked token ends everything that lives under it, on every edge, within a second, and stays revoked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{ConnectError, ConnectOptions, Connection};
use protocol::{
    Channel, ClientBody, ClientFrame, CloseCode, ErrorCode, From, MessageId, ServerBody,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{token, with_postgres};
use crate::harness::{API_KEY, Http, SOON, Stack, StackOptions, Watch, connect, until};

/// What the documentation promises.
const ALL_EDGES_ACT_WITHIN: Duration = Duration::from_secs(1);

const REVOCATIONS: &str = "/v1/admin/revocations";

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

/// A new one, which need not be looked up in the archive first.
fn id() -> String {
    MessageId::random().to_string()
}

/// When a client got its last message, and when its connection ended.
struct Ended {
    last_message: Option<Instant>,
    end: Instant,
}

/// Negative: before it.
fn from_answer_ms(answered: Instant, time: Instant) -> f64 {
    let before = answered.saturating_duration_since(time);
    (time.saturating_duration_since(answered).as_secs_f64() - before.as_secs_f64()) * 1_000.0
}

/// A WebSocket client that listens until it is closed, and how it was.
async fn listener(url: &str, token: &str) -> JoinHandle<(Ended, Option<CloseCode>)> {
    let options = ConnectOptions::default().subscribe(room(), From::Tail);
    let (mut connection, _) = connect(url, token, &options).await;
    Watch::new(&room()).until_live(&mut connection).await;
    tokio::spawn(async move {
        let mut last_message = None;
        loop {
            match connection.next().await {
                Ok(frame) => {
                    if matches!(frame.body, ServerBody::Messages(_)) {
                        last_message = Some(Instant::now());
                    }
                }
                Err(closed) => {
                    let end = Instant::now();
                    return (Ended { last_message, end }, closed.close_code());
                }
            }
        }
    })
}

/// The same over server-sent events, and the last of what it was told.
async fn stream(http: &Http, token: &str) -> JoinHandle<(Ended, String)> {
    let mut response = http.open(Some(token), "/v1/events?channels=room:1").await;
    assert_eq!(response.status(), 200);
    tokio::spawn(async move {
        let (mut last_message, mut text) = (None, String::new());
        while let Ok(Some(chunk)) = response.chunk().await {
            let chunk = String::from_utf8_lossy(&chunk).into_owned();
            if chunk.contains("event: messages") {
                last_message = Some(Instant::now());
            }
            text = chunk;
        }
        let end = Instant::now();
        (Ended { last_message, end }, text)
    })
}

/// Publishes to the room all the time, until it is told to stop.
fn publishing(http: Http) -> (Arc<AtomicBool>, JoinHandle<usize>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let mut published = 0;
        while !stopped.load(Ordering::Relaxed) {
            let answer = http.publish(&room(), &id(), "1").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            published += 1;
        }
        published
    });
    (stop, task)
}

/// Everything that a token opens is shut.
async fn assert_refused_everywhere(stack: &Stack, token: &str, ticket: Option<&str>) {
    for edge in &stack.edges {
        let options = ConnectOptions::default().subscribe(room(), From::Earliest);
        match Connection::connect(&edge.url(), token, &options).await {
            Err(ConnectError::Rejected { error, closed }) => {
                assert_eq!(error.code, ErrorCode::Unauthorized);
                assert_eq!(closed.close_code(), Some(CloseCode::Revoked));
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{} let it in", edge.name),
        }
        let http = edge.http();
        for path in [
            "/v1/channels/room:1/messages?from=earliest",
            "/v1/channels/room:1/messages?order=desc",
            "/v1/events?channels=room:1&from=earliest",
            "/v1/poll?channels=room:1&from=earliest",
            "/v1/users/42/inbox",
            "/v1/users/42/rooms",
        ] {
            let answer = http.get_as(token, path).await;
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
        }
        for path in [
            "/v1/channels/room:1/messages",
            "/v1/channels/room:1/signals",
            "/v1/messages",
            "/v1/tickets",
            "/v1/users/42/acks",
        ] {
            let answer = http.post_as(token, path, "[]").await;
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
        }
        if let Some(ticket) = ticket {
            let path = format!("/v1/events?channels=room:1&ticket={ticket}");
            assert_eq!(http.open(None, &path).await.status(), 401);
        }
    }
}

/// Everything of user 42 at once: both edges, all transports, under load.
async fn ends_everything(how: &str, revoke: impl AsyncFn(&Stack, &devstack::Postgres)) {
    let (mut stack, postgres) = with_postgres(StackOptions::default()).await;
    let (revoked, other) = (token("42", "t-1"), token("7", "t-2"));
    let ticket = stack.http().post_as(&revoked, "/v1/tickets", "").await;
    let ticket = ticket.body["ticket"].as_str().unwrap().to_owned();
    let cursor = stack.http().publish(&room(), &id(), "0").await.cursor();
    let (mut sockets, mut streams, mut polls, mut others) = (vec![], vec![], vec![], vec![]);
    for edge in &stack.edges {
        sockets.push(listener(&edge.url(), &revoked).await);
        streams.push(stream(&edge.http(), &revoked).await);
        others.push(listener(&edge.url(), &other).await);
        // A poll that waits in a channel where nothing happens.
        let (http, token) = (edge.http(), revoked.clone());
        polls.push(tokio::spawn(async move {
            let path = format!("/v1/poll?channels=user:42&from={cursor}&wait_ms=55000");
            let answer = http.get_as(&token, &path).await;
            (Instant::now(), answer.status)
        }));
    }
    for edge in &stack.edges {
        until("the polls wait", async || {
            // With WebSocket and event streams.
            edge.http().metrics().await.sum("rejoin_connections") >= 4.0
        })
        .await;
    }
    let (stop, publisher) = publishing(stack.edges[0].http());
    sleep(Duration::from_millis(300)).await;
    revoke(&stack, &postgres).await;
    let answered = Instant::now();
    let mut late = Vec::new();
    let after = |time: Instant| time.saturating_duration_since(answered);
    for (edge, task) in sockets.into_iter().enumerate() {
        let (ended, code) = timeout(SOON, task).await.expect("closed").unwrap();
        assert_eq!(code, Some(CloseCode::Revoked));
        late.push((format!("WebSocket, edge {}", edge + 1), ended));
    }
    for (edge, task) in streams.into_iter().enumerate() {
        let (ended, last) = timeout(SOON, task).await.expect("ended").unwrap();
        assert!(last.contains("\"unauthorized\""), "{last}");
        late.push((format!("events, edge {}", edge + 1), ended));
    }
    for task in polls {
        let (end, status) = timeout(SOON, task).await.expect("answered").unwrap();
        assert_eq!(status, 200);
        assert!(after(end) < ALL_EDGES_ACT_WITHIN, "{:?}", after(end));
    }
    for (what, ended) in late {
        let last = ended.last_message.expect("messages came before");
        eprintln!(
            "{how}: {what}: last message {:+.1} ms, end {:+.1} ms from the answer",
            from_answer_ms(answered, last),
            from_answer_ms(answered, ended.end)
        );
        assert!(after(ended.end) < ALL_EDGES_ACT_WITHIN, "{what}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(publisher.await.unwrap() > 10);
    // Nobody else's.
    for task in others {
        assert!(!task.is_finished(), "another user's connection ended");
        task.abort();
    }
    assert_refused_everywhere(&stack, &revoked, Some(&ticket)).await;
    // Also by an edge that was not there.
    for edge in &mut stack.edges {
        edge.restart();
        edge.ready().await;
    }
    assert_refused_everywhere(&stack, &revoked, Some(&ticket)).await;
    connect(&stack.url(), &other, &ConnectOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_revoked_over_http() {
    let revoke = async |stack: &Stack, _: &devstack::Postgres| {
        let answer = stack.edges[0]
            .http()
            .post(REVOCATIONS, r#"{"token":"t-1"}"#.to_owned())
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    ends_everything("token, HTTP", revoke).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_revoked_from_sql() {
    let revoke = async |_: &Stack, postgres: &devstack::Postgres| {
        let revoking = postgres.execute("SELECT rejoin.revoke_user('42')");
        revoking.await.expect("revoked");
    };
    ends_everything("user, SQL", revoke).await;
}

/// What is issued after the time is accepted; what is taken back, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_comes_back_with_a_new_token() {
    let (stack, _postgres) = with_postgres(StackOptions::default()).await;
    let http = stack.http();
    let old = token("42", "t-1");
    let body = serde_json::json!({ "user": "42", "before_ms": now_ms() - 1_000 }).to_string();
    let answer = http.post(REVOCATIONS, body).await;
    assert_eq!((answer.status, &answer.body["user"]), (200, &"42".into()));
    assert_refused_everywhere(&stack, &old, None).await;
    let new = crate::harness::sign(&crate::harness::TokenSpec {
        issued_s: Some(1),
        ..crate::harness::TokenSpec::new("42", &["room:1"])
    });
    for edge in &stack.edges {
        let (mut connection, _) = connect(&edge.url(), &new, &ConnectOptions::default()).await;
        // The old token is not accepted in its place, and the connection stays.
        let refresh = ClientBody::Refresh {
            token: protocol::frame::Token::parse(&old).unwrap(),
        };
        let req = connection.new_req();
        let frame = ClientFrame::request(req, refresh);
        connection.send(&frame).await.unwrap();
        match connection.next().await.unwrap().body {
            ServerBody::Error(error) => assert_eq!(error.code, ErrorCode::Unauthorized),
            other => panic!("{other:?}"),
        }
        connection.subscribe(room(), From::Tail).await.unwrap();
    }
    let answer = http.delete(&format!("{REVOCATIONS}?user=42")).await;
    assert_eq!((answer.status, &answer.body["lifted"]), (200, &1.into()));
    for edge in &stack.edges {
        until("it is accepted again", async || {
            let path = "/v1/channels/room:1/messages";
            edge.http().get_as(&old, path).await.status == 200
        })
        .await;
    }
}

/// A connection that changed its token lives under the new one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refreshed_connection_ends_with_its_new_token() {
    let (stack, _postgres) = with_postgres(StackOptions::default()).await;
    let (first, second) = (token("42", "t-1"), token("42", "t-2"));
    let (mut connection, _) =
        connect(&stack.edges[1].url(), &first, &ConnectOptions::default()).await;
    let refresh = ClientBody::Refresh {
        token: protocol::frame::Token::parse(&second).unwrap(),
    };
    connection.request(refresh).await.unwrap();
    let revoke = async |id: &str| {
        let body = serde_json::json!({ "token": id }).to_string();
        let answer = stack.edges[0].http().post(REVOCATIONS, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    revoke("t-1").await;
    let staying = timeout(ALL_EDGES_ACT_WITHIN, connection.next()).await;
    assert!(staying.is_err(), "{staying:?}");
    revoke("t-2").await;
    let closed = Watch::new(&room()).until_closed(&mut connection).await;
    assert_eq!(closed.close_code(), Some(CloseCode::Revoked));
}

/// What is known stays enforced, nothing is promised that is not durable, and nobody is let in by an edge that does not
/// know yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_away() {
    let (mut stack, postgres) = with_postgres(StackOptions::default()).await;
    let (revoked, good) = (token("42", "t-1"), token("7", "t-2"));
    let revoke = async |body: &str| stack.http().post(REVOCATIONS, body.to_owned()).await;
    assert_eq!(revoke(r#"{"token":"t-1"}"#).await.status, 200);
    postgres.stop().await;
    assert_refused_everywhere(&stack, &revoked, None).await;
    connect(&stack.url(), &good, &ConnectOptions::default()).await;
    assert_eq!(revoke(r#"{"token":"t-2"}"#).await.status, 503);
    connect(&stack.url(), &good, &ConnectOptions::default()).await;
    // An edge that starts meanwhile.
    stack.edges[1].restart();
    let http = stack.edges[1].http();
    until("it lives", async || http.alive().await).await;
    until("its window is filled", async || {
        http.get("/v1/channels/room:1/messages").await.status == 200
    })
    .await;
    let readiness = http.get("/readyz").await;
    assert_eq!(readiness.status, 503);
    assert!(
        readiness.body["reasons"]["revocations"].is_string(),
        "{readiness:?}"
    );
    for token in [&revoked, &good] {
        let answer = http.get_as(token, "/v1/channels/room:1/messages").await;
        assert_eq!((answer.status, answer.error_code()), (503, "unavailable"));
        let (url, options) = (stack.edges[1].url(), ConnectOptions::default());
        match Connection::connect(&url, token, &options).await {
            Err(ConnectError::Rejected { closed, .. }) => {
                assert_eq!(closed.close_code(), Some(CloseCode::Unavailable));
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was let in"),
        }
    }
    postgres.restart().await.unwrap();
    stack.edges[1].ready().await;
    assert_refused_everywhere(&stack, &revoked, None).await;
    connect(&stack.edges[1].url(), &good, &ConnectOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_revoke_and_nonsense_is_refused() {
    let (stack, _postgres) = with_postgres(StackOptions {
        edges: 1,
        ..StackOptions::default()
    })
    .await;
    let http = stack.http();
    let user = token("42", "t-1");
    let body = r#"{"user":"42"}"#;
    assert_eq!(http.post_as(&user, REVOCATIONS, body).await.status, 403);
    assert_eq!(
        http.post_as("rj_unknown", REVOCATIONS, body).await.status,
        401
    );
    for (body, status) in [
        ("{}", 400),
        (r#"{"user":"42","token":"t"}"#, 400),
        (r#"{"user":"a.b"}"#, 400),
        (r#"{"token":""}"#, 400),
        (r#"{"token":"a\u0000b"}"#, 400),
        (r#"{"user":"42","before_ms":99999999999999}"#, 400),
        (r#"{"user":"42","before_ms":-1}"#, 400),
        (r#"{"user":"42","expires_ms":1}"#, 400),
        (r#"{"user":"42","everything":true}"#, 400),
    ] {
        let answer = http.post_as(API_KEY, REVOCATIONS, body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    let answer = http.get_as(&user, "/v1/channels/room:1/messages").await;
    assert_eq!(answer.status, 200);
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}
