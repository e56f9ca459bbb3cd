//! How much one connection is sent in time (`limits.send_bytes_per_s`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How much may be sent at one moment after a quiet time, as time at the
/// rate: enough for a page of a replay, and nothing for a link to notice.
const BURST: Duration = Duration::from_millis(250);

/// A rate of bytes; an unlimited or idle one holds no timer.
#[derive(Default)]
pub(super) struct Pace {
    bytes_per_s: u32,
    /// When all that was sent is paid for.
    paid: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// 0 for no limit.
    pub(super) fn new(bytes_per_s: u32) -> Self {
        Self {
            bytes_per_s,
            ..Self::default()
        }
    }

    /// Whether more may be sent now; wakes the task when it may.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(paid) = self.paid else { return true };
        let due = paid - BURST;
        if Instant::now() >= due {
            self.timer = None;
            return true;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.timer = None;
                true
            }
            Poll::Pending => false,
        }
    }

    /// Takes note of what is sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        if self.bytes_per_s == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_s));
        let now = Instant::now();
        self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_replay_takes_the_time_that_its_bytes_cost() {
        let mut pace = Pace::new(100_000);
        let begin = Instant::now();
        for _ in 0..100 {
            std::future::poll_fn(|cx| match pace.poll_ready(cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            pace.spend(10_000);
        }
        // A million bytes at 100,000 per second, less the burst.
        let took = begin.elapsed().as_secs_f64();
        assert!((9.5..=10.0).contains(&took), "{took} s");
        let mut free = Pace::new(0);
        free.spend(usize::MAX);
        let ready = std::future::poll_fn(|cx| Poll::Ready(free.poll_ready(cx))).await;
        assert!(ready);
    }
}
