//! What happened, on one monotonic clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::frame::ResetReason;
use protocol::{Channel, Cursor, Epoch};

/// A subscriber over all of its connections; it has one subscription.
pub type ClientId = u32;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the history began.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What a publisher tries to store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Where to.
    pub channel: Channel,
    /// Under which id; the same for every try.
    pub id: Arc<str>,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A try to publish begins.
    Publish {
        /// The message.
        message: Message,
        /// Its payload; the same for every try.
        content: Arc<str>,
    },
    /// A try was acknowledged.
    Acked {
        /// The message.
        message: Message,
        /// Its position.
        cursor: Cursor,
    },
    /// The answer to a try says that it stored nothing.
    Refused {
        /// The message.
        message: Message,
    },
    /// A try had no answer, or one that leaves it open.
    Unknown {
        /// The message.
        message: Message,
    },
    /// A client asks for its channel: a session begins.
    Subscribe {
        /// Who.
        client: ClientId,
        /// What it listens to.
        channel: Channel,
        /// After which position; `None`: from the tail.
        from: Option<Cursor>,
    },
    /// The answer to [`What::Subscribe`].
    Subscribed {
        /// Who.
        client: ClientId,
        /// Where it stands.
        cursor: Cursor,
    },
    /// A message arrived.
    Received {
        /// Who.
        client: ClientId,
        /// Its position.
        cursor: Cursor,
        /// What the edge says came before it in the channel; 0: not said.
        prev: u64,
        /// Its id, if it has one.
        id: Option<Arc<str>>,
        /// Its payload.
        content: Arc<str>,
    },
    /// The replay is over.
    Live {
        /// Who.
        client: ClientId,
        /// Where it stands.
        cursor: Cursor,
    },
    /// A ping moved the position.
    Moved {
        /// Who.
        client: ClientId,
        /// Where to.
        cursor: Cursor,
    },
    /// Continuity is said to be lost.
    Reset {
        /// Who.
        client: ClientId,
        /// Why.
        reason: ResetReason,
        /// Where it goes on.
        head: Cursor,
    },
    /// The client stored its position with the effect of everything up to there.
    Persisted {
        /// Who.
        client: ClientId,
        /// The position.
        cursor: Cursor,
    },
    /// The session ended, however.
    Disconnected {
        /// Who.
        client: ClientId,
    },
    /// The client goes for good: what comes later is not for it.
    Left {
        /// Who.
        client: ClientId,
    },
    /// A fault begins.
    Fault {
        /// Which.
        name: Arc<str>,
    },
    /// The fault is over, the system has to recover.
    Healed,
    /// The stream of this epoch was destroyed.
    EpochEnded {
        /// Which.
        epoch: Epoch,
        /// Whether everything of it was in the archive before. If so, nothing of it may be lost, and nobody needs a reset.
        archived: bool,
    },
    /// What is at or before this position may have left every log, as retention is configured.
    Forgotten {
        /// The last position that may be gone.
        through: Cursor,
    },
}

/// Writes a history; clones write to the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    begin: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty history that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            events: Arc::default(),
        }
    }

    /// Notes an event. The order of the notes is that of their times.
    pub fn note(&self, what: What) {
        let mut events = self.events.lock();
        // Inside the lock, so that times ascend.
        let at = self.begin.elapsed();
        events.push(Event { at, what });
    }

    /// Time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// What was noted so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }
}
