//! How long to wait before the next try.

use std::time::Duration;

use protocol::frame::Retry;
use protocol::limits::{RETRY_MAX_MS_DEFAULT, RETRY_MIN_MS_DEFAULT};
use rand::Rng;

/// Exponential with full jitter: after an edge is lost all its clients come at once, and only randomness spreads them.
#[derive(Debug)]
pub(super) struct Backoff {
    retry: Retry,
    tries: u32,
    /// What a `goaway` asked for; used once.
    asked: Option<Duration>,
}

impl Backoff {
    pub(super) fn new() -> Self {
        let retry = Retry {
            min_ms: RETRY_MIN_MS_DEFAULT,
            max_ms: RETRY_MAX_MS_DEFAULT,
        };
        Self {
            retry,
            tries: 0,
            asked: None,
        }
    }

    /// `connected` came: start over, with the edge's bounds.
    pub(super) fn connected(&mut self, retry: Retry) {
        self.retry = retry;
        self.tries = 0;
        self.asked = None;
    }

    /// `goaway` came.
    pub(super) fn asked(&mut self, delay: Duration) {
        self.asked = Some(delay);
    }

    /// The delay before the next try: random in 0 to `min(max, min × 2^n)` for the n-th in a row.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        if let Some(delay) = self.asked.take() {
            return delay;
        }
        // 2^20 × 1 ms is above every bound that makes sense, and far from overflow.
        let factor = 1_u64 << self.tries.min(20);
        let grown = u64::from(self.retry.min_ms).saturating_mul(factor);
        let most = grown.min(u64::from(self.retry.max_ms));
        self.tries = self.tries.saturating_add(1);
        Duration::from_millis(rng.random_range(0..=most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn delays_grow_to_the_bound_and_start_over() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new();
        let retry = Retry {
            min_ms: 100,
            max_ms: 1_000,
        };
        backoff.connected(retry);
        let mut longest = |backoff: &mut Backoff| {
            // The largest of 200 draws of one step is within 5% of its bound, all but surely.
            let draw = |_| {
                let mut one = Backoff {
                    retry,
                    tries: backoff.tries,
                    asked: None,
                };
                one.next(&mut rng).as_millis()
            };
            let longest = (0..200).map(draw).max().unwrap();
            backoff.tries += 1;
            longest
        };
        for bound in [100, 200, 400, 800, 1_000, 1_000] {
            let longest = longest(&mut backoff);
            assert!(
                longest <= bound && longest * 100 >= bound * 95,
                "{longest} of {bound}"
            );
        }
        backoff.connected(retry);
        assert!(longest(&mut backoff) <= 100);
    }

    #[test]
    fn goaway_sets_the_next_delay_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new();
        backoff.asked(Duration::from_secs(77));
        assert_eq!(backoff.next(&mut rng), Duration::from_secs(77));
        assert!(backoff.next(&mut rng) <= Duration::from_secs(1));
    }

    #[test]
    fn many_tries_do_not_overflow() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff {
            retry: Retry {
                min_ms: u32::MAX,
                max_ms: u32::MAX,
            },
            tries: u32::MAX,
            asked: None,
        };
        assert!(backoff.next(&mut rng) <= Duration::from_millis(u32::MAX.into()));
    }
}
