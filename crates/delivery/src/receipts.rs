//! What each user has received and read, as the edge sees it.

use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, Device, UserId};

use crate::members::StoreFailure;

/// At most this many are counted as unread: it means "at least".
pub const UNREAD_COUNT_MAX: u32 = 1_000;

/// How far a device has come in a channel. Positions are cumulative: each
/// covers everything before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Whose.
    pub user: UserId,
    /// Which of the user's devices.
    pub device: Device,
    /// Where.
    pub channel: Channel,
    /// Everything up to here has arrived on the device.
    pub delivered: Option<Cursor>,
    /// Everything up to here has been read by the user.
    pub read: Option<Cursor>,
}

/// The stored positions after an [`Ack`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// Of this device.
    pub delivered: Option<Cursor>,
    /// Of the user: the furthest of all devices.
    pub read: Option<Cursor>,
    /// Whether `read` moved, so that the user's other devices should be told.
    pub read_moved: bool,
    /// What is unread now; counted only if `read` moved.
    pub unread: Option<Unread>,
}

/// What a user has not read in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The channel.
    pub channel: Channel,
    /// The furthest that any of the user's devices has read.
    pub read: Option<Cursor>,
    /// Messages of others after `read` (or since the user joined the room)
    /// among the [`UNREAD_COUNT_MAX`] newest of the archive.
    pub unread: u32,
    /// What `unread` counts up to; newer messages are not in the archive yet.
    pub counted_through: Option<Cursor>,
}

/// Delivered and read positions per user, device and channel.
pub trait Receipts: Send + Sync + 'static {
    /// Moves a device's positions forward; one that lies behind the stored
    /// one changes nothing. Durable when it returns; concurrent calls share
    /// transactions. `Refused` for a position of another shard, `Unavailable`
    /// for an epoch that the archive does not know (yet).
    fn ack(&self, ack: Ack) -> BoxFuture<'_, Result<Acked, StoreFailure>>;
    /// Where a device that remembers nothing goes on: its stored delivered
    /// position, or `None` if it never acknowledged anything there.
    fn position(
        &self,
        user: UserId,
        device: Device,
        channel: Channel,
    ) -> BoxFuture<'_, Result<Option<Cursor>, StoreFailure>>;
    /// What the user has not read in one channel. Concurrent questions share
    /// queries.
    fn unread(&self, user: UserId, channel: Channel)
    -> BoxFuture<'_, Result<Unread, StoreFailure>>;
    /// The same for the user's inbox and rooms and every other channel in
    /// which the user has acknowledged something (at most 1,000 channels),
    /// ascending by channel.
    fn inbox(&self, user: UserId) -> BoxFuture<'_, Result<Vec<Unread>, StoreFailure>>;
}
