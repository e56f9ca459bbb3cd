//! From the first socket to the exit code.

use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use backplane::{Backplane, ConnectError, ProvisionError};
use edge::http::error::ApiError;
use edge::listen::tls::Tls;
use edge::{Drain, Edge, Phase, listen};
use protocol::ErrorCode;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::compose::Composed;
use crate::config::Config;

/// Between two attempts to reach NATS at start.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// After the deadline, connections see [`Phase::Stopped`] and end by
/// themselves at once; this is for those that cannot.
const CUT_TIME: Duration = Duration::from_secs(1);

/// For the last batch of an archiver, and for giving its lease back.
const ORDER_TIME: Duration = Duration::from_secs(3);

/// The signals that ask the process to stop.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Begins to listen for them.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Connections that wait to be accepted. When ten thousand clients come at
/// once, those beyond it are dropped by the kernel and try again after 1, 3,
/// 7 and 15 s, and the usual 1,024 overflowed (`TcpExtListenOverflows`). The
/// kernel takes its own limit (`net.core.somaxconn`) where that is less.
const BACKLOG: u32 = 65_535;

/// Binds the configured address.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.edge.listen.address;
    // Wrong files show at once, too.
    tls(config)?;
    open(address).with_context(|| format!("edge.listen.address: cannot listen on {address}"))
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The certificate of the listener, where it has one of its own.
fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    let Some(files) = &config.edge.listen.tls else {
        return Ok(None);
    };
    Tls::new(files).map(Some).context("edge.listen.tls")
}

/// Connects and provisions, for as long as it takes. Errors that waiting does
/// not heal are returned.
pub async fn connect(config: &Config) -> anyhow::Result<Backplane> {
    loop {
        let reason = match connect_once(config).await {
            Ok(backplane) => return Ok(backplane),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Later(reason)) => reason,
        };
        tracing::warn!(reason, "waiting for NATS");
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

enum Attempt {
    Later(String),
    Final(anyhow::Error),
}

async fn connect_once(config: &Config) -> Result<Backplane, Attempt> {
    let backplane = match Backplane::connect(config.backplane.clone()).await {
        Ok(backplane) => backplane,
        Err(error) if error.is_retryable() => return Err(Attempt::Later(error.to_string())),
        Err(error) => return Err(Attempt::Final(ConnectError::into(error))),
    };
    match backplane.provision().await {
        Ok(provisioned) => {
            for stream in &provisioned.created {
                tracing::info!(stream, "stream created");
            }
            for warning in &provisioned.warnings {
                tracing::warn!(warning, "stream");
            }
            Ok(backplane)
        }
        Err(error @ ProvisionError::Unavailable { .. }) => Err(Attempt::Later(error.to_string())),
        Err(
            error @ (ProvisionError::ShardsMismatch { .. }
            | ProvisionError::Foreign { .. }
            | ProvisionError::Refused { .. }),
        ) => Err(Attempt::Final(error.into())),
    }
}

/// What is answered while there is no backplane yet: alive, not ready.
fn waiting_router() -> Router {
    const REASON: &str = "waiting for the first connection to NATS";
    let not_ready = || async {
        let body = json!({ "ready": false, "reasons": { "nats": REASON } });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body))
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(not_ready))
        .fallback(|| async { ApiError::new(ErrorCode::Unavailable, REASON) })
}

