//! What the servers have in common: one process at a time, started again in place with the same specification.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::StartError;
use crate::process::{POLL, Process, ProcessSpec, Signal};
use crate::{nats, postgres};

/// Log lines in an error: enough for a panic or a refused configuration.
const LOG_LINES: usize = 20;

/// What shows that a server is up. Data and not a closure, so that starting one is a `Send` future.
#[derive(Debug, Clone)]
pub(crate) enum Sign {
    /// The nats-server of this name greets.
    NatsGreets { addr: SocketAddr, name: String },
    /// The JetStream of the nats-server of this name answers.
    JetStreamAnswers { addr: SocketAddr, name: String },
    /// Postgres asks for a password.
    PostgresTakesConnections { addr: SocketAddr },
}

impl Sign {
    /// Looks once.
    pub(crate) async fn shows(&self) -> bool {
        match self {
            Self::NatsGreets { addr, name } => nats::greets(*addr, name).await,
            Self::JetStreamAnswers { addr, name } => nats::jetstream_answers(*addr, name).await,
            Self::PostgresTakesConnections { addr } => postgres::takes_connections(*addr).await,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Daemon {
    name: &'static str,
    spec: ProcessSpec,
    process: Mutex<Option<Process>>,
}

impl Daemon {
    pub(crate) const fn new(name: &'static str, spec: ProcessSpec) -> Self {
        Self {
            name,
            spec,
            process: Mutex::new(None),
        }
    }

    /// Starts the process (it must not run) and returns once the sign shows.
    pub(crate) async fn start(&self, deadline: Duration, up: Sign) -> Result<(), StartError> {
        *self.process.lock() = Some(Process::spawn(&self.spec)?);
        let end = Instant::now() + deadline;
        while !up.shows().await {
            if let Some(status) = self.process.lock().as_mut().and_then(Process::exited) {
                return Err(StartError::Exited {
                    name: self.name.to_owned(),
                    status,
                    log: self.log_tail(),
                });
            }
            if Instant::now() >= end {
                return Err(StartError::NotReady {
                    name: self.name.to_owned(),
                    seconds: deadline.as_secs(),
                    log: self.log_tail(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Asks the process to end and waits; kills it (and what descends from it) after `deadline`.
    pub(crate) async fn stop(&self, ask: Signal, deadline: Duration) {
        // Taken out, so that no lock is held while waiting; `pid` says nothing meanwhile.
        let Some(mut process) = self.process.lock().take() else {
            return;
        };
        // A paused process would not hear it.
        let _resumed = process.signal_tree(Signal::Resume);
        let _asked = process.signal(ask);
        if process.wait(deadline).await.is_none() {
            let _killed = process.signal_tree(Signal::Kill);
            process.kill();
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.process.lock().take() {
            let _killed = process.signal_tree(Signal::Kill);
            process.kill();
        }
    }

    /// As [`Self::stop`], for `Drop`.
    pub(crate) fn stop_blocking(&self, ask: Signal, deadline: Duration) {
        let Some(mut process) = self.process.lock().take() else {
            return;
        };
        let _resumed = process.signal_tree(Signal::Resume);
        let _asked = process.signal(ask);
        if process.wait_blocking(deadline).is_none() {
            let _killed = process.signal_tree(Signal::Kill);
            process.kill();
        }
    }

    pub(crate) fn pause(&self) {
        if let Some(process) = self.process.lock().as_mut() {
            // It fails only for a process that is gone.
            let _gone = process.pause();
        }
    }

    pub(crate) fn resume(&self) {
        if let Some(process) = self.process.lock().as_mut() {
            // As above.
            let _gone = process.signal_tree(Signal::Resume);
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        let mut process = self.process.lock();
        let process = process.as_mut()?;
        process.exited().is_none().then(|| process.pid())
    }

    pub(crate) fn log_tail(&self) -> String {
        self.spec.log_tail(LOG_LINES)
    }
}

impl StartError {
    /// Whether the server found its port taken, between our look at it and its own.
    pub(crate) fn is_port_taken(&self) -> bool {
        match self {
            Self::Exited { log, .. } => log.to_lowercase().contains("address already in use"),
            Self::Tool(_)
            | Self::NotReady { .. }
            | Self::Helper { .. }
            | Self::DataDir { .. }
            | Self::Io(_) => false,
        }
    }
}
