//! Input that is not a frame: each is refused with the code and the field
//! that it deserves, and nothing panics.

use proptest::prelude::*;
use protocol::limits::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, SUBSCRIPTIONS_MAX, TOKEN_BYTES_MAX};
use protocol::{
    DecodeError, Encoding, ErrorCode, decode_client, decode_server, encode_client, encode_server,
};

use crate::{arbitrary, samples};

fn refused(encoding: Encoding, bytes: &[u8]) -> DecodeError {
    match decode_client(encoding, bytes) {
        Ok(frame) => panic!("{:?} was read as {frame:?}", bytes.escape_ascii()),
        Err(error) => error,
    }
}

/// A frame, the code that it gets, its `req`, and what the message names.
const JSON: &[(&str, ErrorCode, u32, &str)] = {
    use ErrorCode::{BadChannel, BadCursor, BadFrame, BadRequest};
    &[
        // Not a frame.
        ("", BadFrame, 0, "EOF"),
        ("{", BadFrame, 0, "EOF"),
        ("null", BadFrame, 0, "an object"),
        ("[]", BadFrame, 0, "an object"),
        ("\"pong\"", BadFrame, 0, "an object"),
        ("{\"pong\":{}} {}", BadFrame, 0, "trailing"),
        ("\u{feff}{\"pong\":{}}", BadFrame, 0, ""),
        ("{}", BadFrame, 0, "none"),
        ("{\"req\":7}", BadFrame, 7, "none"),
        ("{\"req\":7,\"publsh\":{}}", BadFrame, 7, "publsh"),
        ("{\"publsh\":{},\"req\":7}", BadFrame, 7, "publsh"),
        ("{\"Pong\":{}}", BadFrame, 0, "Pong"),
        ("{\"pong\":{},\"x\":1}", BadFrame, 0, "\"x\""),
        (
            "{\"req\":7,\"pong\":{},\"pong\":{}}",
            BadFrame,
            7,
            "pong is a second",
        ),
        (
            "{\"req\":7,\"pong\":{},\"ack\":{\"channel\":\"room:1\"}}",
            BadFrame,
            7,
            "ack is a second",
        ),
        ("{\"req\":1,\"req\":2,\"pong\":{}}", BadFrame, 1, "twice"),
        ("{\"req\":-1,\"pong\":{}}", BadFrame, 0, "req"),
        ("{\"req\":4294967296,\"pong\":{}}", BadFrame, 0, "req"),
        ("{\"req\":1.0,\"pong\":{}}", BadFrame, 0, "req"),
        ("{\"req\":1e2,\"pong\":{}}", BadFrame, 0, "req"),
        ("{\"req\":\"1\",\"pong\":{}}", BadFrame, 0, "req"),
        ("{\"req\":null,\"pong\":{}}", BadFrame, 0, "req"),
        ("{\"req\":7,\"pong\":{}", BadFrame, 7, "EOF"),
        ("{\"req\":7,'pong':{}}", BadFrame, 7, ""),
        // A frame with a body of the wrong shape.
        ("{\"req\":7,\"pong\":null}", BadRequest, 7, "pong"),
        ("{\"req\":7,\"pong\":[]}", BadRequest, 7, "pong"),
        (
            "{\"req\":7,\"pong\":{\"a\":1}}",
            BadRequest,
            7,
            "unknown field `a`",
        ),
        (
            "{\"req\":7,\"subscribe\":[\"room:1\",\"tail\",0]}",
            BadRequest,
            7,
            "subscribe",
        ),
        (
            "{\"connect\":{\"subscriptions\":[[\"room:1\",\"tail\",0]]}}",
            BadRequest,
            0,
            "connect.subscriptions[0]",
        ),
        (
            "{\"connect\":{\"subscriptions\":{}}}",
            BadRequest,
            0,
            "connect.subscriptions",
        ),
        (
            "{\"connect\":{\"subscriptions\":[{\"channel\":\"a:b\"},{\"chanel\":\"a:b\"}]}}",
            BadRequest,
            0,
            "unknown field `chanel`",
        ),
        (
            "{\"connect\":{\"inbox\":1}}",
            BadRequest,
            0,
            "connect.inbox",
        ),
        (
            "{\"connect\":{\"device\":\"my phone\"}}",
            BadRequest,
            0,
            "connect.device",
        ),
        (
            "{\"subscribe\":{\"channel\":5}}",
            BadRequest,
            0,
            "subscribe.channel: expected a string",
        ),
        (
            "{\"subscribe\":{\"channel\":\"a:b\",\"channel\":\"a:b\"}}",
            BadRequest,
            0,
            "duplicate field `channel`",
        ),
        (
            "{\"subscribe\":{\"channel\":\"a:b\",\"max_catchup\":4294967296}}",
            BadRequest,
            0,
            "subscribe.max_catchup: expected u32",
        ),
        (
            "{\"subscribe\":{\"channel\":\"a:b\",\"max_catchup\":-1}}",
            BadRequest,
            0,
            "subscribe.max_catchup",
        ),
        (
            "{\"subscribe\":{\"channel\":\"a:b\",\"max_catchup\":1e400}}",
            BadRequest,
            0,
            "subscribe",
        ),
        ("{\"refresh\":{}}", BadRequest, 0, "refresh.token: missing"),
        (
            "{\"ack\":{\"channel\":\"a:b\"}}",
            BadRequest,
            0,
            "ack.delivered or ack.read",
        ),
        (
            "{\"publish\":{\"channel\":\"a:b\",\"data\":1}}",
            BadRequest,
            0,
            "publish.id",
        ),
        (
            "{\"publish\":{\"id\":\"a/b\",\"channel\":\"a:b\"}}",
            BadRequest,
            0,
            "publish.id",
        ),
        (
            "{\"publish\":{\"id\":\"1\",\"channel\":\"a:b\",\"type\":\"a\\r\\nb\"}}",
            BadRequest,
            0,
            "publish.type",
        ),
        (
            "{\"publish\":{\"id\":\"1\",\"channel\":\"a:b\",\"traceparent\":\"00-1-2-3\"}}",
            BadRequest,
            0,
            "publish.traceparent",
        ),
        (
            "{\"publish\":{\"id\":\"1\",\"channel\":\"a:b\",\"data\":1,\"data_base64\":\"AA==\"}}",
            BadRequest,
            0,
            "exclude",
        ),
        (
            "{\"publish\":{\"id\":\"1\",\"channel\":\"a:b\",\"data_base64\":\"AA\"}}",
            BadRequest,
            0,
            "data_base64",
        ),
        // Names and positions that are not ones.
        (
            "{\"req\":7,\"subscribe\":{}}",
            BadChannel,
            7,
            "subscribe.channel",
        ),
        (
            "{\"unsubscribe\":{\"channel\":\"*\"}}",
            BadChannel,
            0,
            "unsubscribe.channel",
        ),
        (
            "{\"presence\":{\"channel\":\"a:>\"}}",
            BadChannel,
            0,
            "presence.channel",
        ),
        (
            "{\"subscribe\":{\"channel\":\"a:b.c\"}}",
            BadChannel,
            0,
            "subscribe.channel",
        ),
        (
            "{\"signal\":{\"channel\":\"a:b\\r\\n\"}}",
            BadChannel,
            0,
            "signal.channel",
        ),
        (
            "{\"connect\":{\"subscriptions\":[{\"channel\":\"a:b\"},{\"channel\":\"a:\\u0000\"}]}}",
            BadChannel,
            0,
            "connect.subscriptions[1].channel",
        ),
        (
            "{\"req\":7,\"subscribe\":{\"channel\":\"a:b\",\"from\":\"last:0\"}}",
            BadCursor,
            7,
            "subscribe.from",
        ),
        (
            "{\"subscribe\":{\"channel\":\"a:b\",\"from\":\"12\"}}",
            BadCursor,
            0,
            "subscribe.from",
        ),
        (
            "{\"ack\":{\"channel\":\"a:b\",\"read\":\"tail\"}}",
            BadCursor,
            0,
            "ack.read",
        ),
    ]
};

