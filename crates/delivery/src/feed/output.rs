//! What comes out of a feed.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Channel, Cursor, Epoch};

use crate::log::PageError;
use crate::message::Entries;
use crate::reader::Reset;
use crate::signal::Signal;

/// What a feed has for its connection, in the order in which it is sent.
#[derive(Debug)]
pub enum Output {
    /// A subscription's start is resolved. Comes before anything else of it.
    Subscribed {
        /// The channel.
        channel: Channel,
        /// What the subscriber passed along.
        tag: u32,
        /// Its shard.
        shard: u16,
        /// Where the subscription starts.
        cursor: Cursor,
        /// The shard's head.
        head: Cursor,
    },
    /// A subscription could not start, and does not exist.
    Refused {
        /// The channel.
        channel: Channel,
        /// What the subscriber passed along.
        tag: u32,
        /// Why.
        error: PageError,
    },
    /// Messages, ascending and without a gap.
    Messages {
        /// The channel.
        channel: Channel,
        /// The epoch of all of them.
        epoch: Epoch,
        /// At least one.
        entries: Entries,
        /// Whether the subscription was live before: nobody waited for older
        /// ones, so only these tell how fast messages arrive.
        live: bool,
    },
    /// Everything that was missed has been handed out.
    Live {
        /// The channel.
        channel: Channel,
        /// The position now.
        cursor: Cursor,
    },
    /// Continuity is broken; the subscription goes on at the reset's head.
    Reset {
        /// The channel.
        channel: Channel,
        /// Why, and where it goes on.
        reset: Reset,
    },
    /// The log cannot be read for the time being. The subscription goes on
    /// by itself; told once until it moves again.
    Delayed {
        /// The channel.
        channel: Channel,
        /// When the log is asked again.
        retry_after: Duration,
    },
    /// A signal of somebody who is on the channel now.
    Signal(Arc<Signal>),
}

/// Why a channel could not be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The connection has as many subscriptions as it may.
    #[error("a connection may have {max} subscriptions")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The channel is subscribed to already.
    #[error("already subscribed")]
    Already,
}

impl Output {
    /// The channel that it is about.
    pub fn channel(&self) -> &Channel {
        match self {
            Self::Subscribed { channel, .. }
            | Self::Refused { channel, .. }
            | Self::Messages { channel, .. }
            | Self::Live { channel, .. }
            | Self::Reset { channel, .. }
            | Self::Delayed { channel, .. } => channel,
            Self::Signal(signal) => &signal.channel,
        }
    }
}

/// Where one subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its channel.
    pub channel: Channel,
    /// Everything up to here has been handed out.
    pub position: Cursor,
    /// Whether everything that was missed had been handed out once.
    pub live: bool,
    /// Messages of the channel after the position; `None` where these are
    /// more than the window holds.
    pub lag: Option<usize>,
}
