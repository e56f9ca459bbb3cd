//! Every frame's bytes, committed: a change of the wire shows in review.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p protocol` rewrites the files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use protocol::{
    ClientFrame, Encoding, ServerFrame, decode_client, decode_server, encode_client, encode_server,
};

use crate::samples;

/// Text for JSON, hexadecimal digits for protobuf.
pub(crate) fn readable(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Json => String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8"),
        Encoding::Proto => bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes everything");
            text
        }),
    }
}

fn snapshot(encoding: Encoding) -> String {
    let mut text = format!(
        "Every frame in {}, written by the tests.\n",
        encoding.subprotocol()
    );
    let clients = samples::client().into_iter().map(|(name, frame)| {
        let bytes = encode_client(encoding, &frame);
        (format!("client: {name}"), bytes)
    });
    let servers = samples::server().into_iter().map(|(name, frame)| {
        let bytes = encode_server(encoding, &frame);
        (format!("edge: {name}"), bytes)
    });
    for (name, bytes) in clients.chain(servers) {
        let bytes = readable(encoding, &bytes);
        write!(text, "\n# {name}\n{bytes}\n").expect("a String takes everything");
    }
    text
}

fn check(encoding: Encoding, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(file);
    let now = snapshot(encoding);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &now).expect("the snapshot is writable");
    }
    let committed = std::fs::read_to_string(&path).expect("the snapshot is committed");
    for (now, committed) in now.lines().zip(committed.lines()) {
        assert_eq!(now, committed, "the wire changed, see {file}");
    }
    assert_eq!(
        now.len(),
        committed.len(),
        "frames came or went, see {file}"
    );
}

#[test]
fn json_frames_are_as_committed() {
    check(Encoding::Json, "json.txt");
}

#[test]
fn proto_frames_are_as_committed() {
    check(Encoding::Proto, "proto.txt");
}

#[test]
fn the_samples_have_every_body_and_decode_to_themselves() {
    let mut clients = BTreeSet::new();
    let mut servers = BTreeSet::new();
    for encoding in Encoding::ALL {
        for (name, frame) in samples::client() {
            clients.insert(frame.body.name());
            let decoded: ClientFrame =
                decode_client(encoding, &encode_client(encoding, &frame)).expect(name);
            assert_eq!(decoded, frame, "{name} as {encoding:?}");
        }
        for (name, frame) in samples::server() {
            servers.insert(frame.body.name());
            let decoded: ServerFrame =
                decode_server(encoding, &encode_server(encoding, &frame)).expect(name);
            assert_eq!(decoded, frame, "{name} as {encoding:?}");
        }
    }
    assert_eq!((clients.len(), servers.len()), (9, 15));
}
