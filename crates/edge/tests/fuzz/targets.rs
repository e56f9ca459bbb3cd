//! What a stranger's bytes go through, one function each: `fuzz/` runs them
//! under libFuzzer, `main.rs` beside this file over their corpora and random
//! changes of these. A defect is a panic or a broken property.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use delivery::log::{Log, Page, PageError, PageRequest, Stream};
use delivery::publish::{Publication, Publish, PublishError, Published};
use delivery::{DeliveryLimits, Hub, Message, Tail, TailEvent, window};
use edge::auth::api_key::api_key_sha256;
use edge::auth::{
    ApiKeyConfig, AuthConfig, Authenticator, KeyConfig, Pattern, Secret, TokenAlgorithm,
};
use edge::{Edge, EdgeConfig, EdgeParts};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protocol::{
    Channel, Cursor, Device, Encoding, Epoch, From, MessageId, UserId, decode_client, encode_client,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A target.
pub(crate) type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub(crate) const TARGETS: [(&str, Target); 7] = [
    ("channel", channel),
    ("cursor", cursor),
    ("client_json", client_json),
    ("client_proto", client_proto),
    ("jwt", jwt),
    ("http", http),
    ("websocket", websocket),
];

/// The bearer that the corpus of [`http`] uses.
const API_KEY: &str = "rj_fuzz";
const TOKEN_SECRET: &str = "0123456789abcdef0123456789abcdef";
const EPOCH: Epoch = Epoch(255);

/// Channels, patterns and other names. What is taken is one token of a NATS
/// subject for each part, whatever was asked for.
pub(crate) fn channel(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let plain = |text: &str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(byte)
    };
    if let Ok(channel) = Channel::parse(text) {
        assert_eq!(channel.as_str(), text);
        assert!(plain(channel.namespace()) && plain(channel.id()), "{text}");
        let parts = Channel::from_parts(channel.namespace(), channel.id());
        assert_eq!(parts.as_ref(), Ok(&channel));
        assert!(channel.shard(7) < 7);
        if let Ok(pattern) = Pattern::parse(text) {
            assert!(pattern.matches(&channel), "{text} as a pattern is itself");
        }
    }
    if let Ok(pattern) = Pattern::parse(text) {
        let (namespace, id) = text.split_once(':').expect("a pattern has two parts");
        let other = Channel::parse("fuzz:fuzz").expect("a channel");
        if pattern.matches(&other) {
            let fits = |part: &str| part == "fuzz" || part.ends_with('*');
            assert!(fits(namespace) && fits(id), "{text} matches {other:?}");
        }
    }
    if let Ok(user) = UserId::parse(text) {
        assert!(plain(user.as_str()));
    }
    if let Ok(device) = Device::parse(text) {
        assert!(plain(device.as_str()));
    }
    if let Ok(id) = MessageId::parse(text) {
        assert!(id.as_str().len() <= 128);
        assert!(!id.as_str().bytes().any(|byte| byte.is_ascii_control()));
        let _ = id.created_ms();
    }
}

/// Cursors and starts: what is taken is written again as it was.
pub(crate) fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
    }
    if let Ok(start) = From::parse(text) {
        assert_eq!(From::parse(&start.to_string()), Ok(start));
    }
}

/// Frames of a client in JSON.
pub(crate) fn client_json(bytes: &[u8]) {
    client_frame(Encoding::Json, bytes);
}

/// Frames of a client in protobuf.
pub(crate) fn client_proto(bytes: &[u8]) {
    client_frame(Encoding::Proto, bytes);
}

/// What comes over a WebSocket: the first byte says in which pieces. It means
/// the same however it is cut.
pub(crate) fn websocket(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = edge::ws::echo::taken_apart(bytes, bytes.len());
    let pieces = edge::ws::echo::taken_apart(bytes, usize::from(*piece));
    assert_eq!(whole, pieces);
}

/// What is taken means the same when it is written in either encoding.
fn client_frame(encoding: Encoding, bytes: &[u8]) {
    match decode_client(encoding, bytes) {
        Ok(frame) => {
            let written = encode_client(encoding, &frame);
            assert_eq!(decode_client(encoding, &written).as_ref(), Ok(&frame));
        }
        Err(error) => {
            // What the client is told has to be writable.
            let frame = error.to_frame();
            assert!(!protocol::encode_server(encoding, &frame).is_empty());
        }
    }
}

/// Tokens: as they come, none of which is signed with our key, and with our
/// signature under the header and claims that come.
pub(crate) fn jwt(bytes: &[u8]) {
    static AUTH: OnceLock<Authenticator> = OnceLock::new();
    let auth =
        AUTH.get_or_init(|| Authenticator::new(&auth_config()).expect("a valid configuration"));
    const NOW_S: u64 = 1_700_000_000;
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(auth.verify_token(text, NOW_S).is_err(), "forged: {text}");
    let _ = auth.verify_bearer(text, NOW_S);
    // A corpus entry without a dot is two JSON texts, one on each line.
    if let Some((header, claims)) = text.split_once('\n') {
        let encoded = |part: &str| URL_SAFE_NO_PAD.encode(part);
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let token = format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(hmac(signed.as_bytes()))
        );
        if let Ok(grants) = auth.verify_token(&token, NOW_S) {
            assert!(!grants.expired(NOW_S), "{text}");
        }
    }
}

