//! WebSocket over TLS, from a client's first byte to the close frame.

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as Piece};

use super::*;
use crate::config::TlsConfig;
use crate::listen;
use crate::listen::tls::Tls;

type Client = WebSocketStream<TlsStream<TcpStream>>;

const NAME: &str = "edge.test";

/// Opens WebSockets over TLS at an edge, and at the framing alone (`/echo`).
struct Secured {
    address: std::net::SocketAddr,
    connector: TlsConnector,
}

impl Secured {
    async fn start() -> Self {
        let api = Api::filled().await;
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig {
            cert_file: folder.path().join("cert.pem"),
            key_file: folder.path().join("key.pem"),
            reload_ms: 60_000,
        };
        std::fs::write(&config.cert_file, certificate.pem()).unwrap();
        std::fs::write(&config.key_file, key.serialize_pem()).unwrap();
        let tls = Tls::new(&config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = api
            .router
            .clone()
            .route("/echo", get(crate::ws::echo::echo));
        tokio::spawn(async move {
            let config = &api.edge.config().listen;
            let drain = api.edge.drain().clone();
            listen::serve_secured(&listener, router, config, drain, Some(tls), |_| {}).await;
        });
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            connector: TlsConnector::from(Arc::new(client)),
        }
    }

    async fn open(&self, path: &str, subprotocol: &str) -> Client {
        let mut request = format!("wss://{NAME}{path}").into_client_request().unwrap();
        let subprotocol = subprotocol.parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let stream = self.connector.connect(name, stream).await.unwrap();
        let opened = tokio_tungstenite::client_async(request, stream).await;
        let (client, response) = opened.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        client
    }
}

async fn next(client: &mut Client) -> Frame {
    let next = tokio::time::timeout(Duration::from_secs(30), client.next());
    let next = next.await.expect("in time");
    next.expect("not the end").expect("a frame")
}

async fn heard(client: &mut Client) -> Value {
    serde_json::from_str(next(client).await.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn a_websocket_over_tls_replays_publishes_and_closes() {
    let secured = Secured::start().await;
    let mut client = secured.open("/v1/connect", "rejoin.v1.json").await;
    let subscriptions = json!([{"channel": "room:1", "from": "earliest"}]);
    let connect = json!({"token": token("42", 3_600), "subscriptions": subscriptions});
    let frame = json!({"req": 1, "connect": connect});
    client.send(Frame::text(frame.to_string())).await.unwrap();
    assert!(heard(&mut client).await["connected"].is_object());
    let subscribed = heard(&mut client).await;
    assert!(subscribed["subscribed"].is_object(), "{subscribed}");
    let mut replayed = 0;
    while replayed < 10 {
        let frame = heard(&mut client).await;
        replayed += frame["messages"]["messages"].as_array().map_or(0, Vec::len);
    }
    assert!(heard(&mut client).await["live"].is_object());
    // Of many TLS records.
    let data = "x".repeat(60_000);
    let publish = json!({"id": "m", "channel": "topic:a", "data": data});
    let frame = json!({"req": 2, "publish": publish});
    client.send(Frame::text(frame.to_string())).await.unwrap();
    assert!(heard(&mut client).await["published"].is_object());
    // Over the limit: the close frame arrives although the rest is not taken.
    let frame = "x".repeat(4 << 20);
    let _ = client.send(Frame::text(frame)).await;
    let close = next(&mut client).await;
    let Frame::Close(Some(CloseFrame { code, .. })) = close else {
        panic!("{close:?}");
    };
    let expected = protocol::CloseCode::FrameTooLarge.as_u16();
    assert_eq!(u16::from(code), expected);
}

#[tokio::test]
async fn frames_of_all_kinds_and_sizes_pass_through_tls() {
    let secured = Secured::start().await;
    let mut client = secured.open("/echo", "rejoin.v1.proto").await;
    for size in [0, 1, 125, 126, 8_192, 16_384, 65_535, 65_536, 1 << 20] {
        let sent: Vec<u8> = (0..size).map(|n| n as u8).collect();
        client.send(Frame::binary(sent.clone())).await.unwrap();
        let got = next(&mut client).await.into_data();
        assert!(got == sent, "{size} bytes came back changed");
    }
    // Written at once, answered in order.
    for n in 0..100 {
        client.feed(Frame::binary(vec![n; 1_000])).await.unwrap();
    }
    client.flush().await.unwrap();
    for n in 0..100 {
        assert_eq!(next(&mut client).await.into_data(), vec![n; 1_000]);
    }
    // In fragments, with a ping between them.
    let piece = |data: &'static [u8], opcode, is_final| {
        Frame::Frame(Piece::message(data, OpCode::Data(opcode), is_final))
    };
    client
        .send(piece(b"one ", Data::Binary, false))
        .await
        .unwrap();
    client.send(Frame::Ping("p".into())).await.unwrap();
    client
        .send(piece(b"two", Data::Continue, true))
        .await
        .unwrap();
    assert_eq!(next(&mut client).await, Frame::Pong("p".into()));
    assert_eq!(next(&mut client).await.into_data(), &b"one two"[..]);
    client.close(None).await.unwrap();
    assert!(matches!(next(&mut client).await, Frame::Close(_)));
}
