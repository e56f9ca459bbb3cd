//! A token bucket that spreads those it refuses.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

/// How much passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, per second.
    pub per_s: NonZeroU32,
    /// At one moment, after a quiet time.
    pub burst: NonZeroU32,
}

/// Tokio's clock, so that tests can hold it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

impl Clock for TokioClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Instant>>;

/// A token bucket whose rate can change. Whoever is refused is told a moment
/// of its own, one interval after the one before: those who come back when
/// they are told come at the rate that is let in, and not together.
#[derive(Debug)]
pub struct Bucket {
    longest_wait: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    limiter: Limiter,
    /// The last moment that somebody was told.
    told: Instant,
}

impl Bucket {
    /// A full bucket. Nobody is told to wait for longer than `longest_wait`.
    pub fn new(rate: Rate, longest_wait: Duration) -> Self {
        Self {
            longest_wait,
            state: Mutex::new(State {
                rate,
                limiter: limiter(rate),
                told: TokioClock.now(),
            }),
        }
    }

    /// How much passes now.
    pub fn rate(&self) -> Rate {
        self.state.lock().rate
    }

    /// Lets another rate pass from now on. The bucket begins empty: a rate
    /// that changes often must not let a burst pass at each change.
    pub fn set_rate(&self, rate: Rate) {
        let mut state = self.state.lock();
        if state.rate == rate {
            return;
        }
        let limiter = limiter(rate);
        // A new bucket holds exactly its burst.
        let _ = limiter.check_n(rate.burst);
        state.rate = rate;
        state.limiter = limiter;
    }

    /// Takes one token, or says how long to wait.
    pub fn take(&self) -> Result<(), Duration> {
        let mut state = self.state.lock();
        let Err(not_until) = state.limiter.check() else {
            return Ok(());
        };
        let now = TokioClock.now();
        let interval = Duration::from_secs(1) / state.rate.per_s.get();
        let earliest = now + not_until.wait_time_from(now);
        let moment = earliest.max(state.told + interval);
        if moment - now <= self.longest_wait {
            state.told = moment;
            return Err(moment - now);
        }
        // More wait than can be let in within that time: anywhere in it.
        Err(self.longest_wait.mul_f64(rand::random::<f64>()))
    }
}

fn limiter(rate: Rate) -> Limiter {
    let quota = Quota::per_second(rate.per_s).allow_burst(rate.burst);
    RateLimiter::direct_with_clock(quota, TokioClock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_s: u32, burst: u32) -> Rate {
        let whole = |number| NonZeroU32::new(number).unwrap();
        Rate {
            per_s: whole(per_s),
            burst: whole(burst),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_refused_come_back_one_by_one_and_are_let_in() {
        let bucket = Bucket::new(rate(100, 10), Duration::from_secs(30));
        let waits: Vec<Duration> = (0..210).filter_map(|_| bucket.take().err()).collect();
        assert_eq!(waits.len(), 200, "ten of them were let in");
        for pair in waits.windows(2) {
            assert_eq!(pair[1] - pair[0], Duration::from_millis(10));
        }
        let begin = tokio::time::Instant::now();
        for wait in waits {
            tokio::time::sleep_until(begin + wait).await;
            assert_eq!(bucket.take(), Ok(()), "after {wait:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_that() {
        let longest = Duration::from_secs(1);
        let bucket = Bucket::new(rate(10, 1), longest);
        let waits: Vec<Duration> = (0..1_000).filter_map(|_| bucket.take().err()).collect();
        assert!(waits.iter().all(|wait| *wait <= longest));
        let late = waits.iter().filter(|wait| **wait > longest / 2).count();
        // Half of a thousand; five standard deviations are 80.
        assert!((400..=600).contains(&late), "{late}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_lets_no_burst_pass() {
        let bucket = Bucket::new(rate(100, 100), Duration::from_secs(30));
        bucket.set_rate(rate(50, 50));
        assert!(bucket.take().is_err());
        bucket.set_rate(rate(50, 50));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let passed = (0..100).filter(|_| bucket.take().is_ok()).count();
        assert_eq!(passed, 50);
    }
}
