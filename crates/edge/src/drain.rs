//! Leaving without a storm: not ready, then send connections away one by
//! one, then cut what is left. An operator may send connections away without
//! the edge going down, and take that back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How far an edge is on its way out. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal work.
    Serving,
    /// `/readyz` says no, everything else goes on: load balancers get time
    /// to notice.
    Unready,
    /// No new connections; open ones are sent away, each at its moment.
    Leaving,
    /// The deadline is past: everything ends now.
    Stopped,
}

/// A cheap handle to the phase and to the connections that are still open.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    /// Over which time an operator sends connections away; `None` while
    /// nobody does. Apart from the phase, because it may be taken back.
    rest: watch::Sender<Option<Duration>>,
    /// Whether nobody is being sent away: what connections look at each time
    /// they run.
    calm: AtomicBool,
    /// Wakes whoever looks at that.
    woken: OnceLock<Wake>,
    spread: Duration,
    connections: TaskTracker,
}

/// Wakes connections after a change.
struct Wake(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
    }
}

impl Drain {
    /// An edge at work, whose connections will leave over `spread`.
    pub fn new(spread: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                phase: watch::Sender::new(Phase::Serving),
                rest: watch::Sender::new(None),
                calm: AtomicBool::new(true),
                woken: OnceLock::new(),
                spread,
                connections: TaskTracker::new(),
            }),
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    /// Moves forward; going back is ignored.
    pub fn advance(&self, to: Phase) {
        self.shared
            .phase
            .send_if_modified(|phase| std::mem::replace(phase, (*phase).max(to)) < to);
        self.changed();
    }

    /// Resolves once the phase is reached or passed.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.shared.phase.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    /// Sends connections away over `spread` (the configured time if `None`)
    /// and takes no new ones, until [`Self::resume`]. Requests go on.
    pub fn rest(&self, spread: Option<Duration>) {
        let spread = spread.unwrap_or(self.shared.spread);
        self.shared.rest.send_replace(Some(spread));
        self.changed();
    }

    /// Takes connections again, unless the process is going down. Those that
    /// were not sent away yet stay.
    pub fn resume(&self) {
        self.shared.rest.send_replace(None);
        self.changed();
    }

    /// Has `wake` called after every change; once. Connections that have
    /// nothing else to wait for need no future each, which would be a third
    /// of their memory.
    pub(crate) fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second one would mean that two edges share a drain.
        let _ = self.shared.woken.set(Wake(Box::new(wake)));
    }

    fn changed(&self) {
        let calm = self.takes_connections();
        self.shared.calm.store(calm, Ordering::Release);
        if let Some(Wake(wake)) = self.shared.woken.get() {
            wake();
        }
    }

    /// Whether nobody is being sent away. One load of an atomic.
    pub fn is_calm(&self) -> bool {
        self.shared.calm.load(Ordering::Acquire)
    }

    /// Over which time connections are sent away now; `None` if they are not.
    pub fn leaving_over(&self) -> Option<Duration> {
        match self.phase() {
            Phase::Serving | Phase::Unready => *self.shared.rest.borrow(),
            Phase::Leaving | Phase::Stopped => Some(self.shared.spread),
        }
    }

    /// Whether an operator has connections sent away.
    pub fn is_resting(&self) -> bool {
        self.shared.rest.borrow().is_some()
    }

    /// Whether new connections are taken.
    pub fn takes_connections(&self) -> bool {
        self.phase() < Phase::Leaving && !self.is_resting()
    }

    /// Resolves when connections are sent away, for whichever reason; tells
    /// over which time.
    pub async fn leaving(&self) -> Duration {
        let mut rest = self.shared.rest.subscribe();
        tokio::select! {
            () = self.reached(Phase::Leaving) => self.shared.spread,
            // The sender lives in self, so waiting cannot fail.
            rest = rest.wait_for(Option::is_some) => {
                rest.ok().and_then(|rest| *rest).unwrap_or(self.shared.spread)
            }
        }
    }

    /// Resolves when it is this connection's turn to be sent away: at a
    /// random moment of the spread after connections begin to leave.
    pub async fn turn(&self) {
        loop {
            let delay = self.leaving().await.mul_f64(rand::random::<f64>());
            tokio::select! {
                () = tokio::time::sleep(delay) => return,
                () = self.reached(Phase::Stopped) => return,
                () = self.taken_back() => {}
            }
        }
    }

    /// Resolves when connections are no longer sent away.
    async fn taken_back(&self) {
        let mut rest = self.shared.rest.subscribe();
        let _ = rest.wait_for(Option::is_none).await;
        if self.phase() >= Phase::Leaving {
            std::future::pending().await
        }
    }

    /// Held by each open connection for as long as it lives. Upgraded
    /// sockets hold one too: neither hyper nor axum tracks those.
    pub fn track(&self) -> TaskTrackerToken {
        self.shared.connections.token()
    }

    /// Open connections, plain and upgraded.
    pub fn open_connections(&self) -> usize {
        self.shared.connections.len()
    }

    /// Resolves when no connection is open, or after `deadline`. Returns how
    /// many are left.
    pub async fn wait_empty(&self, deadline: Duration) -> usize {
        self.shared.connections.close();
        // Elapsing is one of the two expected ends.
        let _ = tokio::time::timeout(deadline, self.shared.connections.wait()).await;
        self.open_connections()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_phase_only_moves_forward() {
        let drain = Drain::new(Duration::ZERO);
        drain.advance(Phase::Leaving);
        drain.advance(Phase::Unready);
        assert_eq!(drain.phase(), Phase::Leaving);
        drain.reached(Phase::Unready).await;
        drain.turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn connections_leave_over_the_spread_and_not_at_once() {
        let spread = Duration::from_secs(10);
        let drain = Drain::new(spread);
        drain.advance(Phase::Leaving);
        let begin = tokio::time::Instant::now();
        let turns = (0..1_000).map(|_| async {
            drain.turn().await;
            begin.elapsed()
        });
        let left = futures_util::future::join_all(turns).await;
        assert!(
            left.iter()
                .all(|elapsed| *elapsed <= spread + Duration::from_millis(1))
        );
        // In each tenth of the spread some 100 leave; 50 to 150 is more than
        // five standard deviations on both sides.
        for tenth in 0..10 {
            let bounds = spread * tenth / 10..spread * (tenth + 1) / 10;
            let count = left
                .iter()
                .filter(|elapsed| bounds.contains(*elapsed))
                .count();
            assert!((50..=150).contains(&count), "{count} left in tenth {tenth}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_operator_began_can_be_taken_back() {
        let drain = Drain::new(Duration::from_secs(10));
        drain.rest(Some(Duration::from_secs(100)));
        assert!(!drain.takes_connections());
        assert_eq!(drain.phase(), Phase::Serving, "the process stays");
        let turns: Vec<_> = (0..100)
            .map(|_| {
                let drain = drain.clone();
                tokio::spawn(async move { drain.turn().await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(50)).await;
        drain.resume();
        assert!(drain.takes_connections());
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        let gone = turns.iter().filter(|turn| turn.is_finished()).count();
        // Half of a hundred; five standard deviations are 25.
        assert!((25..=75).contains(&gone), "{gone} were sent away");
        drain.advance(Phase::Leaving);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(turns.iter().all(tokio::task::JoinHandle::is_finished));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_goes_down_takes_nothing_back() {
        let drain = Drain::new(Duration::from_secs(10));
        drain.rest(None);
        drain.advance(Phase::Leaving);
        drain.resume();
        assert!(!drain.takes_connections());
        tokio::time::timeout(Duration::from_secs(11), drain.turn())
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_stop_does_not_wait_for_the_spread() {
        let drain = Drain::new(Duration::from_secs(600));
        drain.advance(Phase::Stopped);
        let begin = tokio::time::Instant::now();
        drain.turn().await;
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_last_connection_or_the_deadline() {
        let drain = Drain::new(Duration::ZERO);
        let open = drain.track();
        assert_eq!(drain.wait_empty(Duration::from_secs(1)).await, 1);
        drop(open);
        assert_eq!(drain.wait_empty(Duration::from_secs(1)).await, 0);
    }
}
