//! `rejoin dev`: NATS, Postgres and several edges behind a proxy without
//! affinity, on this machine, until Ctrl-C.
//!
//! - [`secrets`]: the keys of this demonstration;
//! - [`edges`]: the edges, as child processes, so that one can be killed;
//! - [`controls`]: where the page asks for that, on loopback, with a token;
//! - [`banner`]: what to try.

mod banner;
mod controls;
mod edges;
mod secrets;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use devstack::{
    NatsOptions, NatsServer, PortLease, Postgres, PostgresOptions, Progress, RoundRobinProxy, Tools,
};
use tempfile::TempDir;

use crate::cli::DevArgs;
use crate::lifecycle::Stop;
use controls::{Command, Controls, EdgeView, FleetView, PartView};
use edges::{EdgePhase, Edges};
use secrets::Secrets;

/// How often every part is looked at. A part that died is told and started
/// again within this time and a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long NATS stays away when its restart is asked for: long enough to
/// see what everybody does meanwhile.
const NATS_PAUSE: Duration = Duration::from_secs(1);

/// Runs everything until Ctrl-C, or until a part cannot be kept running.
/// Nothing it started outlives it, however it ends.
pub async fn run(arguments: DevArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::new()?;
    let stack = tokio::select! {
        stack = Stack::start(&arguments) => stack?,
        _ = stop.asked() => {
            say("stopped before everything was there");
            return Ok(ExitCode::SUCCESS);
        }
    };
    stack.banner().print()?;
    let mut stack = stack;
    let result = tokio::select! {
        result = stack.keep_running() => result,
        _ = stop.asked() => Ok(()),
    };
    say("stopping");
    tokio::select! {
        () = stack.stop() => {}
        // Dropping the parts kills what is left.
        _ = stop.asked() => say("asked again: killing what is left"),
    }
    say("everything has stopped");
    result.map(|()| ExitCode::SUCCESS)
}

/// One line of progress. Nothing is left to do if stderr is closed.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "rejoin dev: {line}");
}

/// Everything that runs. Fields are dropped in this order.
struct Stack {
    proxy: RoundRobinProxy,
    edges: Edges,
    nats: NatsServer,
    postgres: Option<Postgres>,
    /// Whether Postgres is to run.
    postgres_wanted: bool,
    controls: Controls,
    secrets: Secrets,
    folder: Folder,
}

/// Where data and logs are.
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn new(kept: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = kept else {
            let folder = tempfile::Builder::new().prefix("rejoin-dev-").tempdir()?;
            return Ok(Self::Temporary(folder));
        };
        std::fs::create_dir_all(path).with_context(|| format!("--data {}", path.display()))?;
        Ok(Self::Kept(std::path::absolute(path)?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }

    /// A folder for a server that can keep its data; its own temporary one
    /// otherwise (Postgres runs as another user, who must be able to get in).
    fn kept(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Temporary(_) => None,
            Self::Kept(path) => Some(path.join(name)),
        }
    }
}

impl Stack {
    async fn start(arguments: &DevArgs) -> anyhow::Result<Self> {
        let folder = Folder::new(arguments.data.as_deref())?;
        let secrets = Secrets::load_or_make(folder.path())?;

        say("looking for nats-server and Postgres");
        let progress: Progress = Arc::new(say);
        let wants_postgres = !arguments.no_postgres;
        tokio::task::spawn_blocking(move || {
            Tools::nats_server(&progress)?;
            match wants_postgres {
                true => Tools::postgres_bin(&progress).map(|_| ()),
                false => Ok(()),
            }
        })
        .await??;

        say("starting them");
        let nats = NatsServer::start(NatsOptions {
            data_dir: folder.kept("nats"),
            ..NatsOptions::default()
        });
        let postgres = async {
            let options = PostgresOptions {
                data_dir: folder.kept("postgres"),
                ..PostgresOptions::default()
            };
            match wants_postgres {
                true => Postgres::start(options).await.map(Some),
                false => Ok(None),
            }
        };
        let (nats, postgres) = tokio::try_join!(nats, postgres)?;

        say("starting the edges");
        let database = postgres.as_ref().map(Postgres::url);
        let controls = Controls::start().await?;
        let mut config = secrets.edge_config(&nats.url(), database.as_deref());
        config.push_str(&controls.edge_config(&secrets.api_key));
        let mut edges = Edges::start(folder.path(), &config, arguments.edges)?;
        edges.wait_ready().await?;

        let port = match arguments.port {
            0 => PortLease::take()?,
            port => PortLease::at(port).or_else(|_| PortLease::take())?,
        };
        let proxy = RoundRobinProxy::start_on(port, edges.addresses()).await?;
        Ok(Self {
            proxy,
            edges,
            nats,
            postgres,
            postgres_wanted: true,
            controls,
            secrets,
            folder,
        })
    }

    fn banner(&self) -> banner::Banner<'_> {
        banner::Banner {
            proxy: self.proxy.addr(),
            edges: &self.edges,
            nats: self.nats.url(),
            postgres: self.postgres.as_ref().map(Postgres::url),
            secrets: &self.secrets,
            folder: self.folder.path(),
        }
    }

    /// Starts again what dies, and says so; breaks things when the page asks
    /// for it. Returns only when a part cannot be kept running.
    async fn keep_running(&mut self) -> anyhow::Result<()> {
        loop {
            self.controls.show(self.view(PartView::Up));
            tokio::select! {
                command = self.controls.next() => self.obey(command).await?,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.edges.look().await?;
            if self.nats.pid().is_none() {
                say("nats-server has ended; starting it again on the same data");
                self.controls.show(self.view(PartView::Down));
                self.nats.restart().await?;
                say("nats-server is back");
            }
            if let Some(postgres) = &self.postgres
                && self.postgres_wanted
                && postgres.pid().is_none()
            {
                say("Postgres has ended; starting it again on the same data");
                postgres.restart().await?;
                say("Postgres is back");
            }
        }
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::KillEdge(name) => {
                self.edges.kill(&name);
            }
            Command::Roll => {
                say("restarting the edges, one after another");
                self.edges.roll();
            }
            Command::RestartNats => {
                self.nats.kill();
                self.controls.show(self.view(PartView::Down));
                tokio::time::sleep(NATS_PAUSE).await;
            }
            Command::StopPostgres => {
                self.postgres_wanted = false;
                if let Some(postgres) = &self.postgres {
                    postgres.stop().await;
                    say("Postgres was stopped on request");
                }
            }
            Command::StartPostgres => self.postgres_wanted = true,
        }
        Ok(())
    }

    /// What the page shows.
    fn view(&self, nats: PartView) -> FleetView {
        let edges = self.edges.iter().map(|edge| EdgeView {
            name: edge.name.clone(),
            state: match edge.phase {
                EdgePhase::Starting => PartView::Starting,
                EdgePhase::Up => PartView::Up,
                EdgePhase::Leaving { .. } => PartView::Draining,
                EdgePhase::Dead { .. } => PartView::Down,
            },
        });
        FleetView {
            edges: edges.collect(),
            rolling: self.edges.is_rolling(),
            nats,
            postgres: self.postgres.as_ref().map(|it| match it.pid() {
                Some(_) => PartView::Up,
                None => PartView::Down,
            }),
        }
    }

    /// In the order in which they need each other.
    async fn stop(&mut self) {
        self.edges.stop().await;
        self.nats.stop().await;
        if let Some(postgres) = &self.postgres {
            postgres.stop().await;
        }
    }
}
