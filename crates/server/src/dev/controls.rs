//! Where the demonstration's page asks `rejoin dev` to break things.
//!
//! It listens on loopback, takes a random token that only the edges' page
//! knows, and answers pages of this machine only: no other page in the
//! visitor's browser can kill anything. `rejoin serve` has none of this.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use edge::origin::{OriginConfig, OriginPolicy};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::secrets::random_text;

/// Commands that wait: a person cannot be that fast, a script is told to
/// come back.
const COMMANDS_MAX: usize = 16;

/// What the page can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// SIGKILL to the edge of this name.
    KillEdge(String),
    /// Restart all edges, one after another.
    Roll,
    /// SIGKILL to nats-server, and start it again.
    RestartNats,
    /// Stop Postgres until it is to be started.
    StopPostgres,
    /// Start it again.
    StartPostgres,
}

/// What the page sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct FleetView {
    pub(super) edges: Vec<EdgeView>,
    pub(super) rolling: bool,
    pub(super) nats: PartView,
    /// Left out without Postgres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) postgres: Option<PartView>,
}

/// One edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct EdgeView {
    pub(super) name: String,
    pub(super) state: PartView,
}

/// How a part is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PartView {
    #[default]
    Starting,
    Up,
    Draining,
    Down,
}

/// The endpoint. Dropping it closes it.
pub(super) struct Controls {
    address: SocketAddr,
    token: Arc<str>,
    commands: mpsc::Receiver<Command>,
    fleet: watch::Sender<FleetView>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    token: Arc<str>,
    commands: mpsc::Sender<Command>,
    fleet: watch::Receiver<FleetView>,
    origins: OriginPolicy,
}

impl Controls {
    /// Listens on a free port of 127.0.0.1.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no port for the page's controls")?;
        let address = listener.local_addr()?;
        let token: Arc<str> = random_text(32).into();
        let (orders, commands) = mpsc::channel(COMMANDS_MAX);
        let (fleet, seen) = watch::channel(FleetView::default());
        let shared = Shared {
            token: Arc::clone(&token),
            commands: orders,
            fleet: seen,
            origins: OriginPolicy::new(&OriginConfig::default(), true),
        };
        let router = router(shared);
        // Crash policy: should it end, the page says that the controls do not
        // answer; everything else goes on.
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            token,
            commands,
            fleet,
            server,
        })
    }

    /// The part of the edges' configuration that tells the page where this
    /// is.
    pub(super) fn edge_config(&self, api_key: &str) -> String {
        let Self { address, token, .. } = self;
        format!(
            "\n[edge.dev_controls]\nurl = \"http://{address}\"\ntoken = \"{token}\"\n\
             api_key = \"{api_key}\"\n"
        )
    }

    /// The next command; waits for ever when the endpoint is gone.
    pub(super) async fn next(&mut self) -> Command {
        match self.commands.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    /// What the page sees from now on.
    pub(super) fn show(&self, fleet: FleetView) {
        self.fleet.send_if_modified(|shown| {
            let changed = *shown != fleet;
            *shown = fleet;
            changed
        });
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/fleet", get(fleet))
        .route("/edges/{name}/kill", post(kill))
        .route("/edges/roll", post(roll))
        .route("/nats/restart", post(restart_nats))
        .route("/postgres/stop", post(stop_postgres))
        .route("/postgres/start", post(start_postgres))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Origin, preflight and token, in this order.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if !shared.origins.allows(request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    // A browser asks first, without the token, because there will be one.
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else if has_token(request.headers(), &shared.token) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        let any = HeaderValue::from_static("GET, POST");
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, any);
        let authorization = HeaderValue::from_static("authorization");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, authorization);
    }
    response
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION);
    given.is_some_and(|value| value.as_bytes() == format!("Bearer {token}").as_bytes())
}

async fn fleet(State(shared): State<Shared>) -> Json<FleetView> {
    Json(shared.fleet.borrow().clone())
}

async fn kill(State(shared): State<Shared>, Path(name): Path<String>) -> StatusCode {
    shared.order(Command::KillEdge(name))
}

async fn roll(State(shared): State<Shared>) -> StatusCode {
    shared.order(Command::Roll)
}

async fn restart_nats(State(shared): State<Shared>) -> StatusCode {
    shared.order(Command::RestartNats)
}

async fn stop_postgres(State(shared): State<Shared>) -> StatusCode {
    shared.order(Command::StopPostgres)
}

async fn start_postgres(State(shared): State<Shared>) -> StatusCode {
    shared.order(Command::StartPostgres)
}

impl Shared {
    fn order(&self, command: Command) -> StatusCode {
        match self.commands.try_send(command) {
            Ok(()) => StatusCode::ACCEPTED,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// The status line and headers of the answer.
    async fn ask(controls: &Controls, request: &str) -> String {
        let mut stream = TcpStream::connect(controls.address).await.unwrap();
        let request = format!("{request}\r\nHost: controls\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn nothing_is_done_without_the_token_or_for_a_strange_page() {
        let mut controls = Controls::start().await.unwrap();
        let token = controls.token.to_string();
        let ours = "Origin: http://127.0.0.1:8080";
        for (head, status) in [
            ("POST /edges/roll HTTP/1.1".to_owned(), "401"),
            (
                "POST /edges/roll HTTP/1.1\r\nAuthorization: Bearer guess".to_owned(),
                "401",
            ),
            (
                format!(
                    "POST /edges/roll HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\
                     Origin: https://evil.net"
                ),
                "403",
            ),
            (format!("OPTIONS /edges/roll HTTP/1.1\r\n{ours}"), "204"),
        ] {
            let answer = ask(&controls, &head).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{head}: {answer}"
            );
        }
        assert!(controls.commands.try_recv().is_err());

        let head =
            format!("POST /edges/edge-1/kill HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{ours}");
        let answer = ask(&controls, &head).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert!(
            answer.contains("access-control-allow-origin: http://127.0.0.1:8080"),
            "{answer}"
        );
        let command = controls.next().await;
        assert_eq!(command, Command::KillEdge("edge-1".to_owned()));
    }
}
