//! What operators do with a running fleet, over NATS and over HTTP alike.
//!
//! - [`Operation`]: what can be done;
//! - `requests`: what each is asked with;
//! - `here`: what this edge alone answers, and does;
//! - `report`: an edge in numbers;
//! - `fleet`: every edge's answer put together, and who did not answer.

mod fleet;
mod here;
mod report;
mod requests;

use std::sync::Arc;

use bytes::Bytes;
use delivery::fleet::{Fleet, Office, Refusal, Scope};
use futures_util::future::BoxFuture;
use protocol::ErrorCode;

use crate::Edge;
use crate::http::error::ApiError;

pub(crate) use fleet::{Present, present};
pub use report::Report;

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The edges in numbers.
    Edges,
    /// A user's connections.
    Connections,
    /// Connections whose clients do not read.
    Slow,
    /// A channel's head, readers and users.
    Channel,
    /// Close connections.
    Disconnect,
    /// Send an edge's connections away.
    Drain,
    /// Take connections again.
    Undrain,
    /// What is logged.
    Log,
    /// Store a message.
    Publish,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 9] = [
        Self::Edges,
        Self::Connections,
        Self::Slow,
        Self::Channel,
        Self::Disconnect,
        Self::Drain,
        Self::Undrain,
        Self::Log,
        Self::Publish,
    ];

    /// Its name in subjects and paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Connections => "connections",
            Self::Slow => "slow",
            Self::Channel => "channel",
            Self::Disconnect => "disconnect",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Log => "log",
            Self::Publish => "publish",
        }
    }

    /// The operation with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// A line about it for `nats micro info`.
    pub fn about(self) -> &'static str {
        match self {
            Self::Edges => "{}: every edge in numbers",
            Self::Connections => r#"{"user":"42"}: the user's connections"#,
            Self::Slow => "{}: connections whose clients do not read",
            Self::Channel => r#"{"channel":"room:7"}: head, readers and users"#,
            Self::Disconnect => r#"{"user":"42"} or {"session":"edge-1-7"}: close connections"#,
            Self::Drain => r#"{"edge":"edge-1","spread_ms":10000}: send connections away"#,
            Self::Undrain => r#"{"edge":"edge-1"}: take connections again"#,
            Self::Log => r#"{"filter":"info,edge=debug","edge":"edge-1"}: what is logged"#,
            Self::Publish => r#"{"channel":"user:42","data":{}}: store a message"#,
        }
    }

    /// Whether asking changes nothing.
    pub fn is_read(self) -> bool {
        match self {
            Self::Edges | Self::Connections | Self::Slow | Self::Channel => true,
            Self::Disconnect | Self::Drain | Self::Undrain | Self::Log | Self::Publish => false,
        }
    }
}

/// What a process logs, while it runs.
pub trait LogFilter: Send + Sync + 'static {
    /// The directives in effect.
    fn get(&self) -> String;
    /// Other directives from now on; says what is wrong with them.
    fn set(&self, directives: &str) -> Result<(), String>;
}

impl Edge {
    /// Answers an operator for the whole fleet.
    pub async fn administer(&self, operation: Operation, body: &[u8]) -> Result<Bytes, ApiError> {
        fleet::administer(self, operation, body).await
    }
}

/// Answers other edges and operators, and tells the others that this edge is
/// there. Ends when the transport does.
pub async fn serve(edge: Edge, fleet: Arc<dyn Fleet>) {
    let office = Arc::new(EdgeOffice(edge));
    if let Err(error) = fleet.serve(office).await {
        tracing::warn!(%error, "other edges and operators cannot be answered yet");
    }
}

struct EdgeOffice(Edge);

impl Office for EdgeOffice {
    fn operations(&self) -> Vec<(&'static str, &'static str)> {
        let both = |it: Operation| (it.as_str(), it.about());
        Operation::ALL.map(both).to_vec()
    }

    fn answer(
        &self,
        scope: Scope,
        operation: &str,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        let operation = Operation::parse(operation);
        Box::pin(async move {
            let answer = match (operation, scope) {
                (None, _) => {
                    let message = "there is no such operation";
                    Err(ApiError::new(ErrorCode::NotFound, message))
                }
                (Some(operation), Scope::Fleet) => {
                    note(operation, "nats");
                    self.0.administer(operation, &body).await
                }
                (Some(operation), Scope::Edge) => {
                    here::answer_json(&self.0, operation, &body).await
                }
            };
            answer.map_err(|error| Refusal {
                status: error.status().as_u16(),
                message: format!("{}: {}", error.code(), error.message()),
            })
        })
    }

    fn numbers(&self) -> Bytes {
        fleet::json(&Report::of(&self.0)).unwrap_or_default()
    }

    fn takes_connections(&self) -> bool {
        self.0.drain().takes_connections()
    }
}

/// What changes something is in the log, and who asked; never with what.
pub(crate) fn note(operation: Operation, by: &str) {
    if !operation.is_read() {
        tracing::info!(operation = operation.as_str(), by, "admin");
    }
}
