//! One `rejoin` process.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use devstack::{PortLease, Process, ProcessSpec, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::API_KEY;

/// A process that can be hurt and started again.
pub(crate) struct Program {
    pub(crate) name: String,
    port: Option<PortLease>,
    spec: ProcessSpec,
    process: Process,
    paused: bool,
}

pub(super) fn spec(rejoin: &Path, config: &Path, command: &str, name: &str) -> ProcessSpec {
    ProcessSpec::new(rejoin, config.with_file_name(format!("{name}.log")))
        .arg(command)
        .arg("--config")
        .arg(config)
        .env("REJOIN_EDGE__NAME", name)
}

impl Program {
    pub(super) fn start(
        name: &str,
        port: Option<PortLease>,
        spec: ProcessSpec,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            port,
            process: Process::spawn(&spec)?,
            spec,
            paused: false,
        })
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
        self.paused = false;
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.paused = true;
        Ok(self.process.pause()?)
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.paused = false;
        Ok(self.process.signal(Signal::Resume)?)
    }

    /// SIGTERM, and until it has ended; that it ends in order is part of the test.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::Terminate)?;
        match self.process.wait(Duration::from_secs(15)).await {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} ended with {status} after SIGTERM", self.name),
            None => bail!("{} still runs 15 s after SIGTERM", self.name),
        }
    }

    /// Runs again, whatever was done to it.
    pub(crate) fn revive(&mut self) -> anyhow::Result<()> {
        if self.paused {
            self.resume()?;
        }
        if self.process.exited().is_some() {
            self.process = Process::spawn(&self.spec)?;
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let text = timeout(Duration::from_secs(2), self.get("/metrics"));
        let text = text.await.ok()??;
        let of_name = |line: &str| {
            let value = line.strip_prefix(name)?.strip_prefix(' ')?;
            value.trim().parse::<f64>().ok()
        };
        text.lines().find_map(of_name).map(|it| it as u64)
    }

    async fn get(&self, path: &str) -> Option<String> {
        let address = self.port.as_ref().map(PortLease::addr)?;
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {API_KEY}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        if self.port.is_none() {
            return Ok(());
        }
        let end = Instant::now() + patience;
        loop {
            let asked = async {
                let answer = self.get("/readyz").await?;
                Some(answer.starts_with("HTTP/1.1 200"))
            };
            let answer = timeout(Duration::from_secs(2), asked).await.ok().flatten();
            if answer == Some(true) {
                return Ok(());
            }
            if let Some(status) = self.process.exited() {
                bail!("{} ended with {status}:\n{}", self.name, self.log());
            }
            let in_time = Instant::now() < end;
            ensure!(in_time, "{} is not ready:\n{}", self.name, self.log());
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        self.spec.log_tail(40)
    }
}
