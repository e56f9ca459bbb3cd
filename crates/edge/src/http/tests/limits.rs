//! What one user, address or moment may take.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::*;
use crate::admission::Peer;
use crate::config::ListenConfig;
use crate::listen;

type Client = WebSocketStream<TcpStream>;

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(30);

impl Api {
    /// The edge with a filled window, on a port of its own.
    async fn listening(configure: fn(&mut EdgeConfig)) -> (Self, SocketAddr) {
        let api = Self::with(|_| Ok(false), configure);
        let window = Arc::clone(&api.edge.hub().windows()[0]);
        let filled = Arc::clone(&window);
        tokio::spawn(async move { window::fill(TenMessages::new(), &window).await });
        filled.wait_filled().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, edge) = (api.router.clone(), api.edge.clone());
        tokio::spawn(async move {
            let config: &ListenConfig = &edge.config().listen;
            let drain = edge.drain().clone();
            let refused = |limit| edge.admission().note_refusal(limit);
            listen::serve_secured(&listener, router, config, drain, None, refused).await;
        });
        (api, address)
    }

    fn counted(&self, limit: &str) -> u64 {
        let mut out = crate::exposition::Exposition::default();
        self.edge.admission().write(&mut out);
        let text = out.into_text();
        let name = format!("rejoin_refusals_total{{limit=\"{limit}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("a metric").parse().unwrap()
    }
}

async fn dial(address: SocketAddr) -> Client {
    let request = format!("ws://{address}/v1/connect")
        .into_client_request()
        .unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    client
}

async fn connect(address: SocketAddr, user: &str, device: &str) -> Client {
    let mut client = dial(address).await;
    let connect = json!({"token": token(user, 3_600), "device": device});
    say(&mut client, json!({"req": 1, "connect": connect})).await;
    client
}

async fn say(client: &mut Client, frame: Value) {
    client.send(Frame::text(frame.to_string())).await.unwrap();
}

