//! Several nats-servers that form one cluster.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::server::{NatsOptions, NatsServer};
use crate::error::StartError;
use crate::port::PortLease;
use crate::process::POLL;

/// Until the servers have found each other and elected a leader: some 3 s on an idle machine.
const FORMED: Duration = Duration::from_secs(60);

/// A running cluster on 127.0.0.1, for replicated streams; dropping it kills it and removes temporary data.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
    // The ports between the servers, kept while they live.
    _routes: Vec<PortLease>,
}

impl NatsCluster {
    /// Starts `size` servers with default options.
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub async fn start(size: usize) -> Result<Self, StartError> {
        Self::start_with(size, &NatsOptions::default()).await
    }

    /// Starts `size` servers and returns when JetStream answers on each. A given `data_dir` gets one folder per server.
    ///
    /// # Errors
    /// When the program cannot be had, or the cluster is not formed within 60 s.
    pub async fn start_with(size: usize, options: &NatsOptions) -> Result<Self, StartError> {
        let routes: Vec<PortLease> = (0..size)
            .map(|_| PortLease::take())
            .collect::<Result<_, _>>()?;
        let urls: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://{}\"", port.addr()))
            .collect();
        let mut servers = Vec::with_capacity(size);
        for (index, route) in routes.iter().enumerate() {
            let cluster = format!(
                "cluster {{\n  name: devstack\n  listen: \"{}\"\n  routes: [{}]\n}}\n",
                route.addr(),
                urls.join(", ")
            );
            let mut options = options.clone();
            options.data_dir = options
                .data_dir
                .map(|folder: PathBuf| folder.join(index.to_string()));
            let server = NatsServer::prepare(&options, PortLease::take()?, Some(&cluster)).await?;
            server.launch(server.greets()).await?;
            servers.push(server);
        }
        let cluster = Self {
            servers,
            _routes: routes,
        };
        cluster.formed().await?;
        Ok(cluster)
    }

    /// Waits until JetStream answers on every server, for example after restarts.
    ///
    /// # Errors
    /// When one does not answer within 60 s.
    pub async fn formed(&self) -> Result<(), StartError> {
        let end = Instant::now() + FORMED;
        for server in &self.servers {
            let up = server.jetstream_answers();
            while !up.shows().await {
                if Instant::now() >= end {
                    return Err(StartError::NotReady {
                        name: "nats-server cluster".to_owned(),
                        seconds: FORMED.as_secs(),
                        log: server.log_tail(),
                    });
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// The servers, in order.
    #[must_use]
    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// Every server's URL, separated by commas, as NATS clients take them.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(NatsServer::url).collect();
        urls.join(",")
    }
}
