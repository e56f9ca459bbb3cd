//! The delivery side of one edge: its windows and the logs below them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use protocol::{Channel, Cursor, UserId};

use crate::catch_up::CatchUp;
use crate::feed::Feed;
use crate::log::{Log, PageError, Stream};
use crate::receipts::Unread;
use crate::signal::Signal;
use crate::stats::Counters;
use crate::window::{ReadLimit, Window};

/// Bounds of delivery, per edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Bytes of messages that each shard's window keeps.
    pub window_bytes: usize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Messages handed to a connection at a time; also the size of a page
    /// of the log. What is handed out waits in memory for the socket.
    pub batch_messages: usize,
    /// Payload bytes handed to a connection at a time.
    pub batch_bytes: usize,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        // 256 messages and 256 KiB are what one batched read of the stream
        // gives; a page is replayed in well under a millisecond, so larger
        // ones would only cost memory.
        Self {
            window_bytes: 64 * 1024 * 1024,
            subscriptions: 128,
            batch_messages: 256,
            batch_bytes: 256 * 1024,
        }
    }
}

/// Readers that are looked at to say who reads a channel: their users fill a
/// `presence` frame, and the window is locked for some 0.1 ms.
const AUDIENCE_MAX: usize = 2_048;

/// Who reads a channel on one edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// How many readers it has.
    pub readers: usize,
    /// Whose they are, in ascending order, each user once.
    pub users: BTreeSet<UserId>,
    /// Whether there are more readers than were looked at for the users.
    pub more: bool,
}

/// A cheap handle to the windows of all shards and the logs below them.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    windows: Box<[Arc<Window>]>,
    catch_up: CatchUp,
    counters: Arc<Counters>,
    limits: DeliveryLimits,
    began: Instant,
}

impl Hub {
    /// Empty windows for `shards` shards (at least 1), to be filled by
    /// [`crate::window::fill`].
    pub fn new(
        shards: u16,
        archive: Option<Arc<dyn Log>>,
        stream: Arc<dyn Stream>,
        limits: DeliveryLimits,
    ) -> Self {
        let windows = (0..shards.max(1))
            .map(|shard| Arc::new(Window::new(shard, limits.window_bytes)))
            .collect();
        let counters = Arc::new(Counters::default());
        let catch_up = CatchUp::new(archive, stream, Arc::clone(&counters));
        Self {
            shared: Arc::new(Shared {
                windows,
                catch_up,
                counters,
                limits,
                began: Instant::now(),
            }),
        }
    }

    /// The readers of a new connection; a user's are shown as present.
    pub fn feed(&self, user: Option<UserId>) -> Feed {
        Feed::new(self.clone(), user)
    }

    /// Who reads a channel here.
    pub fn audience(&self, channel: &Channel) -> Audience {
        let state = self.window_of(channel).lock();
        let readers = state.reader_count_of(channel);
        let seen = state.readers(channel).take(AUDIENCE_MAX);
        Audience {
            readers,
            users: seen
                .filter_map(|reader| reader.set.user().cloned())
                .collect(),
            more: readers > AUDIENCE_MAX,
        }
    }

    /// The windows, by shard.
    pub fn windows(&self) -> &[Arc<Window>] {
        &self.shared.windows
    }

    /// The window that holds a channel.
    pub fn window_of(&self, channel: &Channel) -> &Arc<Window> {
        let shards = self.shared.windows.len();
        let shard = usize::from(channel.shard(u16::try_from(shards).unwrap_or(u16::MAX)));
        // A shard is below the number of windows, of which there is one.
        &self.shared.windows[shard % shards]
    }

    /// Epoch and newest sequence of a channel's shard, as this edge knows it.
    pub fn head_of(&self, channel: &Channel) -> Cursor {
        self.window_of(channel).head()
    }

    /// Adds what the archive has not seen yet to a count of unread messages.
    pub fn complete_unread(&self, unread: &Unread, user: &UserId) -> u64 {
        let archived = u64::from(unread.unread);
        let Some(counted) = unread.counted_through else {
            return archived;
        };
        // What was read on another device meanwhile is not counted either.
        let after = match unread.read {
            Some(read) if read.epoch == counted.epoch && read.seq > counted.seq => read,
            Some(_) | None => counted,
        };
        let state = self.window_of(&unread.channel).lock();
        let newer = state.count_of_others(&unread.channel, after, user);
        archived + newer.map_or(0, |count| count as u64)
    }

    /// Hands a signal to every subscriber of its channel on this edge.
    pub fn signal(&self, signal: Signal) {
        let signal = Arc::new(signal);
        let state = self.window_of(&signal.channel).lock();
        for reader in state.readers(&signal.channel) {
            reader.set.signal(Arc::clone(&signal));
        }
    }

    /// Whether every window has caught up with its stream.
    pub fn is_filled(&self) -> bool {
        self.shared.windows.iter().all(|window| window.is_filled())
    }

    /// The logs below the windows.
    pub fn catch_up(&self) -> &CatchUp {
        &self.shared.catch_up
    }

    /// The position from which the channel's `count` newest messages at or
    /// before `through` follow, over window and logs together.
    pub async fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> Result<Cursor, PageError> {
        let (below, held) = {
            let state = self.window_of(&channel).lock();
            match state.before_last_through(&channel, through, count) {
                Some(Ok(cursor)) => return Ok(cursor),
                Some(Err(held)) => (Cursor::new(through.epoch, state.floor()), held),
                None => (through, 0),
            }
        };
        self.catch_up()
            .before_last(channel, below, count - held)
            .await
    }

    /// What delivery has done so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The bounds of delivery.
    pub fn limits(&self) -> DeliveryLimits {
        self.shared.limits
    }

    /// For how long it exists, in milliseconds; wraps.
    pub(crate) fn age_ms(&self) -> u32 {
        self.shared.began.elapsed().as_millis() as u32
    }

    pub(crate) fn read_limit(&self) -> ReadLimit {
        ReadLimit {
            messages: self.shared.limits.batch_messages,
            bytes: self.shared.limits.batch_bytes,
        }
    }
}
