//! Filling a window from its tail.

use super::{ReaderHandle, Window};
use crate::tail::{Tail, TailEvent};

/// Runs the tail into the window, for ever. The one writer of the window.
pub async fn fill(mut tail: impl Tail, window: &Window) {
    let mut catch_up_to = None;
    loop {
        match tail.next().await {
            TailEvent::Started { after, last } => {
                let mut state = window.lock();
                if state.head() != after {
                    // The process starts, or messages between our head and
                    // `after` were not seen. Readers find out through the
                    // log whether anything is missing.
                    state.restart(after, ReaderHandle::wake);
                    if window.is_filled() {
                        window.count_restart();
                        tracing::warn!(shard = window.shard(), head = %after, "window.restarted");
                    }
                }
                catch_up_to = Some(last);
            }
            TailEvent::Messages {
                messages,
                epoch,
                through,
            } => {
                let mut state = window.lock();
                if state.head().epoch == epoch {
                    state.append(messages, through, ReaderHandle::wake);
                } else {
                    // Cannot be placed; a tail reports a new epoch by
                    // starting again, which puts this right.
                    tracing::error!(shard = window.shard(), %epoch, "tail.epoch_without_start");
                }
            }
        }
        if !window.is_filled() && catch_up_to.is_some_and(|last| window.head().seq >= last) {
            window.mark_filled();
            let stats = window.stats();
            tracing::info!(
                shard = window.shard(),
                window.messages = stats.messages,
                window.bytes = stats.bytes,
                "window.filled"
            );
        }
    }
}
