//! A whole deployment for one test.

use std::path::PathBuf;

use client::{ConnectOptions, Connection};
use devstack::{NatsOptions, NatsServer, RoundRobinProxy};
use protocol::frame::Connected;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::process::Command;

use super::edge::EdgeProcess;
use super::http::{API_KEY, Http};
use super::observe::until;
use super::token::{SECRET, TokenSpec, sign};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct StackOptions {
    pub(crate) shards: u16,
    pub(crate) edges: usize,
    /// What the edges log.
    pub(crate) log_filter: String,
    /// More lines of `[edge.limits]`.
    pub(crate) limits: String,
    /// More sections, or lines of `[backplane]`, which comes last.
    pub(crate) config: String,
    /// Lines of `[store]`: a database's URL. Without it there is no store.
    pub(crate) store: Option<String>,
    pub(crate) nats: NatsOptions,
    /// Where the edges look for NATS, if that is not the server of the stack.
    pub(crate) nats_url: Option<String>,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            shards: 1,
            edges: 2,
            log_filter: "info,sqlx=warn,async_nats=error".to_owned(),
            limits: String::new(),
            config: String::new(),
            store: None,
            nats: NatsOptions::default(),
            nats_url: None,
        }
    }
}

/// nats-server, edges and a balancer; everything ends with it.
pub(crate) struct Stack {
    // In this order, so that edges end before what they need.
    pub(crate) proxy: RoundRobinProxy,
    pub(crate) edges: Vec<EdgeProcess>,
    pub(crate) nats: NatsServer,
    pub(crate) shards: u16,
    config: PathBuf,
    _folder: TempDir,
}

impl Stack {
    /// Two edges, ready.
    pub(crate) async fn start(shards: u16) -> Self {
        Self::start_with(StackOptions {
            shards,
            ..StackOptions::default()
        })
        .await
    }

    /// Starts everything and waits until the edges are ready.
    pub(crate) async fn start_with(options: StackOptions) -> Self {
        let options_have_store = options.store.is_some();
        let mut nats = options.nats.clone();
        nats.shards = options.shards;
        let nats = NatsServer::start(nats).await.expect("nats-server");
        let mut stack = Self::start_on(nats, options).await;
        for edge in &mut stack.edges {
            edge.ready().await;
        }
        if options_have_store {
            // Edges are ready without it, as most of what they do needs none.
            let http = stack.http();
            until("the schema is there", async || {
                http.get("/v1/users/nobody/rooms").await.status == 200
            })
            .await;
        }
        stack
    }

    /// Starts the edges on a nats-server that may be down, and waits for nothing.
    pub(crate) async fn start_on(nats: NatsServer, options: StackOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("rejoin-test-").tempdir();
        let folder = folder.expect("a temporary folder");
        let config = folder.path().join("edge.toml");
        let nats_url = options.nats_url.clone().unwrap_or_else(|| nats.url());
        std::fs::write(&config, configuration(&options, &nats_url)).expect("a file");
        let edges: Vec<EdgeProcess> = (1..=options.edges)
            .map(|number| EdgeProcess::start(folder.path(), &config, &format!("edge-{number}")))
            .collect();
        let upstreams = edges.iter().map(EdgeProcess::address).collect();
        let proxy = RoundRobinProxy::start(upstreams)
            .await
            .expect("a free port");
        Self {
            proxy,
            edges,
            nats,
            shards: options.shards,
            config,
            _folder: folder,
        }
    }

    /// What `rejoin check --archive` says.
    pub(crate) async fn check_archive(&self) -> String {
        self.run_check(&["--archive"]).await.1
    }

    /// The exit code of `rejoin check`, and what it says.
    pub(crate) async fn check(&self) -> (Option<i32>, String) {
        self.run_check(&[]).await
    }

    async fn run_check(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_rejoin-under-test"))
            .arg("check")
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .env("REJOIN_EDGE__NAME", "check")
            .kill_on_drop(true)
            .output()
            .await
            .expect("the program");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    }

    /// The balancer's WebSocket address.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/v1/connect", self.proxy.addr())
    }

    /// The API over the balancer.
    pub(crate) fn http(&self) -> Http {
        Http::new(self.proxy.addr())
    }

    /// Connects a user who may do everything in `channels` through the balancer.
    pub(crate) async fn connect(
        &self,
        user: &str,
        channels: &[&str],
        options: &ConnectOptions,
    ) -> (Connection, Connected) {
        let token = sign(&TokenSpec::new(user, channels));
        connect(&self.url(), &token, options).await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("REJOIN_TEST_LOGS").is_some() {
            for edge in &self.edges {
                eprintln!("--- {}:\n{}", edge.name, edge.log());
            }
        }
    }
}

/// Connects, and fails the test if that fails.
pub(crate) async fn connect(
    url: &str,
    token: &str,
    options: &ConnectOptions,
) -> (Connection, Connected) {
    match Connection::connect(url, token, options).await {
        Ok(connected) => connected,
        Err(error) => panic!("no connection: {error}"),
    }
}

fn configuration(options: &StackOptions, nats: &str) -> String {
    let digest = Sha256::digest(API_KEY.as_bytes());
    let api_key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let StackOptions {
        shards,
        log_filter,
        limits,
        config,
        ..
    } = options;
    let store = options.store.as_deref().unwrap_or_default();
    format!(
        r#"
[log]
format = "text"
filter = "{log_filter}"

[edge.drain]
unready_ms = 200
spread_ms = 500
deadline_ms = 3000

[edge.limits]
retry_min_ms = 200
{limits}

[[edge.auth.keys]]
alg = "HS256"
secret = "{SECRET}"

[[edge.auth.api_keys]]
name = "test"
sha256 = "{api_key}"
publish = ["*:*"]
read = ["*:*"]
admin = true

[store]
{store}

[backplane]
urls = ["{nats}"]
shards = {shards}
stream_max_bytes = 268435456
{config}
"#
    )
}
