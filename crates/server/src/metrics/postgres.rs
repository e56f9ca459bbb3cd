//! Whether Postgres answers, and the connections to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use edge::{Drain, Edge, Phase};
use store::Store;

/// Between two looks. Alerts want to know within a scrape interval or two,
/// and a fleet of a hundred edges asks Postgres 20 times a second.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    up: AtomicBool,
    answer_us: AtomicU64,
}

/// Shows whether Postgres answers, and asks it now and then until the process
/// leaves. No request waits for this.
pub async fn watch(edge: Edge, store: Store, drain: Drain) -> &'static str {
    let state = Arc::new(State::default());
    show(&edge, store.clone(), Arc::clone(&state));
    let asking = async {
        loop {
            let begin = Instant::now();
            let answered = store.clock_ms().await.is_ok();
            state.up.store(answered, Relaxed);
            let answer_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            state.answer_us.store(answer_us, Relaxed);
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = drain.reached(Phase::Leaving) => {}
    }
    "postgres"
}

fn show(edge: &Edge, store: Store, state: Arc<State>) {
    edge.metrics().add(move |out| {
        let help = "1 if Postgres answered when it was last asked, else 0.";
        out.gauge("rejoin_postgres_up", help)
            .value(state.up.load(Relaxed));
        let help = "How long Postgres took to answer when it was last asked, or was waited for.";
        out.gauge("rejoin_postgres_answer_seconds", help)
            .value(state.answer_us.load(Relaxed) as f64 / super::MICROS);
        let pool = store.pool_state();
        let help = "Connections to Postgres.";
        out.gauge("rejoin_postgres_connections", help)
            .sample(&[("state", "idle")], pool.idle)
            .sample(&[("state", "busy")], pool.open.saturating_sub(pool.idle));
        let help = "Connections to Postgres that this process may open.";
        out.gauge("rejoin_postgres_connections_limit", help)
            .value(pool.max);
    });
}
