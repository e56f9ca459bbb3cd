//! One WebSocket that speaks frames: no retry, no cursor, no opinion.

mod error;
mod open;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use protocol::frame::{Connect, Connected, Publish, Published, Subscribe, Subscribed, Token};
use protocol::{
    Channel, ClientBody, ClientFrame, Device, Encoding, ErrorCode, From as StartFrom, MessageId,
    ServerBody, ServerFrame,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

pub use error::{Closed, ConnectError, RequestError};

/// Frames that may wait while [`Connection::request`] looks for its reply: some seconds of a busy
/// channel. Batches count as one.
const WAITING_FRAMES_MAX: usize = 65_536;

/// What to say at connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How frames are written. Default: JSON.
    pub encoding: Encoding,
    /// Names this device among the user's.
    pub device: Option<Device>,
    /// Channels to subscribe to at once.
    pub subscriptions: Vec<Subscribe>,
    /// Subscribe to the user's inbox without naming it.
    pub inbox: bool,
    /// Subscribe to the user's rooms without naming them.
    pub rooms: bool,
    /// Local address to connect from: many connections need more than one, as each has some 28,000 ports.
    pub source_ip: Option<IpAddr>,
    /// Send the token as `Authorization` header of the handshake instead of in the frame. Default: no.
    pub token_in_header: bool,
    /// Answer each `ping` while reading. Default: yes.
    pub answer_pings: bool,
    /// For everything up to `connected`. Default: 10 s.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            encoding: Encoding::Json,
            device: None,
            subscriptions: Vec::new(),
            inbox: false,
            rooms: false,
            source_ip: None,
            token_in_header: false,
            answer_pings: true,
            timeout: Duration::from_secs(10),
        }
    }
}

impl ConnectOptions {
    /// With one more subscription.
    #[must_use]
    pub fn subscribe(mut self, channel: Channel, from: StartFrom) -> Self {
        self.subscriptions.push(Subscribe {
            channel,
            from,
            max_catchup: 0,
        });
        self
    }

    /// With this encoding.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }
}

/// One WebSocket that speaks frames. Dropping it breaks the connection without a close frame, as a lost network would.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
    answer_pings: bool,
    /// A pong that is to be sent, or that is in the buffer and to be flushed.
    owed: Owed,
    waiting: VecDeque<ServerFrame>,
    next_req: u32,
    closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    Pong,
    Flush,
}

impl Connection {
    /// Opens the WebSocket and sends nothing yet; `header_token` goes into the handshake. Uses of `options` are the
    /// encoding, the source address, `answer_pings` and the timeout.
    ///
    /// # Errors
    /// When there is no WebSocket within the timeout.
    pub async fn open(
        url: &str,
        header_token: Option<&str>,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let opening = open::open(url, header_token, options);
        let socket = timeout(options.timeout, opening)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        Ok(Self {
            socket,
            encoding: options.encoding,
            answer_pings: options.answer_pings,
            owed: Owed::Nothing,
            waiting: VecDeque::new(),
            next_req: 1,
            closed: None,
        })
    }

    /// Opens a connection of a user: `connected` has come when this returns, and the replies to the subscriptions
    /// follow as frames.
    ///
    /// # Errors
    /// When there is no `connected` within the timeout; [`ConnectError::Rejected`] has the edge's reason.
    pub async fn connect(
        url: &str,
        token: &str,
        options: &ConnectOptions,
    ) -> Result<(Self, Connected), ConnectError> {
        let connecting = async {
            let in_header = options.token_in_header.then_some(token);
            let mut connection = Self::open(url, in_header, options).await?;
            let frame_token = match options.token_in_header {
                true => None,
                false => Some(Token::parse(token).map_err(|_| ConnectError::Token)?),
            };
            let body = ClientBody::Connect(Connect {
                token: frame_token,
                device: options.device.clone(),
                subscriptions: options.subscriptions.clone(),
                inbox: options.inbox,
                rooms: options.rooms,
            });
            let connected = connection.connected(body).await?;
            Ok((connection, connected))
        };
        timeout(options.timeout, connecting)
            .await
            .map_err(|_| ConnectError::Timeout)?
    }

    async fn connected(&mut self, body: ClientBody) -> Result<Connected, ConnectError> {
        let req = self.new_req();
        self.send(&ClientFrame::request(req, body)).await?;
        let first = self.next().await?;
        match first.body {
            ServerBody::Connected(connected) => Ok(connected),
            ServerBody::Error(error) => {
                let closed = match self.next().await {
                    Ok(frame) => Closed::broken(format!("{} after the error", frame.body.name())),
                    Err(closed) => closed,
                };
                Err(ConnectError::Rejected { error, closed })
            }
            other => Err(ConnectError::Unexpected(other.name())),
        }
    }

    /// The encoding in use.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// A `req` that this connection has not used.
    pub fn new_req(&mut self) -> u32 {
        let req = self.next_req;
        self.next_req = self.next_req.checked_add(1).unwrap_or(1);
        req
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection is closed. It may have been sent or not.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), Closed> {
        let bytes = protocol::encode_client(self.encoding, frame);
        self.send_bytes(bytes, self.encoding.is_binary()).await
    }

