//! The commands, as processes, against a real nats-server.

mod check;
mod dev;
mod serve;
mod token;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use devstack::{PortLease, Process, ProcessSpec};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Bounds every wait; none comes near it unless it fails.
const LONG: Duration = Duration::from_secs(60);

/// A folder with a configuration file.
struct Setup {
    folder: TempDir,
    port: PortLease,
}

impl Setup {
    fn new(nats: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = PortLease::take().unwrap();
        let text = format!(
            "[edge]\nname = \"edge-under-test\"\n[edge.listen]\naddress = \"{}\"\n\
             [edge.drain]\nunready_ms = 500\nspread_ms = 100\ndeadline_ms = 2000\n\
             [[edge.auth.keys]]\nalg = \"HS256\"\nsecret = \"{SECRET}\"\n\
             [backplane]\nurls = [\"{nats}\"]\nstream_max_bytes = 67108864\n{more}\n",
            port.addr()
        );
        std::fs::write(folder.path().join("rejoin.toml"), text).unwrap();
        Self { folder, port }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("rejoin.toml")
    }

    fn serve(&self) -> Process {
        Process::spawn(&self.serve_spec()).unwrap()
    }

    fn serve_spec(&self) -> ProcessSpec {
        ProcessSpec::new(REJOIN, self.folder.path().join("edge.log"))
            .arg("serve")
            .arg("--config")
            .arg(self.config())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("edge.log")).unwrap_or_default()
    }

    /// `GET`, status code and body; `None` while nothing listens.
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let ask = async {
            let mut stream = TcpStream::connect(self.port.addr()).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(LONG, ask).await.ok()?.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until a path answers with this status; returns the body.
    async fn until(&self, path: &str, status: u16) -> String {
        let end = Instant::now() + LONG;
        loop {
            let answer = self.get(path).await;
            match answer {
                Some((found, body)) if found == status => return body,
                other => assert!(
                    Instant::now() < end,
                    "{path} gave {other:?}, not {status}; log:\n{}",
                    self.log()
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs a command that ends by itself.
async fn run(arguments: &[&str], config: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(REJOIN);
    command
        .args(arguments)
        .arg("--config")
        .arg(config)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Reads what a process has written so far.
fn read(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}
