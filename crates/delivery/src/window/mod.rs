//! A window shared by the task that fills it and the readers of all
//! connections.

mod intake;
mod state;
mod wake;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use protocol::{Cursor, Epoch};
use tokio::sync::watch;

pub use intake::fill;
pub use state::{ReadLimit, Registration, WindowRead, WindowState};
pub(crate) use wake::{ReaderHandle, WakeSet};

/// A moment's measurements of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStats {
    /// Epoch and newest sequence.
    pub head: Cursor,
    /// Everything after this sequence is held.
    pub floor: u64,
    /// Messages held.
    pub messages: usize,
    /// Bytes they are charged at.
    pub bytes: usize,
    /// Channels with a message or a reader.
    pub channels: usize,
    /// Readers of all channels together.
    pub readers: usize,
    /// When the oldest held message was stored, in milliseconds since the
    /// Unix epoch.
    pub oldest_time_ms: Option<i64>,
    /// How often the window had to begin anew since the process started.
    pub restarts: u64,
}

/// The newest part of one shard's stream in memory.
#[derive(Debug)]
pub struct Window {
    shard: u16,
    state: Mutex<WindowState<ReaderHandle>>,
    filled: watch::Sender<bool>,
    restarts: AtomicU64,
}

impl Window {
    /// An empty window of a shard, of at most `max_bytes`, to be filled by
    /// [`fill`].
    pub fn new(shard: u16, max_bytes: usize) -> Self {
        let nowhere = Cursor::new(Epoch(0), 0);
        Self {
            shard,
            state: Mutex::new(WindowState::new(nowhere, max_bytes)),
            filled: watch::Sender::new(false),
            restarts: AtomicU64::new(0),
        }
    }

    /// Which shard it is of.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Epoch and newest sequence.
    pub fn head(&self) -> Cursor {
        self.state.lock().head()
    }

    /// Whether the window has caught up with the stream since the process
    /// started. Subscriptions before that would all go to the log.
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Waits until [`Self::is_filled`].
    pub async fn wait_filled(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// A moment's measurements.
    pub fn stats(&self) -> WindowStats {
        let state = self.state.lock();
        WindowStats {
            head: state.head(),
            floor: state.floor(),
            messages: state.len(),
            bytes: state.bytes(),
            channels: state.channel_count(),
            readers: state.reader_count(),
            oldest_time_ms: state.oldest_time_ms(),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, WindowState<ReaderHandle>> {
        self.state.lock()
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn mark_filled(&self) {
        self.filled
            .send_if_modified(|filled| !std::mem::replace(filled, true));
    }
}