/// The next frame of the protocol; a close code as a number; null at the end.
async fn heard(client: &mut Client) -> Value {
    let next = async {
        loop {
            match client.next().await {
                Some(Ok(Frame::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Frame::Close(Some(close)))) => return json!(u16::from(close.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Value::Null,
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

#[tokio::test]
async fn a_user_publishes_at_its_rate_and_services_at_theirs() {
    let limits: fn(&mut EdgeConfig) = |config| {
        config.admission.publishes_per_user_per_s = 1;
        config.admission.publishes_burst = 2;
    };
    let (api, address) = Api::listening(limits).await;
    let token = token("42", 3_600);
    let path = "/v1/channels/topic:a/messages";
    for _ in 0..2 {
        assert_eq!(api.post(path, &token, "1").await.status, 200);
    }
    let refused = api.post(path, &token, "1").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "rate_limited")
    );
    let wait_ms = refused.body["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1_000).contains(&wait_ms), "{wait_ms}");
    let signal = api.post("/v1/channels/topic:a/signals", &token, "1").await;
    assert_eq!(signal.status, 429);
    for _ in 0..5 {
        assert_eq!(api.post(path, SERVICE_KEY, "1").await.status, 200);
    }
    assert_eq!(
        api.published().len(),
        7,
        "nothing that was refused is stored"
    );

    // The same over WebSocket, of another user.
    let mut client = connect(address, "43", "phone").await;
    assert!(heard(&mut client).await["connected"].is_object());
    for req in 2..=4 {
        let publish = json!({"id": format!("m{req}"), "channel": "topic:a", "data": 1});
        say(&mut client, json!({"req": req, "publish": publish})).await;
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(heard(&mut client).await);
    }
    let refused = answers.iter().find(|answer| answer["req"] == 4).unwrap();
    assert_eq!(refused["error"]["code"], "rate_limited");
    assert!(refused["error"]["retry_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(api.published().len(), 9);
    assert_eq!(api.counted("publishes"), 3);
}

fn events(token: &str, peer: &str, forwarded: &str) -> Request<Body> {
    let mut request = request(
        Method::GET,
        "/v1/events?channels=room:1",
        token,
        Body::empty(),
    );
    if !forwarded.is_empty() {
        let value = forwarded.parse().unwrap();
        request.headers_mut().insert("x-forwarded-for", value);
    }
    let peer = SocketAddr::new(peer.parse().unwrap(), 1);
    request.extensions_mut().insert(Peer(peer));
    request
}

#[tokio::test]
async fn an_address_has_its_connections_and_cannot_forge_another() {
    let (api, _) = Api::listening(|config| {
        config.admission.connections_per_ip = 1;
        config.listen.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let token = token("42", 3_600);
    let open = |peer: &'static str, forwarded: &'static str| {
        let request = events(&token, peer, forwarded);
        let router = api.router.clone();
        async move { router.oneshot(request).await.unwrap() }
    };
    let first = open("203.0.113.7", "").await;
    assert_eq!(first.status(), 200);
    let forged = open("203.0.113.7", "198.51.100.1").await;
    assert_eq!(forged.status(), 429, "whatever it says it is");
    assert!(forged.headers().contains_key(header::RETRY_AFTER));
    let proxied = open("10.0.0.1", "198.51.100.1").await;
    assert_eq!(proxied.status(), 200, "a proxy is believed");
    let same = open("10.0.0.1", "203.0.113.99, 198.51.100.1").await;
    assert_eq!(same.status(), 429, "but not what the client wrote itself");
    assert_eq!(open("10.0.0.2", "198.51.100.2").await.status(), 200);
    assert_eq!(api.counted("connections_per_ip"), 2);
    drop(first);
    assert_eq!(open("203.0.113.7", "").await.status(), 200, "given back");
}

#[tokio::test]
async fn an_address_connects_at_its_rate() {
    let (api, _) = Api::listening(|config| config.admission.connects_per_ip_per_s = 2).await;
    let token = token("42", 3_600);
    let mut statuses = Vec::new();
    for peer in ["203.0.113.7", "203.0.113.7", "203.0.113.7", "203.0.113.8"] {
        let answer = api.router.clone().oneshot(events(&token, peer, "")).await;
        statuses.push(answer.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200]);
    assert_eq!(api.counted("connects_per_ip"), 1);
}

#[tokio::test]
async fn a_user_has_its_connections() {
    let (api, address) = Api::listening(|config| config.admission.connections_per_user = 2).await;
    let mut first = connect(address, "42", "phone").await;
    assert!(heard(&mut first).await["connected"].is_object());
    let stream = api
        .router
        .clone()
        .oneshot(events(&token("42", 3_600), "203.0.113.7", ""))
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    let mut third = connect(address, "42", "tablet").await;
    let refused = heard(&mut third).await;
    assert_eq!(refused["error"]["code"], "rate_limited");
    assert!(refused["error"]["retry_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(heard(&mut third).await, json!(4003), "come back");
    let mut other = connect(address, "43", "phone").await;
    assert!(heard(&mut other).await["connected"].is_object());
    drop(stream);
    let mut again = connect(address, "42", "tablet").await;
    assert!(heard(&mut again).await["connected"].is_object());
    assert_eq!(api.counted("connections_per_user"), 1);
}

#[tokio::test]
async fn so_many_requests_are_worked_on_at_a_time() {
    let (api, _) = Api::listening(|config| config.admission.requests_in_flight = 1).await;
    // A body that never ends.
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let body = Body::from_stream(stream::poll_fn(
        move |_| -> std::task::Poll<Option<Result<String, std::io::Error>>> {
            let _ = begun.send(());
            std::task::Poll::Pending
        },
    ));
    let path = "/v1/channels/topic:a/messages";
    let slow = request(Method::POST, path, SERVICE_KEY, body);
    let slow = tokio::spawn(api.router.clone().oneshot(slow));
    begins.recv().await.unwrap();
    let refused = api.post(path, SERVICE_KEY, "1").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (503, "unavailable")
    );
    assert_eq!(api.get("/healthz", "").await.status, 200);
    slow.abort();
    let _ = slow.await;
    assert_eq!(api.post(path, SERVICE_KEY, "1").await.status, 200);
    assert_eq!(api.counted("requests"), 1);
}

#[tokio::test]
async fn a_full_edge_lets_nobody_in_and_keeps_who_is_there() {
    let (api, address) = Api::listening(|config| {
        // What the process holds now and some more.
        let now = crate::admission::resident_bytes().unwrap();
        config.admission.memory_bytes = now + (64 << 20);
    })
    .await;
    let mut client = connect(address, "42", "phone").await;
    assert!(heard(&mut client).await["connected"].is_object());
    // Touched, so that it is there.
    let ballast = vec![1_u8; 256 << 20];
    let refused = async {
        loop {
            // Until the memory is looked at, it is let in, and its events
            // have no end.
            let answer = api.get("/v1/events?channels=room:1", READER_KEY);
            match tokio::time::timeout(Duration::from_millis(200), answer).await {
                Ok(answer) if answer.status != 200 => return answer,
                Ok(_) | Err(_) => {}
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (503, "unavailable")
    );
    let publish = json!({"id": "m", "channel": "topic:a", "data": 1});
    say(&mut client, json!({"req": 2, "publish": publish})).await;
    assert!(heard(&mut client).await["published"].is_object());
    assert!(api.counted("memory") > 0);
    assert_eq!(ballast[ballast.len() / 2], 1);
}

#[tokio::test]
async fn an_address_has_its_sockets_and_proxies_have_any_number() {
    async fn refused(address: SocketAddr) -> bool {
        let mut held = Vec::new();
        for _ in 0..3 {
            let socket = TcpStream::connect(address).await.unwrap();
            held.push(socket);
        }
        // The third is answered and closed without having asked anything.
        let mut answer = Vec::new();
        let third = &mut held[2];
        let read = tokio::io::AsyncReadExt::read_to_end(third, &mut answer);
        let read = tokio::time::timeout(Duration::from_millis(500), read).await;
        read.is_ok() && answer.starts_with(b"HTTP/1.1 503")
    }
    let (api, address) = Api::listening(|config| config.listen.sockets_per_ip = 2).await;
    assert!(refused(address).await);
    assert_eq!(api.counted("sockets_per_ip"), 1);
    let (api, address) = Api::listening(|config| config.listen.connections = 2).await;
    assert!(refused(address).await);
    assert_eq!(api.counted("sockets"), 1);
    let (_api, address) = Api::listening(|config| {
        config.listen.sockets_per_ip = 2;
        config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert!(!refused(address).await);
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_and_is_counted() {
    let (api, address) = Api::listening(|_| {}).await;
    let mut healthy = connect(address, "42", "phone").await;
    assert!(heard(&mut healthy).await["connected"].is_object());
    let mut broken = connect(address, "42", "panic").await;
    assert_eq!(heard(&mut broken).await, Value::Null, "it is cut");
    let publish = json!({"id": "m", "channel": "topic:a", "data": 1});
    say(&mut healthy, json!({"req": 2, "publish": publish})).await;
    assert!(heard(&mut healthy).await["published"].is_object());
    let panicked = api.edge.counters().panics.get();
    assert_eq!(panicked, 1);
    assert_eq!(api.get("/panics", SERVICE_KEY).await.status, 500);
    let metrics = api.get("/metrics", ADMIN_KEY).await.text;
    assert!(metrics.contains("\nrejoin_panics_total 2\n"), "{metrics}");
}

/// Half-open sockets cost a place and a timer, and nothing of the time of
/// those who speak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_sockets_delay_nobody() {
    const SOCKETS: usize = 1_000;
    const CONNECTS: usize = 100;
    /// Median and 99th percentile.
    async fn connects(address: SocketAddr) -> (Duration, Duration) {
        let mut took = Vec::new();
        for _ in 0..CONNECTS {
            let begin = std::time::Instant::now();
            let mut client = connect(address, "42", "phone").await;
            assert!(heard(&mut client).await["connected"].is_object());
            took.push(begin.elapsed());
        }
        took.sort();
        (took[CONNECTS / 2], took[CONNECTS * 99 / 100])
    }
    let (_api, address) = Api::listening(|config| config.listen.header_timeout_ms = 60_000).await;
    connects(address).await;
    let (quiet, quiet_p99) = connects(address).await;
    let mut half_open = Vec::new();
    for _ in 0..SOCKETS {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let half = b"GET /v1/connect HTTP/1.1\r\nHost: a\r\nX-Slow: ";
        tokio::io::AsyncWriteExt::write_all(&mut socket, half)
            .await
            .unwrap();
        half_open.push(socket);
    }
    // And they go on: a byte each, all the time.
    let trickle = tokio::spawn(async move {
        loop {
            for socket in &half_open {
                let _ = socket.try_write(b"a");
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let (busy, busy_p99) = connects(address).await;
    trickle.abort();
    let ratio = |busy: Duration, quiet: Duration| busy.as_secs_f64() / quiet.as_secs_f64();
    eprintln!(
        "connect p99: {quiet_p99:?} alone, {busy_p99:?} beside {SOCKETS} half-open sockets: {:.2}",
        ratio(busy_p99, quiet_p99)
    );
    // The median, because the machine does other things meanwhile, and
    // generous for the same reason.
    assert!(ratio(busy, quiet) < 5.0, "{busy:?} after {quiet:?}");
}
