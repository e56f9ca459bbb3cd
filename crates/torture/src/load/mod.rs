//! Who publishes and who listens during a run.

mod clients;
mod http;
mod library;
mod progress;
mod publishers;
mod seen;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{Channel, Encoding};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use torture::history::Recorder;

pub(crate) use progress::Progress;
use seen::Seen;

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// Channels of a run.
    pub(crate) channels: usize,
    /// Connections that listen to two channels each.
    pub(crate) sockets: usize,
    /// Clients that are the Rust client.
    pub(crate) library: usize,
    /// Clients that poll.
    pub(crate) polls: usize,
    /// Clients of server-sent events.
    pub(crate) events: usize,
    /// The longest time between two messages of a publisher.
    pub(crate) pace: Duration,
    /// How long tokens are valid.
    pub(crate) token_s: i64,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            channels: 3,
            sockets: 6,
            library: 4,
            polls: 2,
            events: 2,
            pace: Duration::from_millis(60),
            token_s: 3_600,
        }
    }
}

/// What clients and publishers should do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Publish; crash, forget and come back.
    Storm,
    /// As above, but nobody publishes.
    Hush,
    /// Publishers end; clients stay until they have everything.
    Calm,
    /// Everybody ends.
    End,
}

/// What every task of a run is given.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) recorder: Recorder,
    pub(crate) progress: Arc<Progress>,
    /// The balancer.
    pub(crate) address: SocketAddr,
    pub(crate) token_s: i64,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// Running publishers and clients.
pub(crate) struct Load {
    pub(crate) recorder: Recorder,
    pub(crate) progress: Arc<Progress>,
    pub(crate) channels: Vec<Channel>,
    phase: watch::Sender<Phase>,
    publishers: JoinSet<()>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts everybody. `prefix` is that of the channels' ids, unique to the run.
    pub(crate) fn start(
        address: SocketAddr,
        prefix: &str,
        size: &Size,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let recorder = Recorder::new();
        let progress = Arc::new(Progress::default());
        let (phase, phase_seen) = watch::channel(Phase::Storm);
        let channels = (0..size.channels)
            .map(|number| Channel::parse(&format!("room:{prefix}-{number}")))
            .collect::<Result<Vec<_>, _>>()?;
        let scene = Scene {
            recorder: recorder.clone(),
            progress: Arc::clone(&progress),
            address,
            token_s: size.token_s,
            phase: phase_seen,
        };
        let mut load = Self {
            recorder,
            progress,
            channels,
            phase,
            publishers: JoinSet::new(),
            clients: JoinSet::new(),
        };
        let mut random = StdRng::seed_from_u64(seed);
        load.clients(&scene, size, &mut random);
        load.publishers(&scene, size, &mut random);
        Ok(load)
    }

    fn clients(&mut self, scene: &Scene, size: &Size, random: &mut StdRng) {
        let mut next = 0;
        let mut seen = |channels: &[Channel], index: usize, random: &mut StdRng| {
            next += 1;
            let channel = channels[index % channels.len()].clone();
            Seen::new(next, channel, scene, random.random())
        };
        for number in 0..size.sockets {
            let both = [number, number + 1].map(|it| seen(&self.channels, it, random));
            let encoding = [Encoding::Json, Encoding::Proto][number % 2];
            let random = StdRng::seed_from_u64(random.random());
            let listening = sockets::listen(scene.clone(), both.into(), encoding, random);
            self.clients.spawn(listening);
        }
        for number in 0..size.library {
            let one = seen(&self.channels, number, random);
            let random = StdRng::seed_from_u64(random.random());
            self.clients
                .spawn(library::listen(scene.clone(), one, random));
        }
        for number in 0..size.polls {
            let one = seen(&self.channels, number, random);
            let polling = clients::poll(scene.clone(), one.polling());
            self.clients.spawn(polling);
        }
        for number in 0..size.events {
            let one = seen(&self.channels, number, random);
            self.clients.spawn(clients::events(scene.clone(), one));
        }
    }

    fn publishers(&mut self, scene: &Scene, size: &Size, random: &mut StdRng) {
        for channel in &self.channels {
            let writer = |random: &mut StdRng| publishers::Writer {
                old: Vec::new(),
                scene: scene.clone(),
                channel: channel.clone(),
                pace: size.pace,
                random: StdRng::seed_from_u64(random.random()),
            };
            self.publishers.spawn(publishers::http(writer(random)));
            self.publishers.spawn(publishers::socket(writer(random)));
        }
    }

    /// Waits until every client is live and every channel has something.
    pub(crate) async fn warm(&self, patience: Duration) -> bool {
        until(patience, || self.progress.is_warm(self.channels.len())).await
    }

    /// Waits until every client got something that was published after the fault.
    pub(crate) async fn recovered(&self, patience: Duration) -> bool {
        until(patience, || self.progress.all_recovered()).await
    }

    /// Publishers pause, or go on.
    pub(crate) fn hush(&self, quiet: bool) {
        self.phase.send_replace(match quiet {
            true => Phase::Hush,
            false => Phase::Storm,
        });
    }

    /// Publishers finish what they have begun and end; nobody crashes any more.
    pub(crate) async fn calm(&mut self) {
        self.phase.send_replace(Phase::Calm);
        while self.publishers.join_next().await.is_some() {}
    }

    /// Waits until every client is live at or behind the last acknowledged message.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        until(patience, || self.progress.is_settled()).await
    }

    /// Everybody ends.
    pub(crate) async fn end(mut self) {
        self.phase.send_replace(Phase::End);
        let ended = async { while self.clients.join_next().await.is_some() {} };
        // Whoever hangs in a request is dropped.
        let _late = tokio::time::timeout(Duration::from_secs(5), ended).await;
    }
}

async fn until(patience: Duration, holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !holds() {
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}
