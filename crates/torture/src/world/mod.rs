//! Everything that a deployment has, as child processes, with a line that can fail between any two of them.

mod backbone;
mod clock;
mod config;
mod disk;
mod program;
mod truth;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use devstack::{PortLease, Postgres, PostgresOptions, ProxyMode, RoundRobinProxy};
use tempfile::TempDir;

pub(crate) use backbone::{Backbone, DiskKind, Kind};
pub(crate) use clock::faketime;
pub(crate) use config::{API_KEY, READ_ONLY_KEY, token};
pub(crate) use disk::{Disk, may_mount};
pub(crate) use program::Program;
pub(crate) use wire::Wire;

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) edges: usize,
    pub(crate) archivers: usize,
    pub(crate) backbone: backbone::Kind,
    /// Lines of `[backplane]`.
    pub(crate) backplane: String,
    /// Lines of `[store.archive]`.
    pub(crate) archive: String,
    /// A library that fakes the clocks of edges, where it is known.
    pub(crate) clock: Option<PathBuf>,
    /// A small disk for Postgres, where one can be mounted.
    pub(crate) postgres_disk_mb: Option<u32>,
}

/// One edge, and its own lines to NATS and Postgres.
pub(crate) struct Edge {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    /// Its own, where it can be faked.
    pub(crate) clock: Option<clock::Clock>,
    /// Empty with a cluster: clients of a cluster learn of its other servers, beside any line.
    pub(crate) nats_line: Option<RoundRobinProxy>,
    pub(crate) store_line: RoundRobinProxy,
}

/// A deployment. In this order, so that what needs others ends first.
pub(crate) struct World {
    /// Between clients and edges.
    pub(crate) balancer: RoundRobinProxy,
    pub(crate) edges: Vec<Edge>,
    pub(crate) archivers: Vec<Program>,
    pub(crate) backbone: Backbone,
    pub(crate) postgres: Postgres,
    pub(crate) postgres_disk: Option<Disk>,
    config: PathBuf,
    rejoin: PathBuf,
    _folder: TempDir,
}

impl World {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(plan: &Plan, rejoin: PathBuf) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rejoin-torture-")
            .tempdir()?;
        let postgres_disk = match plan.postgres_disk_mb {
            Some(mb) => Some(Disk::memory(&folder.path().join("postgres"), mb)?),
            None => None,
        };
        let options = PostgresOptions {
            data_dir: postgres_disk.as_ref().map(|it| it.path().join("pg")),
            ..PostgresOptions::default()
        };
        if postgres_disk.is_some() {
            // Postgres runs under another account where we are root.
            config::open_to_all(folder.path())?;
        }
        let postgres = Postgres::start(options).await?;
        let backbone = Backbone::start(&plan.backbone, folder.path()).await?;
        let config = folder.path().join("rejoin.toml");
        let text = config::text(plan, &backbone.urls(), &postgres.url());
        std::fs::write(&config, text)?;
        let mut world = Self {
            balancer: RoundRobinProxy::start(Vec::new()).await?,
            edges: Vec::new(),
            archivers: Vec::new(),
            backbone,
            postgres,
            postgres_disk,
            config,
            rejoin,
            _folder: folder,
        };
        world.start_programs(plan).await?;
        for disk in &world.backbone.disks {
            // The configuration is there after a cut; what comes later is up to the server.
            disk.sync()?;
        }
        Ok(world)
    }

    async fn start_programs(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for number in 1..=plan.edges {
            let clock = plan.clock.as_deref();
            let edge = self.edge(&format!("edge-{number}"), clock).await?;
            self.edges.push(edge);
        }
        for number in 1..=plan.archivers {
            let name = format!("archiver-{number}");
            let spec = program::spec(&self.rejoin, &self.config, "archive", &name);
            self.archivers.push(Program::start(&name, None, spec)?);
        }
        let addresses = self.edges.iter().map(|it| it.address).collect();
        self.balancer.set_upstreams(addresses);
        self.ready(Duration::from_secs(60)).await
    }

    async fn edge(&self, name: &str, clock: Option<&Path>) -> anyhow::Result<Edge> {
        let port = PortLease::take()?;
        let address = port.addr();
        let store_line = RoundRobinProxy::start(vec![local(self.postgres.port())]).await?;
        let store = self.postgres.url().replace(
            &format!(":{}/", self.postgres.port()),
            &format!(":{}/", store_line.addr().port()),
        );
        let mut spec = program::spec(&self.rejoin, &self.config, "serve", name)
            .env("REJOIN_EDGE__LISTEN__ADDRESS", address.to_string())
            .env("REJOIN_STORE__ARCHIVE__ENABLED", "false")
            .env("REJOIN_STORE__URL", store);
        let nats_line = match self.backbone.single() {
            Some(server) => Some(RoundRobinProxy::start(vec![local(server.port())]).await?),
            None => None,
        };
        if let Some(line) = &nats_line {
            let url = format!("[\"nats://{}\"]", line.addr());
            spec = spec.env("REJOIN_BACKPLANE__URLS", url);
        }
        let clock = match clock {
            Some(library) => {
                let clock = clock::Clock::new(&self.config, name)?;
                spec = clock.faked(library, spec);
                Some(clock)
            }
            None => None,
        };
        Ok(Edge {
            program: Program::start(name, Some(port), spec)?,
            address,
            clock,
            nats_line,
            store_line,
        })
    }

    /// Waits until every edge takes connections, and says so.
    pub(crate) async fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        for edge in &mut self.edges {
            edge.program.ready(patience).await?;
        }
        Ok(())
    }

    /// Whatever a fault left behind is put in order: processes run, lines work.
    pub(crate) async fn heal(&mut self) -> anyhow::Result<()> {
        self.balancer.set_mode(ProxyMode::Forward).await;
        for edge in &mut self.edges {
            if let Some(clock) = &edge.clock {
                clock.set(0)?;
            }
            if let Some(line) = &edge.nats_line {
                line.set_mode(ProxyMode::Forward).await;
            }
            edge.store_line.set_mode(ProxyMode::Forward).await;
            edge.program.revive()?;
        }
        for archiver in &mut self.archivers {
            archiver.revive()?;
        }
        self.backbone.heal().await?;
        self.postgres.resume();
        if self.postgres.pid().is_none() {
            self.postgres.restart().await.context("Postgres")?;
        }
        Ok(())
    }

    /// What `rejoin check --archive` says about archive and stream.
    pub(crate) async fn check_archive(&self) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.rejoin)
            .args(["check", "--archive", "--config"])
            .arg(&self.config)
            .env("REJOIN_EDGE__NAME", "check")
            .kill_on_drop(true)
            .output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The ends of the logs of everything that was started.
    pub(crate) fn logs(&self) -> String {
        let edges = self.edges.iter().map(|it| &it.program);
        let logs = edges
            .chain(&self.archivers)
            .map(|it| format!("--- {}:\n{}", it.name, it.log()));
        let mut all: Vec<String> = logs.collect();
        all.push(format!("--- nats:\n{}", self.backbone.log()));
        all.push(format!("--- postgres:\n{}", self.postgres.log_tail()));
        all.join("\n")
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
