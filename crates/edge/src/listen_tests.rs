use std::io::ErrorKind;
use std::time::Instant;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

/// Bounds every wait of these tests; none comes near it unless it fails.
const LONG: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    drain: Drain,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(configure: fn(&mut ListenConfig)) -> Self {
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/slow", get(slow))
            .route("/body", post(|body: axum::body::Bytes| async move { body }));
        Self::with(router, configure).await
    }

    async fn with(router: Router, configure: fn(&mut ListenConfig)) -> Self {
        let mut config = ListenConfig::default();
        configure(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::new(Duration::ZERO);
        let serving = tokio::spawn({
            let drain = drain.clone();
            async move { serve(&listener, router, &config, drain).await }
        });
        Self {
            address,
            drain,
            serving,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Answers only when the drain is under way, so that a test can catch it in
/// the middle.
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(300)).await;
    "slow"
}

/// Everything until the other side closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await;
    match read.expect("the connection was not closed") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(LONG, stream.read(&mut buffer)).await;
    let length = read.expect("no answer").unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn requests_are_answered_and_the_connection_is_kept() {
    let server = Server::start(|_| {}).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(GET).await.unwrap();
        let answer = read_some(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    assert_eq!(server.drain.open_connections(), 1);
}

#[tokio::test]
async fn a_header_that_trickles_in_is_cut_off() {
    let server = Server::start(|config| config.header_timeout_ms = 300).await;
    let mut stream = server.connect().await;
    let begin = Instant::now();
    let (mut reading, mut writing) = stream.split();
    // A byte every 20 ms: there is always progress, and it never ends.
    let trickle = async {
        let header = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
            .iter()
            .chain(std::iter::repeat(&b'a'));
        for byte in header {
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = async {
        let mut rest = Vec::new();
        // An end or a reset: both are a closed connection.
        let _ = reading.read_to_end(&mut rest).await;
    };
    tokio::select! {
        () = trickle => {}
        () = closed => {}
        () = tokio::time::sleep(LONG) => panic!("the slow header was not cut off"),
    }
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(250), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    assert_eq!(server.drain.wait_empty(LONG).await, 0);
}

#[tokio::test]
async fn a_silent_connection_is_cut_off() {
    let server = Server::start(|config| config.header_timeout_ms = 200).await;
    let mut fresh = server.connect().await;
    assert_eq!(read_to_end(&mut fresh).await, "");
    let mut used = server.connect().await;
    used.write_all(GET).await.unwrap();
    assert!(read_to_end(&mut used).await.ends_with("hello"));
}

#[tokio::test]
async fn an_endless_header_is_refused() {
    let server = Server::start(|config| config.header_bytes = 8_192).await;
    let mut stream = server.connect().await;
    let header = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(20_000)
    );
    // The server may close before it has read everything.
    let _ = stream.write_all(header.as_bytes()).await;
    let answer = read_to_end(&mut stream).await;
    assert!(!answer.contains("200 OK"), "{answer}");

    let mut stream = server.connect().await;
    let headers: String = (0..=HEADERS_MAX).map(|n| format!("X-{n}: a\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn nonsense_ends_its_connection_only() {
    let server = Server::start(|_| {}).await;
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\r\n\r\nGET",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(nonsense).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    assert!(read_some(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_and_closed() {
    let server = Server::start(|config| config.connections = 1).await;
    let mut first = server.connect().await;
    first.write_all(GET).await.unwrap();
    assert!(read_some(&mut first).await.ends_with("hello"));

    let mut second = server.connect().await;
    let answer = read_to_end(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"]["code"], "unavailable");

    // The place is given back.
    drop(first);
    let end = Instant::now() + LONG;
    loop {
        let mut third = server.connect().await;
        // A refused connection may be reset before this is written.
        let _ = third.write_all(GET).await;
        if read_some(&mut third).await.ends_with("hello") {
            break;
        }
        assert!(Instant::now() < end, "the place was not given back");
    }
}

#[tokio::test]
async fn an_upgraded_socket_keeps_its_place_and_its_type() {
    async fn upgrade(mut request: axum::extract::Request) -> axum::response::Response {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = upgrade.await.unwrap();
            let parts = upgraded.downcast::<TokioIo<Socket>>().unwrap();
            let (mut stream, _place) = parts.io.into_inner().into_parts();
            // Echoes one byte, then ends.
            let byte = stream.read_u8().await.unwrap();
            stream.write_u8(byte).await.unwrap();
        });
        axum::response::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(axum::body::Body::empty())
            .unwrap()
    }
    let router = Router::new().route("/echo", get(upgrade));
    let server = Server::with(router, |config| config.connections = 1).await;
    let mut stream = server.connect().await;
    let request = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 101 "));
    // The upgraded socket still counts, in both.
    assert_eq!(server.drain.open_connections(), 1);
    assert!(
        read_to_end(&mut server.connect().await)
            .await
            .starts_with("HTTP/1.1 503 ")
    );
    stream.write_u8(7).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 7);
    assert_eq!(server.drain.wait_empty(LONG).await, 0);
}

#[tokio::test]
async fn leaving_finishes_requests_and_takes_no_new_ones() {
    let server = Server::start(|_| {}).await;
    let mut idle = server.connect().await;
    idle.write_all(GET).await.unwrap();
    assert!(read_some(&mut idle).await.ends_with("hello"));
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    // Its request has been read once the handler runs; nothing shows that
    // from outside, so give it a moment within the handler's 300 ms.
    tokio::time::sleep(Duration::from_millis(100)).await;

    server.drain.advance(Phase::Leaving);
    tokio::time::timeout(LONG, server.serving)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(read_to_end(&mut busy).await.ends_with("slow"));
    assert_eq!(server.drain.wait_empty(LONG).await, 0);
}

#[tokio::test]
async fn the_deadline_cuts_what_is_left() {
    let router = Router::new().route("/never", get(std::future::pending::<()>));
    let server = Server::with(router, |_| {}).await;
    let mut stuck = server.connect().await;
    stuck
        .write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.drain.advance(Phase::Leaving);
    assert_eq!(server.drain.wait_empty(Duration::from_millis(100)).await, 1);
    server.drain.advance(Phase::Stopped);
    assert_eq!(server.drain.wait_empty(LONG).await, 0);
    assert_eq!(read_to_end(&mut stuck).await, "");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut_off() {
    let endless = || async {
        let chunk =
            || Ok::<_, std::convert::Infallible>(axum::body::Bytes::from_static(&[0; 4096]));
        axum::body::Body::from_stream(futures_util::stream::repeat_with(chunk))
    };
    let router = Router::new().route("/", get(endless));
    let server = Server::with(router, |config| config.stall_timeout_ms = 200).await;
    let mut stream = server.connect().await;
    stream.write_all(GET).await.unwrap();
    // Reads for longer than the timeout: whoever reads is not cut off.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) {
        assert!(!read_some(&mut stream).await.is_empty());
    }
    assert_eq!(server.drain.open_connections(), 1);
    assert_eq!(server.drain.wait_empty(LONG).await, 0, "not cut off");
}
