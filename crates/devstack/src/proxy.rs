//! A TCP balancer without affinity, which can also misbehave on request.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::port::PortLease;

/// Connections at a time; more wait in the listener's queue. Beyond what one address pair can carry.
const MAX_CONNECTIONS: usize = 65_536;
/// One read. The buffer lives from read to write, so an idle connection holds none.
const CHUNK_BYTES: usize = 16 * 1024;
/// A live upstream on loopback answers at once; one that hangs is skipped after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Writes per second in [`ProxyMode::Slow`]: smooth enough to look like a slow line.
const SLOW_STEPS_PER_S: u32 = 20;

/// Between two pieces in [`ProxyMode::Sliced`].
const SLICE_PAUSE: Duration = Duration::from_micros(200);

/// How the proxy treats bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Forwards.
    Forward,
    /// Keeps every connection open and forwards nothing, not even that one side closed. New connections are accepted
    /// and hang as well. Ends with the mode: what was held back then flows.
    HalfOpen,
    /// Forwards this many bytes per second in each direction of each connection.
    Slow {
        /// At least 1.
        bytes_per_s: u32,
    },
    /// Does not listen, so that new connections are refused. Open ones go on.
    Refuse,
    /// Forwards after a while, in each direction.
    Late {
        /// How much later, in milliseconds.
        ms: u32,
    },
    /// Forwards in pieces of this many bytes, so that whoever reads sees every frame cut anywhere.
    Sliced {
        /// At least 1.
        bytes: u32,
    },
    /// Forwards what clients send and holds the answers back, until the mode ends or the connection is cut: what was asked
    /// for is done, and nobody hears of it.
    Mute,
}

#[derive(Debug, Clone, Copy)]
struct Switches {
    mode: ProxyMode,
    /// Connections with a lower number are closed.
    cut_below: u64,
    /// Connections with a lower number are half-open until they are cut.
    frozen_below: u64,
}

#[derive(Debug)]
struct Shared {
    upstreams: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// The next connection's number, and how many connections each upstream was given.
    next: Mutex<u64>,
    given: Mutex<HashMap<SocketAddr, u64>>,
    open: AtomicUsize,
}

/// A running proxy on 127.0.0.1: each connection goes to the next upstream in turn, and upstreams that refuse are
/// skipped. Dropping it closes everything.
#[derive(Debug)]
pub struct RoundRobinProxy {
    port: PortLease,
    shared: Arc<Shared>,
    switches: watch::Sender<Switches>,
    listening: watch::Receiver<bool>,
    acceptor: JoinHandle<()>,
}

impl RoundRobinProxy {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(upstreams: Vec<SocketAddr>) -> io::Result<Self> {
        Self::start_on(PortLease::take()?, upstreams).await
    }