#[test]
fn hostile_json_is_refused() {
    for (text, code, req, named) in JSON {
        let error = refused(Encoding::Json, text.as_bytes());
        assert_eq!((error.code, error.req), (*code, *req), "{text}: {error}");
        assert!(error.message.contains(named), "{text}: {error}");
    }
}

#[test]
fn long_and_deep_json_is_refused() {
    let with_token = |bytes: usize| {
        let token = "t".repeat(bytes);
        format!("{{\"req\":7,\"refresh\":{{\"token\":\"{token}\"}}}}")
    };
    assert!(decode_client(Encoding::Json, with_token(TOKEN_BYTES_MAX).as_bytes()).is_ok());
    let subscriptions = vec!["{\"channel\":\"a:b\"}"; SUBSCRIPTIONS_MAX + 1].join(",");
    let frames = [
        (
            with_token(TOKEN_BYTES_MAX + 1),
            ErrorCode::TooLarge,
            "refresh.token",
        ),
        (
            format!("{{\"req\":7,\"connect\":{{\"subscriptions\":[{subscriptions}]}}}}"),
            ErrorCode::TooManySubscriptions,
            "connect.subscriptions",
        ),
        (
            format!(
                "{{\"req\":7,\"publish\":{{\"id\":\"1\",\"channel\":\"a:b\",\"data\":\"{}\"}}}}",
                "d".repeat(MESSAGE_BYTES_MAX)
            ),
            ErrorCode::TooLarge,
            "publish.data",
        ),
        (
            format!("{{\"req\":7,\"x\":{}", "[".repeat(500_000)),
            ErrorCode::BadFrame,
            "EOF",
        ),
        (
            format!(
                "{{\"req\":7,\"subscribe\":{{\"channel\":{}",
                "[".repeat(500_000)
            ),
            ErrorCode::BadFrame,
            "EOF",
        ),
        (
            format!(
                "{{\"req\":7,\"subscribe\":{{\"channel\":{}{}}}}}",
                "[".repeat(100_000),
                "]".repeat(100_000)
            ),
            ErrorCode::BadRequest,
            "subscribe.channel",
        ),
        (
            format!("{{\"req\":7,\"{}\":{{}}}}", "k".repeat(100_000)),
            ErrorCode::BadFrame,
            "kkk",
        ),
    ];
    for (text, code, named) in frames {
        let error = refused(Encoding::Json, text.as_bytes());
        assert_eq!((error.code, error.req), (code, 7), "{error}");
        assert!(error.message.contains(named), "{error}");
        assert!(error.message.len() <= 240, "{} bytes", error.message.len());
    }
    let error = refused(Encoding::Json, &vec![b' '; FRAME_BYTES_MAX + 1]);
    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[test]
fn an_error_does_not_repeat_a_token() {
    let frames = [
        "{\"connect\":\"eyJsecret\"}",
        "{\"connect\":{\"inbox\":\"eyJsecret\"}}",
        "{\"connect\":{\"device\":\"eyJsecret.\"}}",
        "{\"req\":\"eyJsecret\",\"pong\":{}}",
    ];
    for text in frames {
        let error = refused(Encoding::Json, text.as_bytes());
        assert!(!error.message.contains("eyJsecret"), "{error}");
    }
    let (_, connect) = &samples::client()[0];
    assert!(!format!("{connect:?}").contains("eyJ"));
}

#[test]
fn invalid_utf8_is_refused() {
    let json = b"{\"req\":7,\"publish\":{\"id\":\"1\",\"channel\":\"a:b\",\"data\":\"\xff\"}}";
    assert_eq!(refused(Encoding::Json, json).code, ErrorCode::BadFrame);
    // refresh { token: "\xff" }, req 7.
    let proto = b"\x08\x07\x4a\x03\x0a\x01\xff";
    let error = refused(Encoding::Proto, proto);
    assert_eq!((error.code, error.req), (ErrorCode::BadFrame, 7));
}

#[test]
fn hostile_protobuf_is_refused() {
    use ErrorCode::{BadChannel, BadFrame};
    let frames: [(&[u8], ErrorCode, u32, &str); 9] = [
        (b"", BadFrame, 0, "none"),
        (b"\x08\x07", BadFrame, 7, "none"),
        // A body of a later version: field 100.
        (b"\x08\x07\xa2\x06\x00", BadFrame, 7, "none"),
        // A length beyond the end.
        (b"\x08\x07\x52\x7f", BadFrame, 7, "buffer"),
        // A length that overflows.
        (
            b"\x08\x07\x52\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            BadFrame,
            7,
            "varint",
        ),
        // `pong` as a number.
        (b"\x08\x07\x50\x01", BadFrame, 7, "ClientFrame.body"),
        // A group, which proto3 does not have, without an end.
        (b"\x08\x07\x0b\x0b\x0b", BadFrame, 7, ""),
        // `req` as text.
        (b"\x0a\x01a", BadFrame, 0, "req"),
        // `subscribe {}`.
        (b"\x08\x07\x1a\x00", BadChannel, 7, "subscribe.channel"),
    ];
    for (bytes, code, req, named) in frames {
        let error = refused(Encoding::Proto, bytes);
        assert_eq!((error.code, error.req), (code, req), "{error}");
        assert!(error.message.contains(named), "{error}");
    }
    // JSON where protobuf was negotiated, and the other way round.
    let (_, sample) = &samples::client()[0];
    refused(Encoding::Proto, &encode_client(Encoding::Json, sample));
    refused(Encoding::Json, &encode_client(Encoding::Proto, sample));
}

#[test]
fn a_client_skips_what_a_later_edge_says() {
    let unknown: [(Encoding, &[u8]); 2] = [
        (Encoding::Json, b"{\"req\":7,\"confetti\":{}}"),
        (Encoding::Proto, b"\x08\x07\xa2\x06\x00"),
    ];
    for (encoding, bytes) in unknown {
        let error = decode_server(encoding, bytes).expect_err("the body is not known");
        assert_eq!((error.code, error.req), (ErrorCode::Unsupported, 7));
    }
    let more =
        "{\"v\":2,\"live\":{\"channel\":\"a:b\",\"cursor\":\"00000000000000ff-1\",\"x\":[]}}";
    assert!(decode_server(Encoding::Json, more.as_bytes()).is_ok());
    let code = "{\"error\":{\"code\":\"tea_time\",\"message\":\"\",\"retryable\":true}}";
    let frame = decode_server(Encoding::Json, code.as_bytes()).expect("codes may be added");
    let protocol::ServerBody::Error(error) = frame.body else {
        panic!("{frame:?}");
    };
    assert!(error.code.is_retryable());
}

/// A change of some bytes of a valid frame.
fn mutate(bytes: &[u8], changes: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, how, byte) in changes {
        if bytes.is_empty() {
            bytes.push(*byte);
        }
        let at = at % bytes.len();
        match how % 4 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Decodes in all four ways, and what decodes must be a frame that can be
/// written and read again.
fn decode_everything(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        if let Ok(frame) = decode_client(encoding, bytes) {
            let again = decode_client(encoding, &encode_client(encoding, &frame));
            assert_eq!(again, Ok(frame));
        }
        if let Ok(frame) = decode_server(encoding, bytes) {
            let written = encode_server(encoding, &frame);
            let again = decode_server(encoding, &written).expect("an edge's frame is read");
            assert_eq!(encode_server(encoding, &again), written);
        }
    }
}

proptest! {
    #[test]
    fn decoding_random_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_everything(&bytes);
    }

    #[test]
    fn decoding_changed_frames_never_panics(
        client in arbitrary::client_frame(),
        server in arbitrary::server_frame(),
        changes in proptest::collection::vec(any::<(usize, u8, u8)>(), 1..6),
    ) {
        for encoding in Encoding::ALL {
            decode_everything(&mutate(&encode_client(encoding, &client), &changes));
            decode_everything(&mutate(&encode_server(encoding, &server), &changes));
        }
    }
}
