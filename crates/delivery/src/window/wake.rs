//! Waking the readers of one connection: one bit per reader, one waker for
//! the connection's task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::UserId;

use crate::signal::Signal;

const WORD_BITS: usize = u64::BITS as usize;

/// The ready bits of a connection's readers. Setting a bit that is set costs
/// one atomic operation and wakes nobody twice.
#[derive(Debug)]
pub(crate) struct WakeSet {
    ready: Box<[AtomicU64]>,
    signals: Mutex<VecDeque<Arc<Signal>>>,
    waker: AtomicWaker,
    /// Who is shown as present where these readers are; services are not.
    user: Option<UserId>,
}

/// Signals that wait for one connection. They matter only now: a connection
/// that does not take them loses the oldest, as the protocol says.
const SIGNALS_MAX: usize = 32;

impl WakeSet {
    /// Room for `slots` readers of a user's connection, or of a service's.
    pub(crate) fn new(slots: usize, user: Option<UserId>) -> Self {
        let words = slots.div_ceil(WORD_BITS).max(1);
        Self {
            ready: (0..words).map(|_| AtomicU64::new(0)).collect(),
            signals: Mutex::default(),
            waker: AtomicWaker::new(),
            user,
        }
    }

    /// Whose readers these are.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Marks a reader ready and wakes the connection's task.
    pub(crate) fn wake(&self, slot: usize) {
        if let Some(word) = self.ready.get(slot / WORD_BITS) {
            let bit = 1 << (slot % WORD_BITS);
            // Release: what made the reader ready is seen by whoever takes
            // the bit.
            if word.fetch_or(bit, Ordering::Release) & bit == 0 {
                self.waker.wake();
            }
        }
    }

    /// Leaves a signal and wakes the connection's task.
    pub(crate) fn signal(&self, signal: Arc<Signal>) {
        {
            let mut signals = self.signals.lock();
            if signals.len() == SIGNALS_MAX {
                signals.pop_front();
            }
            signals.push_back(signal);
        }
        self.waker.wake();
    }

    /// The oldest signal that waits.
    pub(crate) fn take_signal(&self) -> Option<Arc<Signal>> {
        self.signals.lock().pop_front()
    }

    /// Registers the task to be woken. Call before [`Self::take_from`].
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Takes the first ready reader at or after `start`, wrapping around, so
    /// that a busy reader does not starve the others.
    pub(crate) fn take_from(&self, start: usize) -> Option<usize> {
        let first = (start / WORD_BITS) % self.ready.len();
        let not_before = u64::MAX << (start % WORD_BITS);
        // The first word is visited twice: from `start` up, then the rest.
        for step in 0..=self.ready.len() {
            let index = (first + step) % self.ready.len();
            let mask = match step {
                0 => not_before,
                _ if index == first => !not_before,
                _ => u64::MAX,
            };
            let word = self.ready.get(index)?;
            let candidates = word.load(Ordering::Relaxed) & mask;
            if candidates != 0 {
                let bit = candidates.trailing_zeros();
                word.fetch_and(!(1 << bit), Ordering::Acquire);
                return Some(index * WORD_BITS + bit as usize);
            }
        }
        None
    }
}

/// How a window wakes one reader.
#[derive(Debug, Clone)]
pub(crate) struct ReaderHandle {
    pub(crate) set: Arc<WakeSet>,
    pub(crate) slot: u32,
}

impl ReaderHandle {
    pub(crate) fn wake(&self) {
        self.set.wake(self.slot as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_readers_are_taken_once_and_in_turn() {
        let set = WakeSet::new(130, None);
        for slot in [0, 5, 64, 129] {
            set.wake(slot);
            set.wake(slot);
        }
        assert_eq!(set.take_from(6), Some(64));
        assert_eq!(set.take_from(65), Some(129));
        assert_eq!(set.take_from(130), Some(0));
        assert_eq!(set.take_from(1), Some(5));
        assert_eq!(set.take_from(6), None);
    }

    #[test]
    fn the_rest_of_the_first_word_is_not_forgotten() {
        let set = WakeSet::new(64, None);
        set.wake(3);
        assert_eq!(set.take_from(10), Some(3));
    }
}
