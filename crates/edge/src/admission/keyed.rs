//! A rate for each user or address.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use super::bucket::TokioClock;

/// How often those who have been quiet long enough to have a full bucket are
/// forgotten: that keeps what is remembered below what came in this time.
const SWEEP: Duration = Duration::from_secs(10);

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, TokioClock, NoOpMiddleware<Instant>>;

/// A token bucket for each key.
pub(crate) struct KeyedRate<K: Hash + Eq + Clone> {
    limiter: Limiter<K>,
    swept: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> KeyedRate<K> {
    /// So many per second in the long run, and `burst` at one moment.
    pub(crate) fn new(per_s: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_s).allow_burst(burst);
        Self {
            limiter: RateLimiter::new(quota, HashMapStateStore::default(), TokioClock),
            swept: Mutex::new(TokioClock.now()),
        }
    }

    /// Takes one token of this key, or says how long to wait.
    pub(crate) fn take(&self, key: &K) -> Result<(), Duration> {
        let now = TokioClock.now();
        {
            let mut swept = self.swept.lock();
            if now.saturating_duration_since(*swept) >= SWEEP {
                *swept = now;
                self.limiter.retain_recent();
            }
        }
        let checked = self.limiter.check_key(key);
        checked.map_err(|not_until| not_until.wait_time_from(now))
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.limiter.len()
    }
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for KeyedRate<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedRate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own_rate_and_the_quiet_are_forgotten() {
        let whole = |number| NonZeroU32::new(number).unwrap();
        let rate = KeyedRate::new(whole(10), whole(3));
        let taken = |key: &str| {
            (0..10)
                .take_while(|_| rate.take(&key.to_owned()).is_ok())
                .count()
        };
        assert_eq!((taken("a"), taken("b")), (3, 3));
        let wait = rate.take(&"a".to_owned()).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        tokio::time::sleep(wait).await;
        assert_eq!(taken("a"), 1);
        for key in 0..1_000 {
            let _ = rate.take(&key.to_string());
        }
        tokio::time::sleep(SWEEP).await;
        assert_eq!(taken("c"), 3);
        assert_eq!(rate.remembered(), 1);
    }
}
