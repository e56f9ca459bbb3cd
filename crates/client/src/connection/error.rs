//! Why there is no connection, no reply, or no connection any more.

use protocol::CloseCode;
use protocol::frame::ErrorBody;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("closed {}: {reason}", code.map_or_else(|| "without a code".to_owned(), |code| code.to_string()))]
pub struct Closed {
    /// The code of the edge's close frame; nothing when the connection broke without one.
    pub code: Option<u16>,
    /// What the edge said, or what broke.
    pub reason: String,
}

impl Closed {
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self {
            code: None,
            reason: reason.into(),
        }
    }

    /// The code, if it is one that the protocol names.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        self.code.and_then(CloseCode::from_u16)
    }

    /// Whether to connect again: everything but 4500 to 4999.
    #[must_use]
    pub fn comes_back(&self) -> bool {
        !matches!(self.code, Some(4500..=4999))
    }
}

impl From<CloseFrame> for Closed {
    fn from(frame: CloseFrame) -> Self {
        Self {
            code: Some(frame.code.into()),
            reason: frame.reason.to_string(),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Only `ws://host[:port]/path` is understood.
    #[error("{0}")]
    Url(String),
    /// The token has no length that a token can have.
    #[error("a token has 1 to 8192 bytes")]
    Token,
    /// No TCP connection.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The server answered the handshake with an HTTP status.
    #[error("HTTP {status}: {body}")]
    Http {
        /// The status.
        status: u16,
        /// The body, as far as it came with the head.
        body: String,
    },
    /// What came is not a WebSocket handshake.
    #[error("handshake: {0}")]
    Handshake(String),
    /// It took too long.
    #[error("no connection within the timeout")]
    Timeout,
    /// The edge refused the `connect` frame.
    #[error("{}: {}; {closed}", error.code, error.message)]
    Rejected {
        /// Its error.
        error: ErrorBody,
        /// How it closed then.
        closed: Closed,
    },
    /// The edge closed instead of answering.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// Something else than `connected` came first.
    #[error("a {0} frame instead of connected")]
    Unexpected(&'static str),
}

/// Why a request has no good reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The edge answered with an error.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(ErrorBody),
    /// The connection is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The reply is one to another kind of request.
    #[error("a {0} frame as reply")]
    Unexpected(&'static str),
}

impl RequestError {
    /// The edge's error, if it answered with one.
    #[must_use]
    pub fn refused(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Closed(_) | Self::Unexpected(_) => None,
        }
    }
}
