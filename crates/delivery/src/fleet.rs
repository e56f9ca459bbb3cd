//! What an edge asks of the transport between edges: who else is there, and
//! what they say. It is for operators and for presence; no message depends
//! on it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::signal::SignalError;

/// Another edge that was heard of and has not said that it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: Box<str>,
    /// Whether it was heard of in the last seconds.
    pub alive: bool,
    /// Whether it takes connections or is about to, as far as is known.
    pub takes_connections: bool,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Every other edge.
    Others,
    /// The edge with this name.
    One(Box<str>),
}

/// What other edges are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// One of [`Office::operations`].
    pub operation: &'static str,
    /// Who is asked.
    pub to: To,
    /// JSON, as the edges agree on it for this operation.
    pub body: Bytes,
}

/// What came within the bounded wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// By edge; what went wrong there in the place of an answer.
    pub given: Vec<(Box<str>, Result<Bytes, String>)>,
    /// Edges that are known and did not answer.
    pub missing: Vec<Box<str>>,
}

/// For whom an answer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The edge that answers.
    Edge,
    /// All edges: the one that answers asks the others.
    Fleet,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct Refusal {
    /// An HTTP status, which the service protocol uses too.
    pub status: u16,
    /// For whoever asked; one line.
    pub message: String,
}

/// Answers questions about this edge and its fleet.
pub trait Office: Send + Sync + 'static {
    /// What can be asked: names of `[a-z_]`, each with a sentence about it.
    fn operations(&self) -> Vec<(&'static str, &'static str)>;
    /// Answers one of them. Bounded in time by the implementation.
    fn answer(
        &self,
        scope: Scope,
        operation: &str,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>>;
    /// The edge's numbers as JSON, at once.
    fn numbers(&self) -> Bytes;
    /// Whether the edge takes connections or is about to.
    fn takes_connections(&self) -> bool;
}

/// The other edges of a deployment.
pub trait Fleet: Send + Sync + 'static {
    /// Who was heard of, in ascending order of names, this edge left out.
    /// While this edge is cut off from the others, what was known stays.
    fn peers(&self) -> Vec<Peer>;
    /// Asks other edges, and waits for as long as those that are alive may
    /// take, at most about a second. While the transport is away, everybody
    /// is missing.
    fn ask(&self, question: Question) -> BoxFuture<'_, Answers>;
    /// Tells the others that this edge is there, and lets `office` answer
    /// what is asked of it, until the transport is closed or in trouble.
    fn serve(&self, office: Arc<dyn Office>) -> BoxFuture<'_, Result<(), SignalError>>;
    /// Tells the others that this edge is gone.
    fn leave(&self) -> BoxFuture<'_, ()>;
}
