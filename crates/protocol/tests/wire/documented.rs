//! `docs/PROTOCOL.md` tells the truth: its examples are frames, in both
//! encodings the same, and its tables have every code with its verdict.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use protocol::{
    CloseCode, DecodeError, Encoding, ErrorCode, decode_client, decode_server, encode_client,
    encode_server, limits,
};

use crate::samples;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PROTOCOL.md");
    std::fs::read_to_string(path).expect("the document is there")
}

/// The fenced blocks in order: what the fence says, and the text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((info.to_owned(), text.join("\n")));
        }
    }
    blocks
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// The pairs of JSON and hex examples of one side, each decoded.
fn examples<T: Debug + PartialEq>(
    side: &str,
    decode: fn(Encoding, &[u8]) -> Result<T, DecodeError>,
) -> Vec<(T, Vec<u8>)> {
    let document = document();
    let blocks = blocks(&document);
    let mut frames = Vec::new();
    for pair in blocks.windows(2) {
        let [(info, json), (next_info, hex)] = pair else {
            unreachable!("windows of two")
        };
        if *info != format!("json {side}") {
            continue;
        }
        assert_eq!(*next_info, format!("hex {side}"), "after {json}");
        let proto = from_hex(hex);
        let frame = decode(Encoding::Json, json.as_bytes()).expect(json);
        assert_eq!(decode(Encoding::Proto, &proto), Ok(frame), "{json}");
        let frame = decode(Encoding::Json, json.as_bytes()).expect(json);
        frames.push((frame, proto));
    }
    let hexes = blocks
        .iter()
        .filter(|(info, _)| *info == format!("hex {side}"));
    assert_eq!(hexes.count(), frames.len(), "a hex block without its JSON");
    frames
}

#[test]
fn every_client_frame_has_an_example_of_both_encodings() {
    let examples = examples("client", decode_client);
    let mut documented = BTreeSet::new();
    for (frame, proto) in examples {
        assert_eq!(encode_client(Encoding::Proto, &frame), proto);
        documented.insert(frame.body.name());
    }
    let all: BTreeSet<_> = samples::client()
        .iter()
        .map(|(_, frame)| frame.body.name())
        .collect();
    assert_eq!(documented, all);
}

#[test]
fn every_edge_frame_has_an_example_of_both_encodings() {
    let examples = examples("edge", decode_server);
    let mut documented = BTreeSet::new();
    for (frame, proto) in examples {
        assert_eq!(encode_server(Encoding::Proto, &frame), proto);
        documented.insert(frame.body.name());
    }
    let all: BTreeSet<_> = samples::server()
        .iter()
        .map(|(_, frame)| frame.body.name())
        .collect();
    assert_eq!(documented, all);
}

#[test]
fn every_code_is_listed_with_its_verdict() {
    let document = document();
    let yes = |it: bool| if it { "yes" } else { "no" };
    for code in ErrorCode::ALL {
        let row = format!("\n| `{code}` | {} |", yes(code.is_retryable()));
        assert_eq!(document.matches(&row).count(), 1, "{row}");
    }
    for code in CloseCode::ALL {
        let (number, reason) = (code.as_u16(), code.as_str());
        let row = format!("\n| {number} | `{reason}` | {} |", yes(code.comes_back()));
        assert_eq!(document.matches(&row).count(), 1, "{row}");
    }
}

#[test]
fn the_limits_are_the_ones_that_are_listed() {
    let document = document();
    let listed = [
        format!("{} bytes by default", limits::MESSAGE_BYTES_DEFAULT),
        format!("{} at most", limits::MESSAGE_BYTES_MAX),
        format!("{} by default", limits::SUBSCRIPTIONS_DEFAULT),
        format!("{} at most", limits::SUBSCRIPTIONS_MAX),
        format!("{} bytes of token", limits::TOKEN_BYTES_MAX),
        format!("{} bytes for each subscription", limits::SUBSCRIPTION_BYTES),
        format!("| {} bytes more", limits::FRAME_OVERHEAD_BYTES),
        format!("nested deeper than {}", limits::JSON_DEPTH_MAX),
        format!("| device name | {} bytes", limits::DEVICE_BYTES_MAX),
        format!("| `type` | {} bytes", limits::TYPE_BYTES_MAX),
        format!("at most {} of them", limits::PRESENCE_USERS_MAX),
    ];
    for text in listed {
        assert!(document.contains(&text), "{text}");
    }
    // "Under 1 MiB, whatever the configuration": a batch that is almost full
    // and then takes the longest message, as base64.
    let longest = limits::BATCH_BYTES + limits::frame_bytes(limits::MESSAGE_BYTES_MAX, 0);
    assert!(longest < 1_048_576, "{longest}");
}
