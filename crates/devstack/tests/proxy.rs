//! The proxy between real sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use devstack::{ProxyMode, RoundRobinProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
/// Long enough for loopback to have delivered what was going to come.
const QUIET: Duration = Duration::from_millis(150);

/// Greets with its name, then echoes.
async fn upstream(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(&[name]).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn client(proxy: &RoundRobinProxy) -> (u8, TcpStream) {
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let name = timeout(SOON, stream.read_u8()).await.unwrap().unwrap();
    (name, stream)
}

async fn echo(stream: &mut TcpStream, value: u8) {
    stream.write_all(&[value]).await.unwrap();
    assert_eq!(
        timeout(SOON, stream.read_u8()).await.unwrap().unwrap(),
        value
    );
}

async fn refused() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn connections_alternate_and_skip_an_upstream_that_refuses() {
    let (a, b) = (upstream(b'a').await, upstream(b'b').await);
    let proxy = RoundRobinProxy::start(vec![a, b]).await.unwrap();
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(client(&proxy).await.0);
    }
    assert_eq!(names, b"abab");
    assert_eq!((proxy.given(a), proxy.given(b)), (2, 2));

    proxy.set_upstreams(vec![refused().await, b]);
    for _ in 0..4 {
        assert_eq!(client(&proxy).await.0, b'b');
    }

    // With nobody behind it, a connection ends at once instead of hanging.
    proxy.set_upstreams(vec![refused().await]);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(matches!(
        timeout(SOON, stream.read(&mut [0])).await.unwrap(),
        Ok(0) | Err(_)
    ));
}

#[tokio::test]
async fn a_large_transfer_arrives_whole_and_one_side_may_finish_first() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let (_, stream) = client(&proxy).await;
    let (mut from, mut to) = stream.into_split();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(SOON, from.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    assert!(got == expected);
}

#[tokio::test]
async fn a_cut_closes_what_is_open_and_nothing_later() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let (_, mut first) = client(&proxy).await;
    let (_, mut second) = client(&proxy).await;
    assert_eq!(proxy.connections(), 2);
    proxy.cut();
    for stream in [&mut first, &mut second] {
        assert!(matches!(
            timeout(SOON, stream.read(&mut [0])).await.unwrap(),
            Ok(0) | Err(_)
        ));
    }
    let (_, mut later) = client(&proxy).await;
    echo(&mut later, 7).await;
}

#[tokio::test]
async fn half_open_is_silent_in_both_directions_and_holds_back_what_was_sent() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let (_, mut stream) = client(&proxy).await;
    proxy.set_mode(ProxyMode::HalfOpen).await;
    stream.write_all(&[1]).await.unwrap();
    timeout(QUIET, stream.read_u8()).await.unwrap_err();
    proxy.set_mode(ProxyMode::Forward).await;
    assert_eq!(timeout(SOON, stream.read_u8()).await.unwrap().unwrap(), 1);

    // Frozen connections stay so while new ones work, until they are cut.
    proxy.freeze();
    stream.write_all(&[2]).await.unwrap();
    timeout(QUIET, stream.read_u8()).await.unwrap_err();
    let (_, mut fresh) = client(&proxy).await;
    echo(&mut fresh, 3).await;
    proxy.cut();
    assert!(matches!(
        timeout(SOON, stream.read(&mut [0])).await.unwrap(),
        Ok(0) | Err(_)
    ));
}

#[tokio::test]
async fn a_slow_line_has_its_rate() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let (_, mut stream) = client(&proxy).await;
    proxy
        .set_mode(ProxyMode::Slow {
            bytes_per_s: 10_000,
        })
        .await;
    let start = Instant::now();
    stream.write_all(&[9; 4_000]).await.unwrap();
    let mut got = [0; 4_000];
    timeout(SOON, stream.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert!(
        start.elapsed() > Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn refuse_refuses_and_listens_again_on_the_same_port() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let (_, mut open) = client(&proxy).await;
    for _ in 0..3 {
        proxy.set_mode(ProxyMode::Refuse).await;
        let error = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        echo(&mut open, 5).await;
        proxy.set_mode(ProxyMode::Forward).await;
        client(&proxy).await;
    }
}

#[tokio::test]
async fn dropping_the_proxy_closes_everything() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let addr = proxy.addr();
    let (_, mut stream) = client(&proxy).await;
    drop(proxy);
    assert!(matches!(
        timeout(SOON, stream.read(&mut [0])).await.unwrap(),
        Ok(0) | Err(_)
    ));
    let gone = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn mute_passes_questions_on_and_holds_answers_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = RoundRobinProxy::start(vec![listener.local_addr().unwrap()])
        .await
        .unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    proxy.set_mode(ProxyMode::Mute).await;
    stream.write_all(&[1]).await.unwrap();
    let heard = timeout(SOON, upstream.read_u8()).await.unwrap().unwrap();
    assert_eq!(heard, 1);
    upstream.write_all(&[2]).await.unwrap();
    timeout(QUIET, stream.read_u8()).await.unwrap_err();
    proxy.set_mode(ProxyMode::Forward).await;
    assert_eq!(timeout(SOON, stream.read_u8()).await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn late_and_sliced_lines_lose_nothing() {
    let proxy = RoundRobinProxy::start(vec![upstream(b'a').await])
        .await
        .unwrap();
    let (_, mut stream) = client(&proxy).await;
    for mode in [ProxyMode::Sliced { bytes: 3 }, ProxyMode::Late { ms: 50 }] {
        proxy.set_mode(mode).await;
        let start = Instant::now();
        stream.write_all(b"a text of some length").await.unwrap();
        let mut got = [0; 21];
        timeout(SOON, stream.read_exact(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&got, b"a text of some length");
        if mode != (ProxyMode::Sliced { bytes: 3 }) {
            assert!(start.elapsed() >= Duration::from_millis(100));
        }
    }
}
