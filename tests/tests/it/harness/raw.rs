//! A WebSocket client that breaks rules: it writes the bytes that it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

/// Opcodes of RFC 6455, section 5.2.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const PING: u8 = 9;

/// A TCP connection, after the handshake if there was one.
pub(crate) struct Raw {
    stream: TcpStream,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The edge sent a close frame with this code.
    Code(u16),
    /// It just closed, or reset, the connection.
    Closed,
}

impl Raw {
    /// Only TCP.
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the edge listens");
        Self { stream }
    }

    /// With the WebSocket handshake.
    pub(crate) async fn open(address: SocketAddr, subprotocol: &str) -> Self {
        let mut raw = Self::dial(address).await;
        let head = raw
            .handshake(&[("Sec-WebSocket-Protocol", subprotocol)])
            .await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    /// Sends a handshake with more headers; returns the head of the answer.
    pub(crate) async fn handshake(&mut self, headers: &[(&str, &str)]) -> String {
        let mut request = "GET /v1/connect HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            .to_owned();
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.write(request.as_bytes())
            .await
            .expect("a new connection");
        self.head().await
    }

    /// Reads the head of an HTTP answer, byte by byte, so that no frame is read with it.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                match self.stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
        };
        timeout(SOON, reading).await.expect("an answer");
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Writes bytes. An error says that the edge has closed.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let writing = timeout(SOON, self.stream.write_all(bytes));
        writing.await.expect("the edge reads or closes")
    }

    /// Writes a frame with a mask of zeros, so that the payload is itself.
    pub(crate) async fn frame(
        &mut self,
        last: bool,
        opcode: u8,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let mut bytes = vec![u8::from(last) << 7 | opcode];
        match payload.len() {
            length @ 0..126 => bytes.push(0x80 | length as u8),
            length @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(payload);
        self.write(&bytes).await
    }

    /// Reads until the connection ends.
    pub(crate) async fn end(&mut self, within: Duration) -> End {
        let reading = async {
            loop {
                let Ok(first) = self.stream.read_u8().await else {
                    return End::Closed;
                };
                let Ok(payload) = self.payload().await else {
                    return End::Closed;
                };
                if first & 0x0f == 8 {
                    return match payload.as_slice() {
                        [high, low, ..] => End::Code(u16::from_be_bytes([*high, *low])),
                        _ => End::Closed,
                    };
                }
            }
        };
        timeout(within, reading).await.expect("the connection ends")
    }

    async fn payload(&mut self) -> std::io::Result<Vec<u8>> {
        let length = match self.stream.read_u8().await? & 0x7f {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut payload).await?;
        Ok(payload)
    }
}
