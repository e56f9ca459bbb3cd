//! What hostile and broken clients get: the documented code, and nothing else breaks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Closed, ConnectError, ConnectOptions, Connection};
use jsonwebtoken::Algorithm;
use protocol::frame::{Reset, ResetReason};
use protocol::{
    Channel, CloseCode, Cursor, Encoding, Epoch, ErrorCode, From, MessageId, ServerBody, limits,
};
use tokio::time::timeout;

use crate::harness::raw::{CONTINUATION, End, PING, Raw, TEXT};
use crate::harness::{SOON, Stack, StackOptions, TokenSpec, Watch, sign, texts};

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

/// As a first frame: an error, and the end of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_frames_that_are_no_connect() {
    let mut stack = stack().await;
    let token = sign(&TokenSpec::new("42", &["room:1"]));
    let long = "x".repeat(65);
    let table = [
        ("not JSON", ErrorCode::BadFrame),
        ("", ErrorCode::BadFrame),
        ("{}", ErrorCode::BadFrame),
        ("[]", ErrorCode::BadFrame),
        ("{\"hello\":{}}", ErrorCode::BadFrame),
        ("{\"connect\":{},\"pong\":{}}", ErrorCode::BadFrame),
        ("{\"connect\":{\"tokn\":\"x\"}}", ErrorCode::BadRequest),
        ("{\"connect\":{\"token\":null}}", ErrorCode::BadRequest),
        (
            "{\"connect\":{\"device\":\"my phone\",\"token\":\"TOKEN\"}}",
            ErrorCode::BadRequest,
        ),
        (
            "{\"connect\":{\"token\":\"TOKEN\",\"subscriptions\":[{\"channel\":\"room\"}]}}",
            ErrorCode::BadChannel,
        ),
        (
            "{\"connect\":{\"token\":\"TOKEN\",\"subscriptions\":[{\"channel\":\"room:LONG\"}]}}",
            ErrorCode::BadChannel,
        ),
        (
            "{\"connect\":{\"token\":\"TOKEN\",\"subscriptions\":[{\"channel\":\"room:1\",\"from\":\"then\"}]}}",
            ErrorCode::BadCursor,
        ),
        ("{\"req\":-1,\"pong\":{}}", ErrorCode::BadFrame),
        (
            "{\"req\":7,\"subscribe\":{\"channel\":\"room:1\"}}",
            ErrorCode::BadRequest,
        ),
        ("{\"req\":7,\"pong\":{}}", ErrorCode::BadRequest),
    ];
    for (text, code) in table {
        let frame = text.replace("TOKEN", &token).replace("LONG", &long);
        let options = ConnectOptions::default();
        let mut connection = Connection::open(&stack.url(), None, &options)
            .await
            .unwrap();
        connection.send_bytes(frame.into(), false).await.unwrap();
        let (_, answered, message) = next_error(&mut connection).await.unwrap();
        assert_eq!(answered, code, "{text}: {message}");
        assert_eq!(
            closed(&mut connection).await,
            Some(CloseCode::BadFrame),
            "{text}"
        );
    }
    for garbage in [&b"\xff\xff\xff"[..], b"\x12\x7f", b"{\"pong\":{}}"] {
        let options = ConnectOptions::default().encoding(Encoding::Proto);
        let mut connection = Connection::open(&stack.url(), None, &options)
            .await
            .unwrap();
        connection.send_bytes(garbage.into(), true).await.unwrap();
        let (_, answered, message) = next_error(&mut connection).await.unwrap();
        assert_eq!(answered, ErrorCode::BadFrame, "{garbage:?}: {message}");
        assert_eq!(closed(&mut connection).await, Some(CloseCode::BadFrame));
    }
    assert_well(&mut stack).await;
}

