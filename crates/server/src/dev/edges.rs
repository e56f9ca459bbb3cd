//! The edges of the demonstration: `rejoin serve`, as child processes, so
//! that killing one shows what it would show in production.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use devstack::{PortLease, Process, ProcessSpec, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::say;
use super::secrets::write_private;

/// Until an edge is ready; on a busy machine filling windows takes a moment.
const READY_TIME: Duration = Duration::from_secs(30);

/// Between an edge's death and its restart: long enough to see clients move
/// to the others.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

/// An edge that lives shorter than this did not work.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// So many short lives in a row are not bad luck.
const SHORT_LIVES_MAX: u32 = 5;

/// Above the drain's times in the edges' configuration.
const STOP_TIME: Duration = Duration::from_secs(6);

/// Log lines that are shown of an edge that did not start.
const LOG_LINES: usize = 20;

/// The edges.
pub(super) struct Edges {
    edges: Vec<EdgeProcess>,
}

/// One edge.
pub(super) struct EdgeProcess {
    pub(super) name: String,
    port: PortLease,
    spec: ProcessSpec,
    process: Process,
    started: Instant,
    short_lives: u32,
    /// When it ended, until it is started again.
    dead_since: Option<Instant>,
}

impl Edges {
    /// Starts `count` edges with the same configuration, names and addresses
    /// apart.
    pub(super) fn start(folder: &Path, config: &str, count: u8) -> anyhow::Result<Self> {
        let config_path = folder.join("edge.toml");
        write_private(&config_path, config.as_bytes())?;
        let program = std::env::current_exe().context("where this program is")?;
        let edges = (1..=count).map(|number| {
            EdgeProcess::start(&program, folder, &config_path, format!("edge-{number}"))
        });
        Ok(Self {
            edges: edges.collect::<anyhow::Result<_>>()?,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &EdgeProcess> {
        self.edges.iter()
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(EdgeProcess::address).collect()
    }

    /// Waits until each edge is ready for connections.
    pub(super) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        for edge in &mut self.edges {
            edge.wait_ready().await?;
        }
        Ok(())
    }

    /// Starts dead edges again after a pause.
    pub(super) async fn restart_dead(&mut self) -> anyhow::Result<()> {
        for edge in &mut self.edges {
            edge.restart_if_dead()?;
        }
        Ok(())
    }

    /// Lets all drain at the same time.
    pub(super) async fn stop(&mut self) {
        for edge in &mut self.edges {
            // It fails only for a process that is gone.
            let _ = edge.process.signal(Signal::Terminate);
        }
        for edge in &mut self.edges {
            if edge.process.wait(STOP_TIME).await.is_none() {
                say(&format!("{} did not stop in time; killing it", edge.name));
                edge.process.kill();
            }
        }
    }
}

impl EdgeProcess {
    fn start(
        program: &Path,
        folder: &Path,
        config: &PathBuf,
        name: String,
    ) -> anyhow::Result<Self> {
        let port = PortLease::take()?;
        let spec = ProcessSpec::new(program, folder.join(format!("{name}.log")))
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env("REJOIN_EDGE__NAME", &name)
            .env("REJOIN_EDGE__LISTEN__ADDRESS", port.addr().to_string())
            .orphan_signal(Signal::Terminate);
        let process = Process::spawn(&spec)?;
        Ok(Self {
            name,
            port,
            spec,
            process,
            started: Instant::now(),
            short_lives: 0,
            dead_since: None,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.port.addr()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        const POLL: Duration = Duration::from_millis(20);
        let end = Instant::now() + READY_TIME;
        while !is_ready(self.address()).await {
            let log = || self.spec.log_tail(LOG_LINES);
            if Instant::now() > end {
                bail!("{} was not ready in time; its log:\n{}", self.name, log());
            }
            if let Some(status) = self.process.exited() {
                bail!("{} ended with {status}; its log:\n{}", self.name, log());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn restart_if_dead(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.exited() else {
            return Ok(());
        };
        let Some(dead_since) = self.dead_since else {
            say(&format!(
                "{} has ended ({status}); its clients go to the others. It is started again in \
                 {} s",
                self.name,
                RESTART_PAUSE.as_secs()
            ));
            self.dead_since = Some(Instant::now());
            self.short_lives = match self.started.elapsed() < SHORT_LIFE {
                true => self.short_lives + 1,
                false => 0,
            };
            return Ok(());
        };
        if self.short_lives >= SHORT_LIVES_MAX {
            let log = self.spec.log_tail(LOG_LINES);
            bail!("{} does not stay up; its log:\n{log}", self.name);
        }
        if dead_since.elapsed() >= RESTART_PAUSE {
            self.process = Process::spawn(&self.spec)?;
            self.started = Instant::now();
            self.dead_since = None;
            say(&format!("{} runs again, pid {}", self.name, self.pid()));
        }
        Ok(())
    }
}

/// Asks `/readyz` once.
async fn is_ready(address: SocketAddr) -> bool {
    const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 ";
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(REQUEST).await?;
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer == ANSWER)
    };
    let answered = tokio::time::timeout(Duration::from_secs(1), ask).await;
    matches!(answered, Ok(Ok(true)))
}
