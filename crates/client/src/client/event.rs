//! What a client tells its application.

use std::time::Duration;

use protocol::frame::{ErrorBody, Messages, Receipt, Reset, Signal, UnsubscribeReason};
use protocol::{Channel, Cursor};

use crate::Closed;

/// What happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client's state changed.
    State(State),
    /// A channel is listened to, for the first time or again: this is its position. Store it.
    Subscribed {
        /// The channel.
        channel: Channel,
        /// Where it starts.
        cursor: Cursor,
        /// Messages that the user has not read, where known.
        unread: u64,
    },
    /// New messages of a channel, in order, each once. Store the cursor of the last one (the batch's epoch and its
    /// `seq`) together with their effect.
    Messages(Messages),
    /// Everything up to here has been replayed.
    Live {
        /// The channel.
        channel: Channel,
        /// Its position.
        cursor: Cursor,
    },
    /// What lies between the position and `head` is lost to this client: reload.
    Reset(Reset),
    /// A channel is no longer listened to.
    Unsubscribed {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: UnsubscribeReason,
    },
    /// A channel cannot be listened to, for good.
    SubscribeFailed {
        /// The channel.
        channel: Channel,
        /// The edge's error.
        error: ErrorBody,
    },
    /// A signal of somebody else.
    Signal(Signal),
    /// Another device of this user acknowledged something; or, named as this device's own after it has subscribed, how
    /// much of the channel the user has not read.
    Receipt(Receipt),
    /// The edge left out a message. It is a defect of the edge; the client has connected again from `position`, so
    /// nothing is lost.
    Gap {
        /// The channel.
        channel: Channel,
        /// The last position before the hole.
        position: Cursor,
        /// What should have come before the next message.
        prev: u64,
    },
}

/// How a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is opening a connection.
    Connecting,
    /// It is connected, and something is still being replayed.
    CatchingUp,
    /// It is connected, and every channel is live.
    Live,
    /// It has no connection, and tries again.
    Offline {
        /// Why.
        reason: String,
        /// The next try.
        retry_in: Duration,
    },
    /// It gave up: an edge said not to come back (4500 to 4999). The last event.
    Closed(Closed),
}
