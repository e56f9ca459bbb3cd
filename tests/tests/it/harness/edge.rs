//! One edge, as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use devstack::{PortLease, Process, ProcessSpec, Signal};

use super::http::Http;

/// A `rejoin serve` that ends with the test.
pub(crate) struct EdgeProcess {
    pub(crate) name: String,
    port: PortLease,
    spec: ProcessSpec,
    process: Process,
    log: PathBuf,
}

impl EdgeProcess {
    /// Starts it; [`Self::ready`] waits until it takes connections.
    pub(crate) fn start(folder: &Path, config: &Path, name: &str) -> Self {
        let port = PortLease::take().expect("a free port");
        let log = folder.join(format!("{name}.log"));
        let program = env!("CARGO_BIN_EXE_rejoin-under-test");
        let spec = ProcessSpec::new(program, log.clone())
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env("REJOIN_EDGE__NAME", name)
            .env("REJOIN_EDGE__LISTEN__ADDRESS", port.addr().to_string());
        let process = Process::spawn(&spec).expect("the edge's program");
        Self {
            name: name.to_owned(),
            port,
            spec,
            process,
            log,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.addr()
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(self.address())
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/v1/connect", self.address())
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        let http = self.http();
        while http.ready().await != Some(true) {
            if let Some(status) = self.process.exited() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            assert!(
                Instant::now() < end,
                "{} is not ready:\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL; it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self) {
        self.process
            .signal(Signal::Terminate)
            .expect("the edge runs");
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        match self.process.wait(within).await {
            Some(status) => status,
            None => panic!("{} still runs:\n{}", self.name, self.log()),
        }
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.exited().is_none()
    }

    /// Starts it again on its port.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = Process::spawn(&self.spec).expect("the edge's program");
    }

    /// All of its log.
    pub(crate) fn whole_log(&self) -> String {
        let log = std::fs::read(&self.log).expect("a log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        self.spec.log_tail(40)
    }
}
