//! Who is not let in: tokens, handshakes, HTTP requests.

use std::time::{Duration, Instant};

use client::{ConnectError, ConnectOptions, Connection};
use jsonwebtoken::Algorithm;
use protocol::{CloseCode, ErrorCode, ServerBody};
use tokio::time::timeout;

use crate::harness::raw::Raw;
use crate::harness::{SOON, Stack, StackOptions, TokenSpec, sign};

use super::{assert_well, next_error, stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_not_good() {
    let mut stack = stack().await;
    let good = TokenSpec::new("42", &["room:1"]);
    let mut expired = good.clone();
    expired.ttl_s = -3_600;
    let mut forged = good.clone();
    forged.secret = "another secret of more than 32 bytes, which we do not know".to_owned();
    let mut other_algorithm = good.clone();
    other_algorithm.algorithm = Algorithm::HS512;
    let signed = sign(&good);
    let parts: Vec<&str> = signed.split('.').collect();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let changed = format!(
        "{}.{}.{}",
        parts[0],
        sign(&TokenSpec::new("1", &[])).split('.').nth(1).unwrap(),
        parts[2]
    );
    let mut table = vec![
        ("expired", sign(&expired)),
        ("forged", sign(&forged)),
        ("of another algorithm", sign(&other_algorithm)),
        ("unsigned", unsigned),
        ("changed", changed),
        ("no token", "x".to_owned()),
        (
            "of a user with a strange name",
            sign(&TokenSpec::new("a.b", &[])),
        ),
    ];
    for pattern in ["*", ">", "*:*", "room:1*", "room:>", "r*:1", "room.1"] {
        table.push((pattern, sign(&TokenSpec::new("42", &[pattern]))));
    }
    for (what, token) in &table {
        for token_in_header in [false, true] {
            let options = ConnectOptions {
                token_in_header,
                ..ConnectOptions::default()
            };
            match Connection::connect(&stack.url(), token, &options).await {
                Err(ConnectError::Rejected { error, closed }) => {
                    assert_eq!(error.code, ErrorCode::Unauthorized, "{what}");
                    assert_eq!(closed.close_code(), Some(CloseCode::Unauthorized), "{what}");
                }
                Err(ConnectError::Http { status: 401, .. }) if token_in_header => {}
                Err(error) => panic!("{what}: {error}"),
                Ok(_) => panic!("{what}: was let in"),
            }
        }
        let answer = stack
            .http()
            .get_as(token, "/v1/channels/room:1/messages")
            .await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (401, "unauthorized"),
            "{what}"
        );
    }
    // Good in both places.
    for token_in_header in [false, true] {
        let options = ConnectOptions {
            token_in_header,
            ..ConnectOptions::default()
        };
        let connected = Connection::connect(&stack.url(), &signed, &options).await;
        assert_eq!(connected.unwrap().1.user.as_str(), "42");
    }
    // In the URL it is no token: URLs end up in logs.
    let url = format!("{}?token={signed}", stack.url());
    let mut connection = Connection::open(&url, None, &ConnectOptions::default())
        .await
        .unwrap();
    connection
        .send_bytes("{\"connect\":{}}".into(), false)
        .await
        .unwrap();
    let (_, code, _) = next_error(&mut connection).await.unwrap();
    assert_eq!(code, ErrorCode::Unauthorized);
    assert_well(&mut stack).await;
}

/// Tokens end while a connection is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_ends_its_connection() {
    let mut stack = stack().await;
    let mut spec = TokenSpec::new("42", &["room:1"]);
    // The leeway, 5 s by default, does not lengthen an open connection by more than itself.
    spec.ttl_s = 2;
    let options = ConnectOptions::default();
    let (mut connection, connected) = Connection::connect(&stack.url(), &sign(&spec), &options)
        .await
        .unwrap();
    assert!(connected.expires_ms > 0);
    let mut told = false;
    let begin = Instant::now();
    let code = loop {
        match timeout(SOON, connection.next())
            .await
            .expect("a frame or the end")
        {
            Ok(frame) => told |= matches!(frame.body, ServerBody::TokenExpiring { .. }),
            Err(closed) => break closed.close_code(),
        }
    };
    assert_eq!(code, Some(CloseCode::TokenExpired));
    assert!(told, "token_expiring comes first");
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_well(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_refused() {
    let mut stack = stack().await;
    let address = stack.edges[0].address();
    let table: [(&[(&str, &str)], &str); 4] = [
        (&[("Origin", "https://evil.example")], "HTTP/1.1 403 "),
        (
            &[("Sec-WebSocket-Protocol", "mqtt, graphql-ws")],
            "HTTP/1.1 400 ",
        ),
        (&[("Authorization", "Bearer x")], "HTTP/1.1 401 "),
        (&[], "HTTP/1.1 101 "),
    ];
    for (headers, status) in table {
        let head = Raw::dial(address).await.handshake(headers).await;
        assert!(head.starts_with(status), "{headers:?}: {head}");
    }
    let plain = stack.http().get("/v1/connect").await;
    assert_eq!((plain.status, plain.error_code()), (400, "bad_request"));
    // Whoever sends a header drop by drop is sent away.
    let slow = Stack::start_with(StackOptions {
        edges: 1,
        config: "[edge.listen]\nheader_timeout_ms = 500\n[backplane.auth]".to_owned(),
        ..StackOptions::default()
    })
    .await;
    let mut raw = Raw::dial(slow.edges[0].address()).await;
    let begin = Instant::now();
    raw.write(b"GET /v1/connect HTTP/1.1\r\nHost: ")
        .await
        .unwrap();
    while begin.elapsed() < SOON && raw.write(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_well(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_over_http() {
    let mut stack = stack().await;
    let http = stack.http();
    let long = "x".repeat(65);
    let channels = [
        "room",
        "room:",
        "*",
        "%3E",
        "room:*",
        "room:1.2",
        "room:%20",
        "room:%0d%0aPUB",
        "room:%00",
        "room:%c3%bc",
        "room:%ff",
        &format!("room:{long}"),
    ];
    for channel in channels {
        let path = format!("/v1/channels/{channel}/messages");
        let answer = http.post(&path, "1".to_owned()).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "bad_channel"),
            "POST {channel}"
        );
        let answer = http.get(&path).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "bad_channel"),
            "GET {channel}"
        );
    }
    let table = [
        ("/v1/channels/room:1/messages?from=then", 400, "bad_cursor"),
        ("/v1/channels/room:1/messages?limit=0", 400, "bad_request"),
        ("/v1/channels/room:1/messages?form=tail", 400, "bad_request"),
        ("/v1/nothing", 404, "not_found"),
    ];
    for (path, status, code) in table {
        let answer = http.get(path).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (status, code),
            "{path}"
        );
    }
    for body in ["", "{}", "[{}]", "[{\"channel\":\"room:1\"}]", "nonsense"] {
        let answer = http.post("/v1/messages", body.to_owned()).await;
        let code = match &answer.body["results"][0]["error"]["code"] {
            serde_json::Value::String(code) => code.clone(),
            _ => answer.error_code().to_owned(),
        };
        assert_eq!(code, "bad_request", "{body}: {answer:?}");
    }
    let no_key = http
        .get_as("rj_another_key", "/v1/channels/room:1/messages")
        .await;
    assert_eq!((no_key.status, no_key.error_code()), (401, "unauthorized"));
    assert_well(&mut stack).await;
}
