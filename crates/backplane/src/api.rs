//! The JetStream API as raw JSON requests, each with our own timeout.

use std::time::Duration;

use async_nats::{Client, Message, Request};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// JetStream error codes that mean something to us.
pub(crate) mod code {
    pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
    pub(crate) const STREAM_NAME_IN_USE: u64 = 10058;
    pub(crate) const CONSUMER_NOT_FOUND: u64 = 10014;
    pub(crate) const NO_MESSAGE_FOUND: u64 = 10037;
    pub(crate) const JETSTREAM_NOT_ENABLED: u64 = 10076;
    pub(crate) const JETSTREAM_NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    pub(crate) const MESSAGE_TOO_LARGE: u64 = 10054;
    pub(crate) const EXPECTED_STREAM_DIFFERS: u64 = 10060;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
    /// The same where the server does not name the sequence.
    pub(crate) const WRONG_LAST_SEQUENCE_PLAIN: u64 = 10164;
    /// "maximum bytes exceeded" and its like.
    pub(crate) const STORE_FAILED: u64 = 10077;
    pub(crate) const INSUFFICIENT_RESOURCES: u64 = 10023;
    pub(crate) const STORAGE_RESOURCES_EXCEEDED: u64 = 10047;
    pub(crate) const ACCOUNT_RESOURCES_EXCEEDED: u64 = 10002;
    /// "no suitable peers for placement": too few servers are up yet.
    pub(crate) const NO_PEERS: u64 = 10005;
    /// "JetStream system temporarily unavailable": no leader.
    pub(crate) const CLUSTER_NOT_AVAILABLE: u64 = 10008;
}

/// Why an API call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    /// No answer in time: server away, leader being elected, answer lost.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Nobody listens: JetStream is off, or its leader is away.
    #[error("JetStream does not answer (not enabled, or without a leader)")]
    NoResponders,
    /// A new or lonely leader says that the stream ends before what is known
    /// to be in it.
    #[error("the stream's leader is behind what was acknowledged")]
    Behind,
    /// The connection is closed for good, or the request was not sendable.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request is larger than the server takes.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The server's own error.
    #[error("{description} ({code})")]
    Server {
        /// JetStream's `err_code`.
        code: u64,
        /// The server's text.
        description: String,
    },
    /// An answer that is not what was asked for.
    #[error("unexpected answer: {0}")]
    Malformed(String),
}

impl ApiError {
    /// Whether the server answered with this error code.
    pub(crate) fn is(&self, expected: u64) -> bool {
        matches!(self, Self::Server { code, .. } if *code == expected)
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct ErrorProbe {
    error: Option<ErrorBody>,
}

/// Sends one request and waits for its one answer. The timeout covers the
/// way into the connection too, which is blocked while it is down.
pub(crate) async fn request(
    client: &Client,
    subject: String,
    request: Request,
    timeout: Duration,
) -> Result<Message, ApiError> {
    let call = client.send_request(subject, request.timeout(None));
    match tokio::time::timeout(timeout, call).await {
        Err(_elapsed) => Err(ApiError::Timeout(timeout)),
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) => Err(match error.kind() {
            async_nats::RequestErrorKind::NoResponders => ApiError::NoResponders,
            async_nats::RequestErrorKind::TimedOut => ApiError::Timeout(timeout),
            async_nats::RequestErrorKind::MaxPayloadExceeded => {
                ApiError::TooLarge(error.to_string())
            }
            async_nats::RequestErrorKind::InvalidSubject | async_nats::RequestErrorKind::Other => {
                ApiError::NotSent(error.to_string())
            }
        }),
    }
}

/// Calls `$JS.API.<method>` with a JSON body.
pub(crate) async fn call<T: DeserializeOwned>(
    client: &Client,
    method: String,
    body: &Value,
    timeout: Duration,
) -> Result<T, ApiError> {
    let payload = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    let sent = Request::new().payload(payload);
    let answer = request(client, format!("$JS.API.{method}"), sent, timeout).await?;
    decode(&answer.payload)
}

/// Reads an answer: the server's error, or the value.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ApiError> {
    let malformed = |error: serde_json::Error| ApiError::Malformed(error.to_string());
    let probe: ErrorProbe = serde_json::from_slice(payload).map_err(malformed)?;
    if let Some(error) = probe.error {
        return Err(ApiError::Server {
            code: error.err_code,
            description: error.description,
        });
    }
    serde_json::from_slice(payload).map_err(malformed)
}

/// The parts of a stream's state that we use.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StateBody {
    #[serde(default)]
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) first_seq: u64,
    #[serde(default)]
    pub(crate) last_seq: u64,
}

/// A stream's description. The configuration stays raw JSON, so that writing
/// it back does not lose what this program does not know.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: Value,
    pub(crate) created: String,
    pub(crate) state: StateBody,
    /// Nothing from a server without a cluster.
    #[serde(default)]
    pub(crate) cluster: Option<ClusterBody>,
    /// The server's time of the answer (RFC 3339).
    #[serde(default)]
    pub(crate) ts: Option<String>,
}

/// The leader's view of its group.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ClusterBody {
    /// Since when it leads, by the server's time (RFC 3339).
    #[serde(default)]
    pub(crate) leader_since: Option<String>,
    /// The other servers that hold the stream.
    #[serde(default)]
    pub(crate) replicas: Vec<PeerBody>,
}

/// A follower as its leader sees it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PeerBody {
    #[serde(default)]
    pub(crate) offline: bool,
    /// Since it was heard of, in nanoseconds.
    #[serde(default)]
    pub(crate) active: i64,
}

impl StreamInfo {
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.config.get("metadata")?.get(key)?.as_str()
    }
}

/// A consumer's delivery position.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SequencePair {
    #[serde(default)]
    pub(crate) stream_seq: u64,
}

/// The parts of a consumer's description that we use.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ConsumerInfo {
    pub(crate) delivered: SequencePair,
    pub(crate) ack_floor: SequencePair,
    #[serde(default)]
    pub(crate) num_waiting: u64,
}

/// An answer of which only the success counts.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Success {
    #[serde(default)]
    pub(crate) success: bool,
}
