//! Accepting connections and speaking HTTP/1 on them.
//!
//! `axum::serve` has neither a header timeout nor a bound on connections, so
//! hyper is driven here: with a timer (without one its header timeout does
//! nothing), bounded headers, and a place in the connection limit that a
//! socket keeps when it is upgraded.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use crate::admission::address::{AddressPlace, Addresses, network};
use crate::admission::{Limit, Peer};
use crate::config::ListenConfig;
use crate::drain::{Drain, Phase};

pub mod tls;

/// Most header lines of a request; browsers send some twenty.
const HEADERS_MAX: usize = 64;

/// Pause after a failed `accept`, which is nearly always a lack of file
/// descriptors: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection beyond the limit is told. Its load balancer or client
/// tries another edge.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
Connection: close\r\nContent-Type: application/json\r\n\r\n\
{\"error\":{\"code\":\"unavailable\",\"message\":\"too many connections\",\
\"retryable\":true,\"retry_after_ms\":1000}}\n";

/// A client's socket, with its place in the connection limit and in the
/// drain's count. An upgrade hands out this same type again
/// (`hyper::upgrade::Upgraded::downcast::<TokioIo<Socket>>`).
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    place: Place,
    stall_timeout: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// A socket's place in the connection limit and in the drain's count, given
/// back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _address: Option<AddressPlace>,
    _open: TaskTrackerToken,
}

impl Socket {
    /// The stream and the place, which is to be kept for as long.
    pub fn into_parts(self) -> (TcpStream, Place) {
        (self.stream, self.place)
    }

    /// Lets a write wait for its peer, but not for ever: whoever writes may
    /// be a body that is not asked for anything meanwhile.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.stall_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Serves until the drain reaches [`Phase::Leaving`], then no longer
/// accepts. Connections go on by themselves until they end, or until
/// [`Phase::Stopped`]; [`Drain::wait_empty`] tells when the last is gone.
pub async fn serve(listener: &TcpListener, router: Router, config: &ListenConfig, drain: Drain) {
    serve_secured(listener, router, config, drain, None, |_| {}).await;
}

/// [`serve`], with TLS where there is a certificate; `on_refused` hears of
/// each socket that a limit refused.
pub async fn serve_secured(
    listener: &TcpListener,
    router: Router,
    config: &ListenConfig,
    drain: Drain,
    tls: Option<tls::Tls>,
    on_refused: impl Fn(Limit),
) {
    let addresses = Addresses::default();
    let places = Arc::new(Semaphore::new(
        config.connections.min(Semaphore::MAX_PERMITS),
    ));
    let protocol = protocol(config);
    let mut leaving = pin!(drain.reached(Phase::Leaving));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut leaving => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(error = %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
            on_refused(Limit::Sockets);
            refuse(stream);
            continue;
        };
        let address = match address_place(&addresses, config, peer) {
            Ok(address) => address,
            Err(TooManyOfAddress) => {
                on_refused(Limit::SocketsPerIp);
                refuse(stream);
                continue;
            }
        };
        // Nagle's algorithm holds small frames back by up to 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "TCP_NODELAY could not be set");
        }
        let socket = Socket {
            stream,
            place: Place {
                _permit: permit,
                _address: address,
                _open: drain.track(),
            },
            stall_timeout: config.stall_timeout(),
            stalled: None,
        };
        // Tracked through the socket's place. Crash policy: a panic in a
        // handler is answered with 500 by the router; anything else ends
        // this one connection.
        let serving = Serving {
            protocol: protocol.clone(),
            peer,
            router: router.clone(),
            drain: drain.clone(),
        };
        match &tls {
            None => drop(tokio::spawn(serving.connection(socket))),
            Some(tls) => {
                let accept = tls.accept(socket, config.header_timeout());
                drop(tokio::spawn(async move {
                    if let Some(socket) = accept.await {
                        serving.connection(socket).await;
                    }
                }));
            }
        }
    }
}

fn protocol(config: &ListenConfig) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout())
        .max_buf_size(config.header_bytes)
        .max_headers(HEADERS_MAX);
    protocol
}

/// The address has as many connections as it may have.
struct TooManyOfAddress;

/// A place among the connections of the peer's address, where they are
/// counted.
fn address_place(
    addresses: &Addresses,
    config: &ListenConfig,
    peer: SocketAddr,
) -> Result<Option<AddressPlace>, TooManyOfAddress> {
    let ip = peer.ip().to_canonical();
    let trusted = config.trusted_proxies.iter().any(|net| net.contains(&ip));
    if config.sockets_per_ip == 0 || trusted {
        return Ok(None);
    }
    let place = addresses.take(network(ip), config.sockets_per_ip);
    place.map(Some).ok_or(TooManyOfAddress)
}

/// What one connection is served with.
struct Serving {
    protocol: http1::Builder,
    peer: SocketAddr,
    router: Router,
    drain: Drain,
}

impl Serving {
    async fn connection<I>(self, socket: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            protocol,
            peer,
            router,
            drain,
        } = self;
        let service = router.map_request(move |mut request: hyper::Request<_>| {
            request.extensions_mut().insert(Peer(peer));
            request
        });
        let mut connection = pin!(
            protocol
                .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
                .with_upgrades()
        );
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = drain.reached(Phase::Leaving) => {
                // Idle: ends now. In a request: ends with its answer.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = &mut connection => ended,
                    () = drain.reached(Phase::Stopped) => return,
                }
            }
        };
        if let Err(error) = ended {
            // Clients that hang up, stall or speak something else: their
            // business, but of use when one is being debugged.
            tracing::debug!(peer = %peer, error = %error, "connection ended");
        }
    }
}

/// Says why, as far as the socket's buffer takes it, and closes.
fn refuse(stream: TcpStream) {
    // A fresh socket's buffer is empty; whatever happens, it is closed.
    let _ = stream.try_write(TOO_MANY);
}

/// Errors of `accept` that concern the connection and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
