//! Frames with something wrong, and cursors that cannot be continued.

use client::{ConnectOptions, Connection};
use protocol::frame::{Reset, ResetReason};
use protocol::{Channel, CloseCode, Cursor, Encoding, Epoch, ErrorCode, From, MessageId, limits};

use crate::harness::raw::{End, Raw, TEXT};
use crate::harness::{SOON, TokenSpec, Watch, sign, texts};

use super::{assert_well, closed, connected, next_error, room, stack};

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
