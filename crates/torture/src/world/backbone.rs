//! One nats-server, or three whose lines to each other can be cut.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use devstack::{NatsOptions, NatsServer, PortLease, ProxyMode, RoundRobinProxy, SyncInterval};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::{Wire, local};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Single {
        sync: SyncInterval,
        /// A small disk of its own.
        disk: Option<DiskKind>,
    },
    Cluster {
        sync: SyncInterval,
        /// Disks whose power can be cut, of this many MiB.
        disks_mb: Option<u32>,
    },
}

/// On what a server keeps its data.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DiskKind {
    /// In memory, of this many MiB: it can be filled.
    Memory(u32),
    /// A file system in a file, of this many MiB: its power can be cut.
    Image(u32),
}

/// nats-servers. In a cluster, each server's lines to the others go through proxies, and its own address is kept from
/// them, so that there is no other way.
pub(crate) struct Backbone {
    pub(crate) servers: Vec<NatsServer>,
    /// `lines[from][to]`; empty for a single server.
    lines: Vec<Vec<Option<RoundRobinProxy>>>,
    /// One for each server, or none.
    pub(crate) disks: Vec<Disk>,
    _ports: Vec<PortLease>,
}

/// Where on its disk a server keeps everything.
fn data(disk: &Disk) -> PathBuf {
    disk.path().join("data")
}

impl Backbone {
    pub(super) async fn start(kind: &Kind, folder: &Path) -> anyhow::Result<Self> {
        match kind {
            Kind::Single { sync, disk } => {
                let place = folder.join("nats");
                let disk = match disk {
                    None => None,
                    Some(DiskKind::Memory(mb)) => Some(Disk::memory(&place, *mb)?),
                    Some(DiskKind::Image(mb)) => Some(Disk::image(&place, *mb)?),
                };
                let options = NatsOptions {
                    data_dir: disk.as_ref().map(data),
                    sync: *sync,
                    ..NatsOptions::default()
                };
                Ok(Self {
                    servers: vec![NatsServer::start(options).await?],
                    lines: Vec::new(),
                    disks: disk.into_iter().collect(),
                    _ports: Vec::new(),
                })
            }
            Kind::Cluster { sync, disks_mb } => {
                let place = |number: usize| folder.join(format!("nats-{number}"));
                let disks = disks_mb.map(|mb| (0..3).map(move |it| Disk::image(&place(it), mb)));
                let disks = disks.into_iter().flatten().collect::<Result<_, _>>()?;
                Self::cluster(*sync, 3, disks).await
            }
        }
    }

    async fn cluster(sync: SyncInterval, size: usize, disks: Vec<Disk>) -> anyhow::Result<Self> {
        let ports: Vec<PortLease> = (0..size)
            .map(|_| PortLease::take())
            .collect::<Result<_, _>>()?;
        let mut lines = Vec::new();
        for from in 0..size {
            let mut row = Vec::new();
            for (to, port) in ports.iter().enumerate() {
                row.push(match from == to {
                    true => None,
                    false => Some(RoundRobinProxy::start(vec![port.addr()]).await?),
                });
            }
            lines.push(row);
        }
        let starting = (0..size).map(|number| {
            let routes = lines[number].iter().flatten();
            let routes: Vec<String> = routes
                .map(|it| format!("\"nats://{}\"", it.addr()))
                .collect();
            // Nobody listens on port 1: what is gossiped leads nowhere.
            let extra_config = format!(
                "cluster {{\n  name: torture\n  listen: \"{}\"\n  advertise: \"127.0.0.1:1\"\n  routes: [{}]\n}}\n",
                ports[number].addr(),
                routes.join(", ")
            );
            NatsServer::start(NatsOptions {
                data_dir: disks.get(number).map(data),
                sync,
                extra_config,
                ..NatsOptions::default()
            })
        });
        let servers = futures_util::future::try_join_all(starting).await?;
        Ok(Self {
            servers,
            lines,
            disks,
            _ports: ports,
        })
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// The server, if it is one.
    pub(crate) fn single(&self) -> Option<&NatsServer> {
        match self.servers.as_slice() {
            [server] => Some(server),
            _ => None,
        }
    }

    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        for line in self.lines.iter().flatten().flatten() {
            line.set_mode(ProxyMode::Forward).await;
        }
        // Together: one alone has no quorum to become ready with.
        let restarts = self.servers.iter().map(|server| async {
            server.resume();
            match server.pid() {
                Some(_) => Ok(()),
                None => server.restart().await,
            }
        });
        futures_util::future::try_join_all(restarts)
            .await
            .context("nats-server")?;
        Ok(())
    }

    /// Cuts a server off from the others; `half_open`: without telling anybody.
    pub(crate) async fn isolate(&self, server: usize, half_open: bool) {
        for (from, row) in self.lines.iter().enumerate() {
            for (to, line) in row.iter().enumerate() {
                let Some(line) = line.as_ref().filter(|_| from == server || to == server) else {
                    continue;
                };
                if half_open {
                    line.set_mode(ProxyMode::HalfOpen).await;
                } else {
                    line.set_mode(ProxyMode::Refuse).await;
                    line.cut();
                }
            }
        }
    }

    /// The machines of these servers lose their power: what was not synced is gone.
    pub(crate) async fn cut_power(&mut self, servers: &[usize]) -> anyhow::Result<()> {
        // All at one moment, as far as it can be done: from then on nothing is written.
        for server in servers {
            self.servers[*server].pause();
        }
        for server in servers {
            let disk = self.disks.get_mut(*server).context("no disk of its own")?;
            let reached = disk.snapshot()?;
            self.servers[*server].kill();
            disk.restore(&reached).await?;
        }
        Ok(())
    }

    /// The number of the server that leads the stream.
    pub(crate) async fn leader(&self, patience: Duration) -> anyhow::Result<usize> {
        let end = Instant::now() + patience;
        loop {
            if let Ok(leader) = self.ask_leader().await {
                return Ok(leader);
            }
            if Instant::now() >= end {
                bail!("the stream has no leader");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask_leader(&self) -> anyhow::Result<usize> {
        let mut names = Vec::new();
        let mut leader = None;
        for server in &self.servers {
            let mut wire = Wire::connect(local(server.port())).await?;
            names.push(wire.server.clone());
            let info = wire.ask("$JS.API.STREAM.INFO.REJOIN_0", "").await?;
            if let Some(name) = info["cluster"]["leader"].as_str() {
                leader = Some(name.to_owned());
            }
        }
        names
            .iter()
            .position(|it| Some(it) == leader.as_ref())
            .context("no leader")
    }

    /// Asks the first server that answers.
    pub(crate) async fn ask(&self, subject: &str, payload: &str) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("no server");
        for server in &self.servers {
            let asked = async {
                let mut wire = Wire::connect(local(server.port())).await?;
                wire.ask(subject, payload).await
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn log(&self) -> String {
        let logs = self.servers.iter().map(NatsServer::log_tail);
        logs.collect::<Vec<_>>().join("\n- next server:\n")
    }
}
