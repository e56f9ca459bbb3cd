//! Who is in which room, as the edge sees it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use protocol::{Channel, UserId};

/// The namespace whose channels are governed by membership.
pub const ROOM_NAMESPACE: &str = "room";

/// The store could not answer, or would not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// Not now; for a change: not known whether it was made, and making it
    /// again is safe.
    #[error("unavailable, retry in {} ms: {reason}", retry_after.as_millis())]
    Unavailable {
        /// When to ask again.
        retry_after: Duration,
        /// For the operator's log.
        reason: String,
    },
    /// Not this request, now or later.
    #[error("refused: {reason}")]
    Refused {
        /// For the caller.
        reason: String,
    },
}

/// Part of a list in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// Ascending.
    pub items: Vec<T>,
    /// Whether more come after the last item.
    pub more: bool,
}

/// A change to a room's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// The user may now see the room.
    Added {
        /// The room's channel.
        room: Channel,
        /// Who.
        user: UserId,
    },
    /// The user may no longer see the room.
    Removed {
        /// The room's channel.
        room: Channel,
        /// Who.
        user: UserId,
    },
    /// Changes may have been missed: ask again about every membership that
    /// matters here.
    Resync,
}

/// Every edge's view of membership changes, whoever makes them (an edge or
/// the application in its own transaction).
pub trait MemberWatch: Send {
    /// The next change; waits for as long as there is none and reconnects by
    /// itself. The first event is `Resync`. Dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, MemberEvent>;
}

/// Room membership. A room is the id part of a channel `room:<id>`.
///
/// Every change is durable when it returns and reaches every
/// [`MemberWatch`] within a second.
pub trait Members: Send + Sync + 'static {
    /// Adds users to a room (at most 10,000); returns how many were new.
    fn add(&self, room: Channel, users: Vec<UserId>) -> BoxFuture<'_, Result<u64, StoreFailure>>;
    /// Removes users from a room (at most 10,000); returns how many were in it.
    fn remove(&self, room: Channel, users: Vec<UserId>)
    -> BoxFuture<'_, Result<u64, StoreFailure>>;
    /// Whether a user is in a room. Concurrent questions share queries.
    fn contains(&self, room: Channel, user: UserId) -> BoxFuture<'_, Result<bool, StoreFailure>>;
    /// The users of a room in ascending order after `after`, at most `limit`
    /// (1 to 1,000).
    fn members(
        &self,
        room: Channel,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing<UserId>, StoreFailure>>;
    /// The rooms of a user in ascending order after `after`, at most `limit`
    /// (1 to 1,000).
    fn rooms(
        &self,
        user: UserId,
        after: Option<Channel>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing<Channel>, StoreFailure>>;
    /// A view of all later changes.
    fn watch(&self) -> Box<dyn MemberWatch>;
}
