//! Counters that show where replays came from, and how long things took.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::reader::ResetReason;

/// What delivery has done since the process started. Every field only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages handed to connections.
    pub deliveries: Counter,
    /// Subscriptions that became live, by where what they had missed came
    /// from, in the order of [`Source::ALL`].
    pub catch_ups: [CatchUps; Source::ALL.len()],
    /// Readers that were live and fell behind the window.
    pub readers_lapped: Counter,
    /// Requests to the archive.
    pub archive_requests: Counter,
    /// Requests to the stream: pages, positions and confirmed heads.
    pub stream_requests: Counter,
    /// Requests that a log could not answer for the time being.
    pub log_unavailable: Counter,
    /// Resets because messages may have left every log.
    pub resets_expired: Counter,
    /// Resets because the cursor's epoch is not known.
    pub resets_epoch: Counter,
    /// Resets because the cursor is ahead of the stream.
    pub resets_ahead: Counter,
    /// Resets because the client bounds its replay.
    pub resets_too_far_behind: Counter,
}

impl Counters {
    pub(crate) fn count_reset(&self, reason: ResetReason) {
        match reason {
            ResetReason::Expired => self.resets_expired.add(1),
            ResetReason::Epoch => self.resets_epoch.add(1),
            ResetReason::Ahead => self.resets_ahead.add(1),
            ResetReason::TooFarBehind => self.resets_too_far_behind.add(1),
        }
    }
}

/// The farthest place that a replay came from. Later ones are farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The edge's memory.
    Window,
    /// The stream, below the window.
    Stream,
    /// The archive.
    Archive,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Window, Self::Stream, Self::Archive];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Stream => "stream",
            Self::Archive => "archive",
        }
    }
}

/// The catch-ups from one source.
#[derive(Debug)]
pub struct CatchUps {
    /// Messages replayed before `live`.
    pub messages: Histogram,
    /// From the subscription's start to `live`, in microseconds. It includes
    /// the time in which the client took what was replayed.
    pub duration_us: Histogram,
}

impl Default for CatchUps {
    fn default() -> Self {
        Self {
            messages: Histogram::new(&REPLAY_MESSAGES),
            duration_us: Histogram::new(&REPLAY_US),
        }
    }
}

/// A reconnect after seconds misses none or some, one after weeks all that is
/// kept: powers of ten tell them apart.
const REPLAY_MESSAGES: [u64; 7] = [0, 1, 10, 100, 1_000, 10_000, 100_000];

/// From memory it takes microseconds; over a slow network, or from a busy
/// archive, up to minutes.
const REPLAY_US: [u64; 10] = [
    1_000,
    5_000,
    20_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    20_000_000,
    60_000_000,
    300_000_000,
];

/// Bounds for something that should take milliseconds and may take seconds,
/// in microseconds: three for each power of ten, so that a quantile is right
/// to within a factor of two.
pub const LATENCY_US: [u64; 14] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 15_000_000,
];

/// Threads add to one of so many places, each in a cache line of its own, so
/// that cores which deliver at the same time do not wait for each other.
/// More cores than this share places, which is slower and as right.
const PLACES: usize = 8;

/// The place of this thread.
fn place() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % PLACES;
    }
    PLACE.with(|place| *place)
}

/// A number that only grows. Adding allocates nothing and waits for nobody.
#[derive(Debug, Default)]
pub struct Counter([Place; PLACES]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Place(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0[place()].0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        let places = self.0.iter();
        places.map(|place| place.0.load(Ordering::Relaxed)).sum()
    }
}

/// Most bounds of a [`Histogram`]; with the place above the last bound and
/// the sum a thread's place is two cache lines.
const BOUNDS_MAX: usize = 14;

/// How often something was how large. Observing allocates nothing and waits
/// for nobody.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    places: [Buckets; PLACES],
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Buckets {
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

/// What a [`Histogram`] has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramState {
    /// For each bound, how many values were not above it.
    pub cumulative: Vec<(u64, u64)>,
    /// How many values there were.
    pub count: u64,
    /// Their sum; it wraps.
    pub sum: u64,
}

impl Histogram {
    /// Nothing seen yet. `bounds` ascend; at most 14, others are ignored.
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.len() <= BOUNDS_MAX && bounds.is_sorted());
        Self {
            bounds: &bounds[..bounds.len().min(BOUNDS_MAX)],
            places: Default::default(),
        }
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        self.observe_many(value, 1);
    }

    /// Counts a value `times` times.
    pub fn observe_many(&self, value: u64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let place = &self.places[place()];
        place.counts[bucket].fetch_add(times, Ordering::Relaxed);
        place
            .sum
            .fetch_add(value.wrapping_mul(times), Ordering::Relaxed);
    }

    /// What was seen so far.
    pub fn state(&self) -> HistogramState {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(self.bounds.len());
        for bucket in 0..=self.bounds.len() {
            let places = self.places.iter();
            count += places
                .map(|place| place.counts[bucket].load(Ordering::Relaxed))
                .sum::<u64>();
            if let Some(bound) = self.bounds.get(bucket) {
                cumulative.push((*bound, count));
            }
        }
        let sums = self
            .places
            .iter()
            .map(|place| place.sum.load(Ordering::Relaxed));
        HistogramState {
            cumulative,
            count,
            sum: sums.fold(0, u64::wrapping_add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_their_bounds() {
        let histogram = Histogram::new(&REPLAY_MESSAGES);
        for value in [0, 1, 2, 10, 11, 1_000_000] {
            histogram.observe(value);
        }
        histogram.observe_many(5, 4);
        let state = histogram.state();
        assert_eq!(state.count, 10);
        assert_eq!(state.sum, 1_000_044);
        assert_eq!(
            state.cumulative,
            [
                (0, 1),
                (1, 2),
                (10, 8),
                (100, 9),
                (1_000, 9),
                (10_000, 9),
                (100_000, 9)
            ]
        );
    }

    #[test]
    fn threads_add_up() {
        let counter = Counter::default();
        let histogram = Histogram::new(&LATENCY_US);
        std::thread::scope(|scope| {
            for _ in 0..2 * PLACES {
                scope.spawn(|| {
                    for value in 0..1_000 {
                        counter.add(1);
                        histogram.observe(value);
                    }
                });
            }
        });
        let threads = 2 * PLACES as u64;
        assert_eq!(counter.get(), 1_000 * threads);
        let state = histogram.state();
        assert_eq!(state.count, 1_000 * threads);
        assert_eq!(state.cumulative[0], (500, 501 * threads));
    }
}
