//! The few words of the NATS protocol that the harness needs: it reads streams by another way than the program under test.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Anything on loopback that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// A connection to a nats-server.
pub(crate) struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The server's name.
    pub(crate) server: String,
    asked: u64,
}

/// A message as it came.
struct Delivery {
    headers: String,
    body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        timeout(PATIENCE, Self::greet(address)).await?
    }

    async fn greet(address: SocketAddr) -> anyhow::Result<Self> {
        let (reader, mut writer) = TcpStream::connect(address).await?.into_split();
        let mut reader = BufReader::new(reader);
        let mut info = String::new();
        reader.read_line(&mut info).await?;
        let info = info.strip_prefix("INFO ").context("no greeting")?;
        let info: Value = serde_json::from_str(info)?;
        let hello =
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";
        writer.write_all(hello).await?;
        Ok(Self {
            reader,
            writer,
            server: info["server_name"].as_str().unwrap_or_default().to_owned(),
            asked: 0,
        })
    }

    /// Asks and returns the first answer's JSON.
    pub(crate) async fn ask(&mut self, subject: &str, payload: &str) -> anyhow::Result<Value> {
        let asking = async {
            self.send(subject, payload).await?;
            let answer = self.delivery().await?;
            ensure!(
                !answer.headers.starts_with("NATS/1.0 503"),
                "nobody answers {subject}"
            );
            Ok(serde_json::from_slice(&answer.body)?)
        };
        timeout(PATIENCE, asking).await?
    }

    async fn send(&mut self, subject: &str, payload: &str) -> anyhow::Result<()> {
        self.asked += 1;
        let inbox = format!("_INBOX.torture.{:016x}", rand::random::<u64>());
        // The subscription of the question before goes.
        let (old, new) = (self.asked, self.asked + 1);
        let command = format!(
            "UNSUB {old}\r\nSUB {inbox} {new}\r\nPUB {subject} {inbox} {}\r\n{payload}\r\n",
            payload.len()
        );
        Ok(self.writer.write_all(command.as_bytes()).await?)
    }

    async fn delivery(&mut self) -> anyhow::Result<Delivery> {
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line).await?;
            ensure!(read > 0, "nats-server closed the connection");
            let words: Vec<&str> = line.split_whitespace().collect();
            let current = |sid: &str| sid.parse() == Ok(self.asked + 1);
            let (sid, head, total) = match words.as_slice() {
                ["MSG", _, sid, .., total] => (*sid, 0, total.parse()?),
                ["HMSG", _, sid, .., head, total] => (*sid, head.parse()?, total.parse()?),
                ["PING"] => {
                    self.writer.write_all(b"PONG\r\n").await?;
                    continue;
                }
                ["-ERR", ..] => bail!("nats-server says {line}"),
                _ => continue,
            };
            let (head, total): (usize, usize) = (head, total);
            let mut bytes = vec![0; total + 2];
            self.reader.read_exact(&mut bytes).await?;
            if !current(sid) {
                continue;
            }
            return Ok(Delivery {
                headers: String::from_utf8_lossy(&bytes[..head]).into_owned(),
                body: bytes[head..total].to_vec(),
            });
        }
    }
}
