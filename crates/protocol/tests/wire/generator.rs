//! Generates the Rust form of the frames, without a system `protoc`.

use std::path::{Path, PathBuf};

/// The messages that clients send: in JSON their unknown keys are errors, so
/// that a typing mistake is heard of. What the edge sends may grow.
const FROM_CLIENTS: [&str; 7] = [
    "Connect",
    "Subscribe",
    "Unsubscribe",
    "Ack",
    "GetPresence",
    "Refresh",
    "Pong",
];

/// The messages that the edge sends. (Those with a payload have JSON of their
/// own, in `src/codec/payload.rs`.)
const FROM_EDGES: [&str; 16] = [
    "Connected",
    "Limits",
    "Retry",
    "Subscribed",
    "Unsubscribed",
    "Messages",
    "Live",
    "Reset",
    "Published",
    "Error",
    "Presence",
    "Receipt",
    "Refreshed",
    "TokenExpiring",
    "Goaway",
    "Ping",
];

/// Optional text: left out of JSON when empty. Numbers and booleans are
/// always written, so that a reader of JSON finds them where it expects them.
const OPTIONAL: [&str; 15] = [
    "Connect.token",
    "Connect.device",
    "Connect.subscriptions",
    "Connect.inbox",
    "Connect.rooms",
    "Subscribe.from",
    "Subscribe.max_catchup",
    "Ack.delivered",
    "Ack.read",
    "Unsubscribed.code",
    "Unsubscribed.message",
    "Reset.earliest",
    "Error.channel",
    "Receipt.delivered",
    "Receipt.read",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the generated code is committed.
pub(crate) fn committed_file() -> PathBuf {
    root().join("crates/protocol/src/generated/rejoin.v1.rs")
}

/// The generated code.
pub(crate) fn generate() -> String {
    let out = tempdir();
    let proto = root().join("proto");
    let files = protox::compile(["rejoin/v1/frames.proto"], [&proto]).expect("frames.proto parses");

    let mut config = prost_build::Config::new();
    config.out_dir(&out).bytes(["."]).btree_map(["."]);
    let message = |name: &str| format!(".rejoin.v1.{name}");
    for name in FROM_CLIENTS {
        config.type_attribute(
            message(name),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, deny_unknown_fields)]",
        );
    }
    for name in FROM_EDGES {
        config.type_attribute(
            message(name),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]",
        );
    }
    for name in ["ClientFrame.body", "ServerFrame.body"] {
        config.enum_attribute(
            message(name),
            "#[derive(serde::Serialize)] #[serde(rename_all = \"snake_case\")]",
        );
    }
    for field in OPTIONAL {
        config.field_attribute(
            message(field),
            "#[serde(skip_serializing_if = \"crate::codec::json::is_default\")]",
        );
    }
    config.field_attribute(
        message("Connect.subscriptions"),
        "#[serde(deserialize_with = \"crate::codec::json::objects\")]",
    );
    config.compile_fds(files).expect("frames.proto compiles");

    let code = std::fs::read_to_string(out.join("rejoin.v1.rs")).expect("prost wrote its file");
    std::fs::remove_dir_all(out).expect("the folder is ours");
    code
}

fn tempdir() -> PathBuf {
    let out = std::env::temp_dir().join(format!("rejoin-proto-{}", std::process::id()));
    std::fs::create_dir_all(&out).expect("the temporary folder is writable");
    out
}