/// HMAC-SHA-256 under [`TOKEN_SECRET`] (RFC 2104).
fn hmac(text: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let keyed = |pad: u8| -> Vec<u8> {
        let mut block = [pad; 64];
        let key = TOKEN_SECRET.bytes();
        block
            .iter_mut()
            .zip(key)
            .for_each(|(byte, key)| *byte ^= key);
        block.to_vec()
    };
    let inner = Sha256::digest([keyed(0x36).as_slice(), text].concat());
    Sha256::digest([keyed(0x5c).as_slice(), &inner].concat()).into()
}

/// A connection's bytes: request lines, headers, queries with positions,
/// bodies, `Last-Event-ID`, upgrades and the frames behind them. Whatever
/// comes, the answers are never 500, and the connection ends.
pub(crate) fn http(bytes: &[u8]) {
    static RUNTIME: OnceLock<parking_lot::Mutex<(tokio::runtime::Runtime, Edge)>> = OnceLock::new();
    let shared = RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            // Nothing waits: when all sleep, the clock jumps.
            .start_paused(true)
            .build()
            .expect("a runtime");
        let edge = runtime.block_on(edge());
        parking_lot::Mutex::new((runtime, edge))
    });
    let shared = shared.lock();
    let (runtime, edge) = &*shared;
    let answer = runtime.block_on(exchange(edge, bytes));
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.starts_with("HTTP/1.1 500"), "{text}");
}

async fn exchange(edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    const ANSWER_BYTES_MAX: u64 = 1 << 20;
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let service = TowerToHyperService::new(edge.router());
    let serving = tokio::spawn(async move {
        let mut protocol = hyper::server::conn::http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(1))
            .max_buf_size(16 * 1024);
        let connection = protocol.serve_connection(TokioIo::new(server), service);
        // How a stranger's connection ends is the stranger's business.
        let _ = connection.with_upgrades().await;
    });
    let mut answer = Vec::new();
    // Event streams and connections end by the clock, which jumps.
    let spoken = async {
        let _ = client.write_all(bytes).await;
        let mut answers = (&mut client).take(ANSWER_BYTES_MAX);
        let _ = answers.read_to_end(&mut answer).await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(120), spoken).await;
    drop(client);
    serving.abort();
    let ended = serving.await;
    assert!(
        !ended.is_err_and(|error| error.is_panic()),
        "the connection's task panicked"
    );
    answer
}

fn auth_config() -> AuthConfig {
    let all = || vec!["*:*".to_owned()];
    AuthConfig {
        keys: vec![KeyConfig {
            alg: TokenAlgorithm::HS256,
            kid: None,
            secret: Some(Secret::new(TOKEN_SECRET)),
            secret_file: None,
            public_key_pem: None,
            public_key_pem_file: None,
        }],
        api_keys: vec![ApiKeyConfig {
            name: "fuzz".to_owned(),
            sha256: api_key_sha256(API_KEY),
            publish: all(),
            read: all(),
            members: all(),
            admin: true,
        }],
        ..AuthConfig::default()
    }
}

/// An edge with ten messages in `room:1` and nothing below.
async fn edge() -> Edge {
    let config = EdgeConfig {
        name: "fuzz".to_owned(),
        auth: auth_config(),
        ..EdgeConfig::default()
    };
    let edge = Edge::new(EdgeParts {
        auth: Authenticator::new(&config.auth).expect("a valid configuration"),
        config,
        hub: Hub::new(1, None, Arc::new(Below), DeliveryLimits::default()),
        publish: Arc::new(Taken),
        signals: None,
        controls: None,
        members: None,
        receipts: None,
        access: None,
        fleet: None,
        log: None,
    });
    let window = Arc::clone(&edge.hub().windows()[0]);
    let filling = {
        let window = Arc::clone(&window);
        async move { window::fill(TenMessages(0), &window).await }
    };
    tokio::spawn(filling);
    window.wait_filled().await;
    edge
}

struct Taken;

impl Publish for Taken {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        assert!(publication.data.len() <= 64 * 1024, "beyond its limit");
        let cursor = Cursor::new(EPOCH, 11);
        async move {
            Ok(Published {
                cursor,
                duplicate: false,
            })
        }
        .boxed()
    }
}

struct Below;

impl Log for Below {
    fn page(&self, _: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        async { Err(PageError::UnknownEpoch) }.boxed()
    }

    fn earliest(&self, _: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 0)) }.boxed()
    }

    fn before_last(
        &self,
        _: Channel,
        _: Cursor,
        _: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 0)) }.boxed()
    }
}

impl Stream for Below {
    fn head(&self, _: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 10)) }.boxed()
    }
}

struct TenMessages(u32);

impl Tail for TenMessages {
    async fn next(&mut self) -> TailEvent {
        self.0 += 1;
        let message = |seq| Message {
            channel: Channel::parse("room:1").expect("a channel"),
            position: Cursor::new(EPOCH, seq),
            prev: 0,
            id: None,
            kind: "chat".into(),
            sender: None,
            time_ms: 1_700_000_000_000,
            data: format!("{{\"n\":{seq}}}").into(),
            traceparent: None,
        };
        match self.0 {
            1 => TailEvent::Started {
                after: Cursor::new(EPOCH, 0),
                last: 10,
            },
            2 => TailEvent::Messages {
                messages: (1..=10).map(message).collect(),
                epoch: EPOCH,
                through: 10,
            },
            _ => std::future::pending().await,
        }
    }
}