/// Serves until a signal or a dead part says otherwise, then leaves.
pub async fn run(
    config: &Config,
    listener: TcpListener,
    composed: Composed,
    mut stop: Stop,
) -> anyhow::Result<ExitCode> {
    let Composed {
        edge,
        mut critical,
        mut orderly,
    } = composed;
    let router = edge.router();
    let drain = edge.drain().clone();
    let tls = tls(config)?;
    let mut serving = tokio::spawn({
        let listen_config = config.edge.listen.clone();
        let edge = edge.clone();
        if let Some(tls) = tls.clone() {
            // Crash policy: without it certificates are not renewed.
            critical.spawn(async move {
                tls.watch().await;
                "watching the certificate"
            });
        }
        async move {
            let refused = |limit| edge.admission().note_refusal(limit);
            listen::serve_secured(&listener, router, &listen_config, drain, tls, refused).await;
        }
    });
    let verdict = tokio::select! {
        signal = stop.asked() => {
            tracing::info!(signal, "stopping");
            ExitCode::SUCCESS
        }
        dead = critical.join_next() => dead_part(dead),
        // Without a store there are none, which is not the end of one.
        Some(dead) = orderly.join_next() => dead_part(Some(dead)),
        ended = &mut serving => {
            tracing::error!(result = ?ended, "the listener ended");
            ExitCode::FAILURE
        }
    };
    leave(config, &edge, &mut stop).await;
    if let Some(fleet) = edge.fleet() {
        fleet.leave().await;
    }
    put_in_order(&mut orderly).await;
    critical.abort_all();
    tracing::info!("stopped");
    // Ended with the drain, or is about to.
    serving.abort();
    Ok(verdict)
}

pub(crate) fn dead_part(dead: Option<Result<&'static str, tokio::task::JoinError>>) -> ExitCode {
    match dead {
        Some(Ok(part)) => tracing::error!(part, "a part that never ends has ended"),
        Some(Err(error)) => tracing::error!(error = %error, "a part has crashed"),
        None => tracing::error!("there are no parts"),
    }
    ExitCode::FAILURE
}

/// Soft until the deadline, then hard. A second signal makes it hard at once.
async fn leave(config: &Config, edge: &Edge, stop: &mut Stop) {
    let drain = edge.drain();
    let soft = leave_softly(config, drain);
    let left = tokio::select! {
        left = soft => left,
        signal = stop.asked() => {
            tracing::warn!(signal, "asked again: cutting connections now");
            drain.open_connections()
        }
    };
    drain.advance(Phase::Stopped);
    let cut = drain.wait_empty(CUT_TIME).await;
    if left > 0 {
        tracing::warn!(
            connections.cut = left,
            connections.stuck = cut,
            "not every connection left in time"
        );
    }
}

/// Waits for the tasks that end by themselves, like an archiver that gives
/// its lease to another.
pub async fn put_in_order(orderly: &mut JoinSet<&'static str>) {
    let all = async { while orderly.join_next().await.is_some() {} };
    if tokio::time::timeout(ORDER_TIME, all).await.is_err() {
        tracing::warn!("not everything could be put in order; leases run out by themselves");
        orderly.abort_all();
    }
}

async fn leave_softly(config: &Config, drain: &Drain) -> usize {
    let times = &config.edge.drain;
    drain.advance(Phase::Unready);
    tracing::info!(
        connections = drain.open_connections(),
        unready_ms = times.unready_ms,
        "not ready"
    );
    tokio::time::sleep(times.unready()).await;
    drain.advance(Phase::Leaving);
    tracing::info!(
        connections = drain.open_connections(),
        spread_ms = times.spread_ms,
        deadline_ms = times.deadline_ms,
        "sending connections away"
    );
    drain.wait_empty(times.spread() + times.deadline()).await
}

/// Runs `work` while `/healthz` and `/readyz` are answered already: an
/// orchestrator must not restart an edge because NATS is away.
pub async fn meanwhile_waiting<T>(
    config: &Config,
    listener: &TcpListener,
    work: impl Future<Output = T>,
) -> T {
    let drain = Drain::new(Duration::ZERO);
    // Health answers without TLS would be answers that no probe understands;
    // wrong files have ended the process before.
    let waiting = listen::serve_secured(
        listener,
        waiting_router(),
        &config.edge.listen,
        drain.clone(),
        tls(config).ok().flatten(),
        |_| {},
    );
    let mut work = pin!(work);
    let result = tokio::select! {
        result = &mut work => result,
        () = waiting => work.await,
    };
    // Connections of the waiting time end with their request.
    drain.advance(Phase::Leaving);
    result
}
