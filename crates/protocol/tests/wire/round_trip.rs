//! What is written is read back, in both encodings, and means the same.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::{
    Encoding, MessageRef, ServerBody, ServerFrame, decode_client, decode_server, encode_client,
    encode_message, encode_messages, encode_server,
};

use crate::arbitrary;

/// What a JSON reader gets for a payload: JSON loses the white space around
/// it and its line breaks; anything else arrives byte for byte.
fn as_json_reads(data: &Bytes) -> Bytes {
    if serde_json::from_slice::<serde_json::Value>(data).is_err() {
        return data.clone();
    }
    let kept = data.trim_ascii().iter().copied();
    kept.filter(|byte| !b"\r\n".contains(byte)).collect()
}

fn expected(encoding: Encoding, frame: &ServerFrame) -> ServerFrame {
    let mut frame = frame.clone();
    match (encoding, &mut frame.body) {
        (Encoding::Json, ServerBody::Messages(batch)) => {
            for message in &mut batch.messages {
                message.data = as_json_reads(&message.data);
            }
        }
        (Encoding::Json, ServerBody::Signal(signal)) => signal.data = as_json_reads(&signal.data),
        _ => {}
    }
    frame
}

proptest! {
    #[test]
    fn client_frames_round_trip(frame in arbitrary::client_frame()) {
        for encoding in Encoding::ALL {
            let bytes = encode_client(encoding, &frame);
            prop_assert_eq!(decode_client(encoding, &bytes), Ok(frame.clone()));
        }
    }

    #[test]
    fn server_frames_round_trip(frame in arbitrary::server_frame()) {
        for encoding in Encoding::ALL {
            let bytes = encode_server(encoding, &frame);
            prop_assert_eq!(decode_server(encoding, &bytes), Ok(expected(encoding, &frame)));
        }
    }

    /// Translating a frame from one encoding to the other keeps its meaning:
    /// what a JSON client says is what a protobuf client would have said.
    #[test]
    fn both_encodings_mean_the_same(
        client in arbitrary::client_frame(),
        server in arbitrary::server_frame(),
    ) {
        let read = decode_client(Encoding::Json, &encode_client(Encoding::Json, &client)).unwrap();
        prop_assert_eq!(
            encode_client(Encoding::Proto, &read),
            encode_client(Encoding::Proto, &client)
        );
        let read = decode_server(Encoding::Proto, &encode_server(Encoding::Proto, &server)).unwrap();
        prop_assert_eq!(
            encode_server(Encoding::Json, &read),
            encode_server(Encoding::Json, &server)
        );
    }

    /// Joined fragments are the frame.
    #[test]
    fn fragments_join_to_the_frame(batch in arbitrary::messages()) {
        for encoding in Encoding::ALL {
            let fragments: Vec<Bytes> = batch
                .messages
                .iter()
                .map(|message| encode_message(encoding, &MessageRef::from(message)))
                .collect();
            let joined = encode_messages(encoding, &batch.channel, batch.epoch, fragments.iter());
            let frame = ServerFrame::new(ServerBody::Messages(batch.clone()));
            prop_assert_eq!(joined, encode_server(encoding, &frame));
        }
    }

    /// A frame can be one line of a server-sent event.
    #[test]
    fn json_of_the_edge_is_one_line(frame in arbitrary::server_frame()) {
        let bytes = encode_server(Encoding::Json, &frame);
        prop_assert!(!bytes.iter().any(|byte| b"\r\n".contains(byte)));
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    }
}

/// What a `messages` frame has for one payload.
fn payload_in_json(data: &[u8]) -> serde_json::Map<String, serde_json::Value> {
    let fragment = encode_message(
        Encoding::Json,
        &MessageRef {
            seq: 1,
            prev: 0,
            id: None,
            kind: "",
            sender: None,
            time_ms: 0,
            data: &Bytes::copy_from_slice(data),
            traceparent: None,
        },
    );
    serde_json::from_slice(&fragment).expect("a strict parser reads every fragment")
}

#[test]
fn only_payloads_that_every_parser_reads_are_embedded() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let embedded = [
        "null".to_owned(),
        "0".to_owned(),
        " {\"a\":\n[1,\r\n2]} ".to_owned(),
        "\"\\ud83d\\ude00 \\n\"".to_owned(),
        "\"é\u{2028}\"".to_owned(),
        deep(100),
    ];
    for text in embedded {
        let fields = payload_in_json(text.as_bytes());
        let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(fields.get("data"), Some(&value), "{text:?}");
    }
    let not_embedded = [
        b"{".to_vec(),
        b"nul".to_vec(),
        b"1 2".to_vec(),
        b"NaN".to_vec(),
        b"1e999".to_vec(),
        b"{\"a\":1,}".to_vec(),
        b"\"\\ud800\"".to_vec(),
        b"\"a\nb\"".to_vec(),
        b"\"\xff\"".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b" ".to_vec(),
        b"\0".to_vec(),
        deep(101).into_bytes(),
        deep(30_000).into_bytes(),
        b"[".repeat(60_000),
    ];
    for data in not_embedded {
        let fields = payload_in_json(&data);
        assert_eq!(fields.get("data"), None, "{:?}", data.escape_ascii());
        assert!(fields.contains_key("data_base64"));
    }
    assert_eq!(
        payload_in_json(b"").len(),
        2,
        "an empty payload is left out"
    );
}
