//! The few words of the NATS protocol that tests need: publishing as a foreign service, and counting what passes.

use std::sync::{Arc, Mutex};

use devstack::NatsServer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

/// A connection to nats-server.
pub(crate) struct Nats {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Notes the subjects of messages until it is dropped.
pub(crate) struct Count {
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Count {
    /// The subjects of what passed, with repeats.
    pub(crate) fn subjects(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nats {
    pub(crate) async fn connect(server: &NatsServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await;
        let (reader, mut writer) = stream.expect("nats-server listens").into_split();
        let mut reader = BufReader::new(reader);
        let mut info = String::new();
        reader.read_line(&mut info).await.expect("INFO");
        assert!(info.starts_with("INFO "), "{info}");
        let hello =
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n";
        writer.write_all(hello).await.expect("CONNECT");
        let mut nats = Self { reader, writer };
        nats.pong().await;
        nats
    }

    /// Publishes without headers or anything else of ours; it is on the server when this returns.
    pub(crate) async fn publish(&mut self, subject: &str, payload: &[u8]) {
        let head = format!("PUB {subject} {}\r\n", payload.len());
        let command = [head.as_bytes(), payload, b"\r\nPING\r\n"].concat();
        self.writer.write_all(&command).await.expect("PUB");
        self.pong().await;
    }

    /// Publishes with a header, `name: value`; it is on the server when this returns.
    pub(crate) async fn publish_with(&mut self, subject: &str, header: &str, payload: &[u8]) {
        let headers = format!("NATS/1.0\r\n{header}\r\n\r\n");
        let total = headers.len() + payload.len();
        let head = format!("HPUB {subject} {} {total}\r\n{headers}", headers.len());
        let command = [head.as_bytes(), payload, b"\r\nPING\r\n"].concat();
        self.writer.write_all(&command).await.expect("HPUB");
        self.pong().await;
    }

    /// Publishes texts as JSON strings, in order; all are stored when this returns.
    pub(crate) async fn publish_all(&mut self, subject: &str, texts: &[String]) {
        // The server drops what comes faster than it stores, beyond 10,000 messages. So the last of each piece asks
        // for its acknowledgement.
        for piece in texts.chunks(1_000) {
            let (last, rest) = piece.split_last().expect("chunks are not empty");
            let mut commands = String::new();
            for text in rest {
                let length = text.len() + 2;
                commands.push_str(&format!("PUB {subject} {length}\r\n\"{text}\"\r\n"));
            }
            self.writer
                .write_all(commands.as_bytes())
                .await
                .expect("PUB");
            let answer = self.ask(subject, &format!("\"{last}\"")).await;
            assert!(answer["seq"].is_u64(), "{answer}");
        }
    }

    /// Asks the server's API (`$JS.API…`) and returns the answer's JSON.
    pub(crate) async fn ask(&mut self, subject: &str, payload: &str) -> serde_json::Value {
        let inbox = format!("_INBOX.{:016x}", rand::random::<u64>());
        let command = format!(
            "SUB {inbox} 9\r\nUNSUB 9 1\r\nPUB {subject} {inbox} {}\r\n{payload}\r\n",
            payload.len()
        );
        self.writer
            .write_all(command.as_bytes())
            .await
            .expect("PUB");
        let (_, body) = self.message().await;
        serde_json::from_slice(&body).expect("an API answer is JSON")
    }

    /// Notes what is published to these subjects from now on.
    pub(crate) async fn count(mut self, subjects: &[&str]) -> Count {
        for (sid, subject) in subjects.iter().enumerate() {
            let command = format!("SUB {subject} {}\r\n", sid + 1);
            self.writer
                .write_all(command.as_bytes())
                .await
                .expect("SUB");
        }
        self.writer.write_all(b"PING\r\n").await.expect("PING");
        self.pong().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let counter = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (subject, _) = self.message().await;
                counter.lock().expect("not poisoned").push(subject);
            }
        });
        Count { seen, task }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).await;
        assert!(read.is_ok_and(|bytes| bytes > 0), "nats-server closed");
        line.trim_end().to_owned()
    }

    async fn pong(&mut self) {
        loop {
            let line = self.line().await;
            match line.as_str() {
                "PONG" => return,
                "PING" => self.writer.write_all(b"PONG\r\n").await.expect("PONG"),
                other => assert!(!other.starts_with("-ERR"), "{other}"),
            }
        }
    }

    /// The next message: its subject and its body without headers.
    async fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            let line = self.line().await;
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |word: &str| word.parse::<usize>().expect("a length");
            let (headers, total) = match words.as_slice() {
                ["MSG", .., total] => (0, number(total)),
                ["HMSG", .., headers, total] => (number(headers), number(total)),
                ["PING"] => {
                    self.writer.write_all(b"PONG\r\n").await.expect("PONG");
                    continue;
                }
                _ => continue,
            };
            let mut body = vec![0; total + 2];
            self.reader.read_exact(&mut body).await.expect("a body");
            return (words[1].to_owned(), body[headers..total].to_vec());
        }
    }
}