    /// Sends one WebSocket message as it is: for tests of what an edge makes of it.
    ///
    /// # Errors
    /// When the connection is closed. A text that is not UTF-8 is sent as it is.
    pub async fn send_bytes(&mut self, bytes: Bytes, binary: bool) -> Result<(), Closed> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone());
        }
        let message = match binary {
            true => Message::Binary(bytes),
            false => match Utf8Bytes::try_from(bytes) {
                Ok(text) => Message::Text(text),
                Err(_) => return Err(Closed::broken("a text must be UTF-8")),
            },
        };
        match self.socket.send(message).await {
            Ok(()) => Ok(()),
            // The edge may have said why before it closed.
            Err(error) => Err(self.last_words(error.to_string()).await),
        }
    }

    /// The next frame. Frames of a later protocol version are skipped. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection is closed; from then on always.
    pub async fn next(&mut self) -> Result<ServerFrame, Closed> {
        match self.waiting.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    /// Sends a request and waits for its reply. What comes before it waits for [`Self::next`].
    ///
    /// # Errors
    /// When the edge answers with an error, or the connection is closed first.
    pub async fn request(&mut self, body: ClientBody) -> Result<ServerBody, RequestError> {
        let req = self.new_req();
        self.send(&ClientFrame::request(req, body)).await?;
        loop {
            let frame = self.read().await?;
            if frame.req == req {
                return match frame.body {
                    ServerBody::Error(error) => Err(RequestError::Refused(error)),
                    body => Ok(body),
                };
            }
            if self.waiting.len() >= WAITING_FRAMES_MAX {
                let closed = Closed::broken("too many frames before the reply");
                self.closed = Some(closed.clone());
                return Err(closed.into());
            }
            self.waiting.push_back(frame);
        }
    }

    /// Subscribes to a channel.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn subscribe(
        &mut self,
        channel: Channel,
        from: StartFrom,
    ) -> Result<Subscribed, RequestError> {
        let body = ClientBody::Subscribe(Subscribe {
            channel,
            from,
            max_catchup: 0,
        });
        match self.request(body).await? {
            ServerBody::Subscribed(subscribed) => Ok(subscribed),
            other => Err(RequestError::Unexpected(other.name())),
        }
    }

    /// Publishes a message under a given id, so that it can be tried again.
    ///
    /// # Errors
    /// As [`Self::request`]. Unless refused for good, the message may be stored or not.
    pub async fn publish(
        &mut self,
        id: MessageId,
        channel: Channel,
        kind: &str,
        data: Bytes,
    ) -> Result<Published, RequestError> {
        let body = ClientBody::Publish(Publish {
            id,
            channel,
            kind: kind.into(),
            data,
            traceparent: None,
        });
        match self.request(body).await? {
            ServerBody::Published(published) => Ok(published),
            other => Err(RequestError::Unexpected(other.name())),
        }
    }

    /// Says goodbye (1000) and drops the connection, without waiting for the answer.
    pub async fn close(mut self) {
        let goodbye = CloseFrame {
            code: 1000.into(),
            reason: Utf8Bytes::from_static(""),
        };
        let closing = self.socket.close(Some(goodbye));
        // The connection goes either way.
        let _ = timeout(Duration::from_secs(1), closing).await;
    }

    async fn read(&mut self) -> Result<ServerFrame, Closed> {
        if let Some(closed) = &self.closed {
            return Err(closed.clone());
        }
        match self.read_open().await {
            Ok(frame) => Ok(frame),
            Err(closed) => {
                self.closed = Some(closed.clone());
                Err(closed)
            }
        }
    }

    async fn read_open(&mut self) -> Result<ServerFrame, Closed> {
        loop {
            self.pay().await?;
            let bytes = match self.socket.next().await {
                Some(Ok(Message::Text(text))) if !self.encoding.is_binary() => Bytes::from(text),
                Some(Ok(Message::Binary(bytes))) if self.encoding.is_binary() => bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    return Err(Closed::broken("a message in the wrong encoding"));
                }
                Some(Ok(Message::Close(said))) => {
                    // The answer to it is sent by reading on; the edge then closes the TCP connection.
                    let end = timeout(Duration::from_secs(1), self.socket.next());
                    let _ = end.await;
                    return Err(said.map_or_else(|| Closed::broken("no close code"), Closed::from));
                }
                Some(Err(error)) => return Err(Closed::broken(error.to_string())),
                None => return Err(Closed::broken("the end of the stream")),
            };
            match protocol::decode_server(self.encoding, &bytes) {
                Ok(frame) => {
                    if self.answer_pings && matches!(frame.body, ServerBody::Ping { .. }) {
                        self.owed = Owed::Pong;
                    }
                    return Ok(frame);
                }
                Err(error) if error.code == ErrorCode::Unsupported => {}
                Err(error) => return Err(Closed::broken(error.to_string())),
            }
        }
    }

    /// Sends the pong that is owed, in steps that can be dropped in between.
    async fn pay(&mut self) -> Result<(), Closed> {
        let broken =
            |error: tokio_tungstenite::tungstenite::Error| Closed::broken(error.to_string());
        if self.owed == Owed::Pong {
            let pong = protocol::encode_client(self.encoding, &ClientFrame::new(ClientBody::Pong));
            let message = match self.encoding.is_binary() {
                true => Message::Binary(pong),
                false => Message::Text(Utf8Bytes::try_from(pong).unwrap_or_default()),
            };
            self.socket.feed(message).await.map_err(broken)?;
            self.owed = Owed::Flush;
        }
        if self.owed == Owed::Flush {
            self.socket.flush().await.map_err(broken)?;
            self.owed = Owed::Nothing;
        }
        Ok(())
    }

    /// Why writing failed: the edge's close frame, if there is one to read.
    async fn last_words(&mut self, error: String) -> Closed {
        let read = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(said)))) => return Some(Closed::from(said)),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        let said = timeout(Duration::from_secs(1), read).await.ok().flatten();
        let closed = said.unwrap_or_else(|| Closed::broken(error));
        self.closed = Some(closed.clone());
        closed
    }
}
