//! What all edges have to agree on about who is let in: which tokens were
//! revoked, and which tickets were used.

use futures_util::future::BoxFuture;
use protocol::UserId;

use crate::members::StoreFailure;

/// Longest id of a token (`jti`) that can be revoked, in bytes: four times a
/// UUID and more. A bound, because every edge keeps every revocation.
pub const TOKEN_ID_MAX_BYTES: usize = 256;

/// What a revocation concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// All of a user's tokens that were issued before some time.
    User(UserId),
    /// The one token with this id (`jti`), 1 to [`TOKEN_ID_MAX_BYTES`] bytes.
    Token(Box<str>),
}

/// Tokens that are no longer accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub revoked: Revoked,
    /// A user's tokens issued before this are not accepted, in milliseconds
    /// since the Unix epoch. For a single token: when it was revoked.
    pub before_ms: i64,
    /// When all of these tokens have expired by themselves, in milliseconds
    /// since the Unix epoch; then the revocation is forgotten.
    pub expires_ms: i64,
}

/// A change of what is revoked, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationEvent {
    /// Everything that is revoked now: what is not in it is not revoked.
    All(Vec<Revocation>),
    /// One more, or one that reaches further.
    Revoked(Revocation),
    /// Taken back.
    Lifted(Revoked),
}

/// Every edge's view of revocations.
pub trait RevocationWatch: Send {
    /// The next change; waits for as long as there is none, and reconnects by
    /// itself. The first event is `All`, and so is the one after every
    /// interruption, so that none is missed. Dropping the future loses
    /// nothing.
    fn next(&mut self) -> BoxFuture<'_, RevocationEvent>;
}

/// The memory that edges share, and that outlives them.
pub trait AccessRecords: Send + Sync + 'static {
    /// Revokes; durable when it returns, and told to every
    /// [`RevocationWatch`] within a second. Of two revocations of the same,
    /// the later time stands. Returns what stands. `Refused` when there are
    /// as many as edges can keep.
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<Revocation, StoreFailure>>;
    /// Takes a revocation back; whether there was one.
    fn lift(&self, revoked: Revoked) -> BoxFuture<'_, Result<bool, StoreFailure>>;
    /// A view of what is revoked and all later changes.
    fn watch(&self) -> Box<dyn RevocationWatch>;
    /// Notes that a ticket was used; `false` if it was before, on whichever
    /// edge. It may be forgotten some minutes after `expires_ms`
    /// (milliseconds since the Unix epoch). Concurrent calls share queries.
    fn take_ticket(
        &self,
        id: Box<str>,
        expires_ms: i64,
    ) -> BoxFuture<'_, Result<bool, StoreFailure>>;
}
