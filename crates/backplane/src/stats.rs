//! Counters for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a backplane has done since it was connected.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct BackplaneStats {
            $($(#[$doc])* pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> BackplaneStats {
                BackplaneStats { $($name: self.$name.get(),)+ }
            }
        }
    };
}

counters! {
    /// Publishes asked for.
    publishes,
    /// Publishes acknowledged, duplicates included.
    acks,
    /// Publishes acknowledged as duplicates.
    duplicates,
    /// Publishes sent again under their id.
    publish_retries,
    /// Publishes that ended without an acknowledgement.
    publish_errors,
    /// Atomic batches stored.
    batches,
    /// Messages stored in them.
    batched,
    /// Messages received by tails.
    tail_messages,
    /// Times a tail was replaced after it had started.
    tail_restarts,
    /// Reads of a stream by channel asked for.
    direct_gets,
    /// Reads of a stream that had to ask its leader.
    leader_gets,
    /// Times a connection was established again.
    reconnects,
}

/// A monotonic counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
