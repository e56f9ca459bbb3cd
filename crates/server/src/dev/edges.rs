//! The edges of the demonstration: `rejoin serve`, as child processes, so
//! that killing one shows what it would show in production.

use std::collections::VecDeque;
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
    /// Which of them are still to be restarted in order, one after another.
    rolling: VecDeque<usize>,
}

/// Where an edge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgePhase {
    /// The process runs and is not ready yet.
    Starting,
    /// It was ready.
    Up,
    /// It was asked to drain.
    Leaving {
        /// When it was asked.
        since: Instant,
    },
    /// There is no process.
    Dead {
        /// Since when.
        since: Instant,
    },
}

/// One edge.
pub(super) struct EdgeProcess {
    pub(super) name: String,
    port: PortLease,
    spec: ProcessSpec,
    process: Process,
    started: Instant,
    short_lives: u32,
    pub(super) phase: EdgePhase,
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
            rolling: VecDeque::new(),
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

    /// One look at every edge: starts dead ones again after a pause, and
    /// takes the next step of a rolling restart.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        for edge in &mut self.edges {
            edge.look().await?;
        }
        // The next one leaves only when all others are there to take over.
        let all_up = self.edges.iter().all(|edge| edge.phase == EdgePhase::Up);
        if all_up && let Some(next) = self.rolling.pop_front() {
            self.edges[next].leave();
        }
        Ok(())
    }

    /// SIGKILL to the edge of this name; whether there is one.
    pub(super) fn kill(&mut self, name: &str) -> bool {
        let Some(edge) = self.edges.iter_mut().find(|edge| edge.name == name) else {
            return false;
        };
        edge.kill();
        true
    }

    /// Begins to restart all, one after another, as a deploy would.
    pub(super) fn roll(&mut self) {
        self.rolling = (0..self.edges.len()).collect();
    }

    /// Whether a rolling restart is under way.
    pub(super) fn is_rolling(&self) -> bool {
        let leaving = |edge: &EdgeProcess| matches!(edge.phase, EdgePhase::Leaving { .. });
        !self.rolling.is_empty() || self.edges.iter().any(leaving)
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
            phase: EdgePhase::Starting,
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
        self.phase = EdgePhase::Up;
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let ended = self.process.exited();
        match (self.phase, ended) {
            (EdgePhase::Dead { since }, _) if since.elapsed() >= RESTART_PAUSE => {
                self.start_again()
            }
            (EdgePhase::Dead { .. }, _) => Ok(()),
            (EdgePhase::Leaving { .. }, Some(_)) => {
                say(&format!("{} has drained", self.name));
                self.start_again()
            }
            (EdgePhase::Leaving { since }, None) if since.elapsed() > STOP_TIME => {
                say(&format!("{} did not stop in time; killing it", self.name));
                self.process.kill();
                Ok(())
            }
            (EdgePhase::Starting | EdgePhase::Up, Some(status)) => {
                self.short_lives = match self.started.elapsed() < SHORT_LIFE {
                    true => self.short_lives + 1,
                    false => 0,
                };
                self.died(&status.to_string());
                match self.short_lives >= SHORT_LIVES_MAX {
                    true => bail!(
                        "{} does not stay up; its log:\n{}",
                        self.name,
                        self.spec.log_tail(LOG_LINES)
                    ),
                    false => Ok(()),
                }
            }
            (EdgePhase::Starting, None) if is_ready(self.address()).await => {
                self.phase = EdgePhase::Up;
                Ok(())
            }
            (EdgePhase::Starting | EdgePhase::Up | EdgePhase::Leaving { .. }, None) => Ok(()),
        }
    }

    fn died(&mut self, how: &str) {
        let (name, pause_s) = (&self.name, RESTART_PAUSE.as_secs());
        say(&format!(
            "{name} has ended ({how}); its clients go to the others. It is started again in \
             {pause_s} s"
        ));
        self.phase = EdgePhase::Dead {
            since: Instant::now(),
        };
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = Process::spawn(&self.spec)?;
        self.started = Instant::now();
        self.phase = EdgePhase::Starting;
        say(&format!("{} runs again, pid {}", self.name, self.pid()));
        Ok(())
    }

    /// Asks it to drain and end.
    fn leave(&mut self) {
        // It fails only for a process that is gone, which is seen next.
        let _ = self.process.signal(Signal::Terminate);
        self.phase = EdgePhase::Leaving {
            since: Instant::now(),
        };
    }

    /// SIGKILL, because somebody wanted to see what happens: not counted as a
    /// life that was too short.
    fn kill(&mut self) {
        if !matches!(self.phase, EdgePhase::Dead { .. }) {
            self.process.kill();
            self.died("killed on request");
        }
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
