//! What the edge asks of the transport of things that are never stored:
//! signals between users and control messages between edges. Delivery is at
//! most once: while the backplane is away they are lost.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use protocol::{Channel, UserId};

/// Something that matters only now: typing, a pointer on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The channel whose subscribers get it.
    pub channel: Channel,
    /// The application's type of the signal, possibly empty.
    pub kind: Box<str>,
    /// The user who sent it; `None` for services.
    pub sender: Option<UserId>,
    /// The payload.
    pub data: Bytes,
}

/// A message from one edge to all edges, itself included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// What it is about: one or more tokens of `[A-Za-z0-9_-]`, joined by
    /// dots, at most 128 bytes: `revoke`, `members.changed`.
    pub name: Box<str>,
    /// JSON, as the edges agree on it for this name.
    pub body: Bytes,
}

/// Not sent; nothing was queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not sent: {reason}")]
pub struct SignalError {
    /// For the operator's log.
    pub reason: String,
}

/// Sends signals and receives those of all channels.
pub trait Signals: Send + Sync + 'static {
    /// Hands a signal to the transport; returning says nothing about anyone
    /// having received it.
    fn send(&self, signal: Signal) -> BoxFuture<'_, Result<(), SignalError>>;
    /// All signals from now on, this edge's own included.
    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Incoming<Signal>>, SignalError>>;
}

/// Sends control messages and receives those of all edges.
pub trait Controls: Send + Sync + 'static {
    /// Hands a control message to the transport.
    fn send(&self, control: Control) -> BoxFuture<'_, Result<(), SignalError>>;
    /// All control messages from now on, this edge's own included.
    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Incoming<Control>>, SignalError>>;
}

/// What arrives, one by one. It survives reconnects; what was sent meanwhile
/// is lost, and so is what a reader too slow to keep up has not taken.
pub trait Incoming<T>: Send {
    /// The next one; `None` when the backplane is closed. Dropping the future
    /// loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Option<T>>;
}
