//! Concurrent lookups share queries.
//!
//! Natural batching: whoever comes while a query runs goes into the next one.
//! A lone lookup never waits for company, and ten thousand at once become a
//! few hundred queries, in the order in which they came. A reader has one
//! lookup under way, so the queue is fair between readers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::connect::Store;
use crate::error::StoreError;

/// How long a lookup may wait while others are answered. With Postgres away
/// it hears so much sooner.
const PATIENCE: Duration = Duration::from_secs(15);

/// A query that takes longer should have had fewer lookups.
const SLOW: Duration = Duration::from_millis(200);
/// Fewer than these are not worth waiting for one another.
const LEAST_LOOKUPS: usize = 8;

struct Ask<Q, A> {
    question: Q,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

/// Answers questions of one kind, many at a time.
pub(crate) struct Batcher<Q, A> {
    asks: mpsc::Sender<Ask<Q, A>>,
    _workers: Vec<AbortOnDropHandle<()>>,
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// Starts the workers, which end when the batcher is dropped. `run` gives
    /// one answer per question, in order. Must be called within a runtime.
    pub(crate) fn start<F, R>(store: &Store, run: F) -> Self
    where
        F: Fn(Store, Vec<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<A>, StoreError>> + Send + 'static,
    {
        let config = store.config();
        let (asks, queue) = mpsc::channel(config.batch_queue.max(1));
        let queue = Arc::new(Mutex::new(queue));
        let run = Arc::new(run);
        let failures = Arc::new(AtomicU32::new(0));
        let workers = (0..config.batch_queries.clamp(1, 16))
            .map(|_| {
                let worker = work(
                    store.clone(),
                    Arc::clone(&queue),
                    Arc::clone(&failures),
                    Arc::clone(&run),
                );
                AbortOnDropHandle::new(tokio::spawn(worker))
            })
            .collect();
        Self {
            asks,
            _workers: workers,
        }
    }

    /// The answer, or `Unavailable` when there is none in time or too many
    /// wait already.
    pub(crate) async fn ask(&self, question: Q) -> Result<A, StoreError> {
        let (answer, reply) = oneshot::channel();
        self.asks
            .try_send(Ask { question, answer })
            .map_err(|_| StoreError::unavailable("too many lookups are waiting"))?;
        match timeout(PATIENCE, reply).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::unavailable("the lookup was abandoned")),
            Err(_) => Err(StoreError::unavailable("the lookup waited too long")),
        }
    }
}

/// How many lookups the next query takes: fewer when queries take long (cold
/// caches, a slow disk, long pages), so that each keeps well within its time.
#[derive(Debug)]
struct BatchSize {
    now: usize,
    most: usize,
}

impl BatchSize {
    fn new(most: usize) -> Self {
        Self { now: most, most }
    }

    fn adapt(&mut self, took: Duration) {
        if took > SLOW {
            self.now = (self.now / 2).max(LEAST_LOOKUPS.min(self.most));
        } else if took < SLOW / 2 {
            self.now = (self.now * 2).min(self.most);
        }
    }
}

async fn work<Q, A, F, R>(
    store: Store,
    queue: Arc<Mutex<mpsc::Receiver<Ask<Q, A>>>>,
    failures: Arc<AtomicU32>,
    run: Arc<F>,
) where
    F: Fn(Store, Vec<Q>) -> R,
    R: Future<Output = Result<Vec<A>, StoreError>>,
{
    let most = store.config().batch_lookups.clamp(1, 1_000);
    let mut size = BatchSize::new(most);
    let mut asks = Vec::with_capacity(most);
    loop {
        if queue.lock().await.recv_many(&mut asks, size.now).await == 0 {
            return;
        }
        // Who gave up meanwhile is not worth a query.
        asks.retain(|ask| !ask.answer.is_closed());
        if asks.is_empty() {
            continue;
        }
        let (questions, replies): (Vec<_>, Vec<_>) =
            asks.drain(..).map(|ask| (ask.question, ask.answer)).unzip();
        let begun = Instant::now();
        let answers = store.within(run(store.clone(), questions)).await;
        size.adapt(begun.elapsed());
        match answers {
            Ok(answers) => {
                failures.store(0, Relaxed);
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
                // One slow query says nothing about the next. After more,
                // whoever waits behind would fare no better: let them know
                // now rather than one time-out after another. If the queue
                // is locked, another worker is taking from it.
                let again = failures.fetch_add(1, Relaxed) > 0;
                if again && let Ok(mut queue) = queue.try_lock() {
                    while let Ok(ask) = queue.try_recv() {
                        let _ = ask.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_queries_shrink_and_quick_ones_grow() {
        let mut size = BatchSize::new(100);
        size.adapt(SLOW * 2);
        assert_eq!(size.now, 50);
        for _ in 0..10 {
            size.adapt(SLOW * 2);
        }
        assert_eq!(size.now, LEAST_LOOKUPS);
        size.adapt(SLOW * 3 / 4);
        assert_eq!(size.now, LEAST_LOOKUPS, "neither quick nor slow");
        for _ in 0..10 {
            size.adapt(Duration::ZERO);
        }
        assert_eq!(size.now, 100);
        let mut single = BatchSize::new(1);
        single.adapt(SLOW * 2);
        assert_eq!(single.now, 1);
    }
}
