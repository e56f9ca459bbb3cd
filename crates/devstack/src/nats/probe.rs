//! Asks a server whether it is up, in a few lines of NATS' text protocol (so that this crate needs no client library).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One attempt; the caller asks again.
const ATTEMPT: Duration = Duration::from_secs(2);
/// A line of the protocol, and an answer of the JetStream API, are a few kilobytes.
const LINE_BYTES: u64 = 64 * 1024;

/// Whether the server called `name` greets on the port.
pub(crate) async fn greets(addr: SocketAddr, name: &str) -> bool {
    timeout(ATTEMPT, greeted(addr, name))
        .await
        .is_ok_and(|stream| stream.is_some())
}

/// Whether the server called `name` is there and its JetStream answers (in a cluster: has a leader).
pub(crate) async fn jetstream_answers(addr: SocketAddr, name: &str) -> bool {
    timeout(ATTEMPT, account_info(addr, name))
        .await
        .ok()
        .flatten()
        .is_some_and(|answer| {
            // A refusal carries an `error`, a success the account's limits.
            answer.contains("\"limits\"") && !answer.contains("\"error\"")
        })
}

async fn greeted(addr: SocketAddr, name: &str) -> Option<BufReader<TcpStream>> {
    let mut stream = BufReader::new(TcpStream::connect(addr).await.ok()?);
    let greeting = line(&mut stream).await?;
    (greeting.starts_with("INFO ") && greeting.contains(&format!("\"{name}\""))).then_some(stream)
}

async fn account_info(addr: SocketAddr, name: &str) -> Option<String> {
    let mut stream = greeted(addr, name).await?;
    stream
        .write_all(
            b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n\
              SUB devstack.probe 1\r\n\
              PUB $JS.API.INFO devstack.probe 0\r\n\r\n",
        )
        .await
        .ok()?;
    loop {
        let answer = line(&mut stream).await?;
        if answer.starts_with("MSG ") {
            return line(&mut stream).await;
        }
        if answer.starts_with("PING") {
            stream.write_all(b"PONG\r\n").await.ok()?;
        }
        if answer.starts_with("-ERR") {
            // A server that wants credentials is up, which is all that can be found out.
            return answer
                .contains("Authorization")
                .then(|| "\"limits\"".to_owned());
        }
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut text = String::new();
    let read = stream.take(LINE_BYTES).read_line(&mut text).await.ok()?;
    (read > 0).then_some(text)
}