    /// Listens on a port that the caller chose; see [`PortLease::at`].
    ///
    /// # Errors
    /// When somebody took the port meanwhile.
    pub async fn start_on(port: PortLease, upstreams: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = listen(port.port()).await?;
        let shared = Arc::new(Shared {
            upstreams: Mutex::new(upstreams),
            turn: AtomicUsize::new(0),
            next: Mutex::new(0),
            given: Mutex::new(HashMap::new()),
            open: AtomicUsize::new(0),
        });
        let (switches, seen) = watch::channel(Switches {
            mode: ProxyMode::Forward,
            cut_below: 0,
            frozen_below: 0,
        });
        let (say_listening, listening) = watch::channel(true);
        let acceptor = tokio::spawn(accept(
            listener,
            port.port(),
            shared.clone(),
            seen,
            say_listening,
        ));
        Ok(Self {
            port,
            shared,
            switches,
            listening,
            acceptor,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Replaces the upstreams for connections from now on.
    pub fn set_upstreams(&self, upstreams: Vec<SocketAddr>) {
        *self.shared.upstreams.lock() = upstreams;
    }

    /// Changes how it behaves; in effect when this returns.
    pub async fn set_mode(&self, mode: ProxyMode) {
        self.switches.send_modify(|switches| switches.mode = mode);
        let wanted = mode != ProxyMode::Refuse;
        // It fails only when the acceptor has ended, which happens only when the port could not be had again.
        let mut listening = self.listening.clone();
        let _ended = listening.wait_for(|listening| *listening == wanted).await;
    }

    /// Closes every connection that is open now, on both sides; new ones are welcome.
    pub fn cut(&self) {
        let next = *self.shared.next.lock();
        self.switches
            .send_modify(|switches| switches.cut_below = next);
    }

    /// Makes every connection that is open now half-open until it is [`Self::cut`]; new ones work.
    pub fn freeze(&self) {
        let next = *self.shared.next.lock();
        self.switches
            .send_modify(|switches| switches.frozen_below = next);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many connections an upstream was given so far.
    #[must_use]
    pub fn given(&self, upstream: SocketAddr) -> u64 {
        self.shared
            .given
            .lock()
            .get(&upstream)
            .copied()
            .unwrap_or(0)
    }
}

impl Drop for RoundRobinProxy {
    fn drop(&mut self) {
        // The connections' tasks end when `switches` goes.
        self.acceptor.abort();
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

async fn accept(
    listener: TcpListener,
    port: u16,
    shared: Arc<Shared>,
    mut switches: watch::Receiver<Switches>,
    say_listening: watch::Sender<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut listener = Some(listener);
    loop {
        let refuse = switches.borrow_and_update().mode == ProxyMode::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            // The port is leased, but a stranger may have taken it; then wait for it.
            listener = listen(port).await.ok();
        }
        say_listening.send_replace(listener.is_some());
        let Some(socket) = &listener else {
            if refuse {
                if switches.changed().await.is_err() {
                    return;
                }
            } else {
                sleep(Duration::from_millis(50)).await;
            }
            continue;
        };
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let client = tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => {
                    // Out of file descriptors, or the client left already.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            changed = switches.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let number = {
            let mut next = shared.next.lock();
            *next += 1;
            *next - 1
        };
        let (shared, switches) = (shared.clone(), switches.clone());
        tokio::spawn(async move {
            let _permit = permit;
            shared.open.fetch_add(1, Ordering::Relaxed);
            serve(client, number, &shared, switches).await;
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(
    client: TcpStream,
    number: u64,
    shared: &Shared,
    switches: watch::Receiver<Switches>,
) {
    let work = async {
        let Some(upstream) = connect(shared).await else {
            return;
        };
        // Small frames must not wait for each other.
        let _best_effort = (client.set_nodelay(true), upstream.set_nodelay(true));
        let (client_in, client_out) = client.into_split();
        let (upstream_in, upstream_out) = upstream.into_split();
        // A clean end of one direction leaves the other; a broken one ends both.
        let _ended = tokio::try_join!(
            forward(
                client_in,
                upstream_out,
                Side::Client,
                number,
                switches.clone()
            ),
            forward(
                upstream_in,
                client_out,
                Side::Upstream,
                number,
                switches.clone()
            ),
        );
    };
    tokio::select! {
        () = work => {}
        () = cut(number, switches.clone()) => {}
    }
}

/// Returns when this connection is to be closed.
async fn cut(number: u64, mut switches: watch::Receiver<Switches>) {
    // An error means that the proxy is gone: also a reason.
    let _gone = switches
        .wait_for(|switches| number < switches.cut_below)
        .await;
}

/// The next upstream in turn that takes a connection.
async fn connect(shared: &Shared) -> Option<TcpStream> {
    let upstreams = shared.upstreams.lock().clone();
    let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
    for offset in 0..upstreams.len() {
        let upstream = upstreams[turn.wrapping_add(offset) % upstreams.len()];
        if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(upstream)).await {
            *shared.given.lock().entry(upstream).or_default() += 1;
            return Some(stream);
        }
    }
    None
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

async fn forward(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    side: Side,
    number: u64,
    mut switches: watch::Receiver<Switches>,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let may_pass = |switches: &Switches| {
            let held_back = match switches.mode {
                ProxyMode::HalfOpen => true,
                ProxyMode::Mute => side == Side::Upstream,
                ProxyMode::Forward
                | ProxyMode::Slow { .. }
                | ProxyMode::Refuse
                | ProxyMode::Late { .. }
                | ProxyMode::Sliced { .. } => false,
            };
            number >= switches.frozen_below && !held_back
        };
        let mode = match switches.wait_for(may_pass).await {
            Ok(switches) => switches.mode,
            Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let limit = match mode {
            ProxyMode::Slow { bytes_per_s } => (bytes_per_s / SLOW_STEPS_PER_S).max(1) as usize,
            ProxyMode::Sliced { bytes } => bytes.max(1) as usize,
            ProxyMode::Forward
            | ProxyMode::HalfOpen
            | ProxyMode::Refuse
            | ProxyMode::Late { .. }
            | ProxyMode::Mute => CHUNK_BYTES,
        };
        let mut chunk = vec![0; limit.min(CHUNK_BYTES)];
        let length = match from.try_read(&mut chunk) {
            Ok(0) => return to.shutdown().await,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        if let ProxyMode::Late { ms } = mode {
            sleep(Duration::from_millis(ms.into())).await;
        }
        to.write_all(&chunk[..length]).await?;
        if let ProxyMode::Sliced { .. } = mode {
            // Without a pause the system joins the pieces again.
            sleep(SLICE_PAUSE).await;
        }
        if let ProxyMode::Slow { bytes_per_s } = mode {
            sleep(Duration::from_secs_f64(
                length as f64 / f64::from(bytes_per_s.max(1)),
            ))
            .await;
        }
    }
}