/// Later frames: an error with its `req`, and the connection goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_with_something_wrong() {
    let mut stack = stack().await;
    let id = "0199d1a5-7c1e-7c40-a3f5-2b6f0c9d8e71";
    let mut table: Vec<(String, ErrorCode)> = Vec::new();
    let long = format!("room:{}", "x".repeat(65));
    let bad_channels = [
        "",
        "room",
        ":",
        "room:",
        ":1",
        "*",
        ">",
        "room:*",
        "room:>",
        "*:1",
        "room.1",
        "room:1.2",
        "room:1 2",
        " room:1",
        "room:1\r\nPUB",
        "room:1\u{0}",
        "room:ü",
        "room:1:2",
        "$JS:API",
        &long,
    ];
    for text in bad_channels {
        let channel = serde_json::Value::from(text);
        for body in [
            format!("\"subscribe\":{{\"channel\":{channel}}}"),
            format!("\"unsubscribe\":{{\"channel\":{channel}}}"),
            format!("\"presence\":{{\"channel\":{channel}}}"),
            format!("\"publish\":{{\"id\":\"{id}\",\"channel\":{channel},\"data\":1}}"),
            format!("\"signal\":{{\"channel\":{channel}}}"),
            format!("\"ack\":{{\"channel\":{channel},\"read\":\"00000000000000ff-1\"}}"),
        ] {
            table.push((body, ErrorCode::BadChannel));
        }
    }
    for from in [
        "now",
        "last:0",
        "last:",
        "-1",
        "00000000000000ff",
        "00000000000000FF-1",
        "00000000000000ff-01",
    ] {
        let body = format!("\"subscribe\":{{\"channel\":\"room:1\",\"from\":\"{from}\"}}");
        table.push((body, ErrorCode::BadCursor));
    }
    let publish = |rest: &str| format!("\"publish\":{{\"channel\":\"room:1\",{rest}}}");
    let too_large = "x".repeat(limits::MESSAGE_BYTES_DEFAULT);
    let others = [
        (publish("\"data\":1"), ErrorCode::BadRequest),
        (publish("\"id\":\"\",\"data\":1"), ErrorCode::BadRequest),
        (publish("\"id\":\"a b\",\"data\":1"), ErrorCode::BadRequest),
        (
            publish("\"id\":\"a\\r\\nNats-Msg-Id: b\",\"data\":1"),
            ErrorCode::BadRequest,
        ),
        (
            publish("\"id\":\"a\",\"type\":\"a\\nb\",\"data\":1"),
            ErrorCode::BadRequest,
        ),
        (
            publish("\"id\":\"a\",\"data\":1,\"data_base64\":\"AA==\""),
            ErrorCode::BadRequest,
        ),
        (
            publish("\"id\":\"a\",\"data_base64\":\"!\""),
            ErrorCode::BadRequest,
        ),
        (
            publish("\"id\":\"a\",\"traceparent\":\"x\""),
            ErrorCode::BadRequest,
        ),
        (
            publish(&format!("\"id\":\"a\",\"data\":\"{too_large}\"")),
            ErrorCode::TooLarge,
        ),
        (
            "\"ack\":{\"channel\":\"room:1\"}".to_owned(),
            ErrorCode::BadRequest,
        ),
        (
            "\"subscribe\":{\"channel\":\"room:1\",\"form\":\"tail\"}".to_owned(),
            ErrorCode::BadRequest,
        ),
        (
            "\"subscribe\":{\"channel\":7}".to_owned(),
            ErrorCode::BadRequest,
        ),
        (
            "\"refresh\":{\"token\":\"x.y.z\"}".to_owned(),
            ErrorCode::Unauthorized,
        ),
        (
            "\"unsubscribe\":{\"channel\":\"room:1\"}".to_owned(),
            ErrorCode::NotSubscribed,
        ),
        (
            "\"subscribe\":{\"channel\":\"room:2\"}".to_owned(),
            ErrorCode::Forbidden,
        ),
        (
            format!("\"publish\":{{\"id\":\"{id}\",\"channel\":\"room:2\",\"data\":1}}"),
            ErrorCode::Forbidden,
        ),
        ("\"connect\":{}".to_owned(), ErrorCode::BadRequest),
    ];
    table.extend(others);
    let mut connection = connected(&stack).await;
    // Frames that cannot be read are counted, so each connection gets a few only.
    for chunk in table.chunks(8) {
        for (index, (body, code)) in chunk.iter().enumerate() {
            let req = index + 1;
            let frame = format!("{{\"req\":{req},{body}}}");
            connection.send_bytes(frame.into(), false).await.unwrap();
            let start = &body[..body.len().min(100)];
            match next_error(&mut connection).await {
                Ok((echoed, answered, message)) => {
                    assert_eq!(answered, *code, "{start}: {message}");
                    assert_eq!(echoed as usize, req, "{start}: {message}");
                    assert!(
                        !message.contains(&too_large[..100]),
                        "it repeats the payload"
                    );
                }
                Err(closed) => panic!("{closed} after {start}"),
            }
        }
        let published = connection
            .publish(MessageId::random(), room(), "", "1".into())
            .await;
        assert!(published.is_ok(), "the connection goes on: {published:?}");
        connection = connected(&stack).await;
    }
    assert_well(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_cannot_be_read_keep_coming() {
    let mut stack = stack().await;
    let mut connection = connected(&stack).await;
    for _ in 0..100 {
        // The edge may have closed already.
        let _closed = connection.send_bytes("nonsense".into(), false).await;
    }
    assert_eq!(closed(&mut connection).await, Some(CloseCode::BadFrame));
    assert_well(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_encoding() {
    let mut stack = stack().await;
    for encoding in Encoding::ALL {
        let options = ConnectOptions::default().encoding(encoding);
        let (mut connection, _) = stack.connect("42", &[], &options).await;
        let wrong = !encoding.is_binary();
        connection
            .send_bytes("{\"pong\":{}}".into(), wrong)
            .await
            .unwrap();
        assert_eq!(
            closed(&mut connection).await,
            Some(CloseCode::WrongEncoding)
        );
    }
    // A text that is none ends the connection, as RFC 6455 demands.
    let mut raw = Raw::open(stack.edges[0].address(), "rejoin.v1.json").await;
    raw.frame(true, TEXT, b"\xff\xfe").await.unwrap();
    let end = raw.end(SOON).await;
    assert!(matches!(end, End::Closed | End::Code(1007)), "{end:?}");
    assert_well(&mut stack).await;
}

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
async fn more_subscriptions_than_allowed_and_twice_the_same() {
    let mut stack = stack().await;
    let mut connection = connected(&stack).await;
    for number in 0..8 {
        let channel = Channel::parse(&format!("many:{number}")).unwrap();
        connection.subscribe(channel, From::Tail).await.unwrap();
    }
    let table = [
        ("many:8", ErrorCode::TooManySubscriptions),
        ("many:7", ErrorCode::AlreadySubscribed),
    ];
    for (text, code) in table {
        let refused = connection
            .subscribe(Channel::parse(text).unwrap(), From::Tail)
            .await;
        assert_eq!(refused.unwrap_err().refused().unwrap().code, code, "{text}");
    }
    assert_well(&mut stack).await;
}

/// Cursors that cannot be continued: an explicit reset, and the subscription goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_cannot_be_continued() {
    let mut stack = stack().await;
    let head = stack.http().publish_all(&room(), &texts("old", 5)).await[4];
    let ahead = Cursor::new(head.epoch, head.seq + 1_000_000);
    let far_ahead = Cursor::new(head.epoch, u64::MAX);
    let other_epoch = Cursor::new(Epoch(head.epoch.0 ^ 1), head.seq);
    let table = [
        (ahead, ResetReason::Ahead),
        (far_ahead, ResetReason::Ahead),
        (other_epoch, ResetReason::Epoch),
    ];
    for (cursor, reason) in table {
        for encoding in Encoding::ALL {
            let options = ConnectOptions::default()
                .encoding(encoding)
                .subscribe(room(), From::Cursor(cursor));
            let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
            let mut watch = Watch::new(&room());
            watch.until_live(&mut connection).await;
            let resets: Vec<&Reset> = watch.resets.iter().collect();
            assert_eq!(resets.len(), 1, "{cursor}: {watch:?}");
            assert_eq!(resets[0].reason, reason, "{cursor}");
            assert_eq!(resets[0].head.epoch, head.epoch, "{cursor}");
            assert!(watch.seen.is_empty(), "{cursor}: {watch:?}");
            let new = stack
                .http()
                .publish(&room(), &format!("{cursor}-{encoding:?}"), "\"new\"")
                .await;
            watch.until_seen(&mut connection, 1).await;
            assert_eq!(watch.seen[0].cursor, new.cursor());
        }
    }
    // A bounded catch-up that is too short.
    let mut options = ConnectOptions::default().subscribe(room(), From::Earliest);
    options.subscriptions[0].max_catchup = 2;
    let (mut connection, _) = stack.connect("42", &["room:1"], &options).await;
    let mut watch = Watch::new(&room());
    watch.until_live(&mut connection).await;
    assert_eq!(watch.resets.len(), 1, "{watch:?}");
    assert_eq!(watch.resets[0].reason, ResetReason::TooFarBehind);
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
