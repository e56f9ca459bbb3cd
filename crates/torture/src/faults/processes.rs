//! Processes are killed, paused and asked to end.

use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;

use super::Stage;

/// A part may take this long to be ready again on a busy machine.
const READY: Duration = Duration::from_secs(40);

impl Stage<'_> {
    /// Waits for a random time.
    pub(super) async fn pass(&mut self, ms: std::ops::Range<u64>) {
        let ms = self.random.random_range(ms);
        sleep(Duration::from_millis(ms)).await;
    }

    pub(super) fn any_edge(&mut self) -> usize {
        self.random.random_range(0..self.world.edges.len())
    }

    pub(super) async fn everything_runs(&mut self) -> anyhow::Result<()> {
        self.world.heal().await?;
        self.world.ready(READY).await
    }
}

pub(super) async fn none(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.pass(2_500..4_000).await;
    Ok(())
}

pub(super) async fn edge_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let edge = stage.any_edge();
    stage.world.edges[edge].program.kill();
    stage.pass(100..1_500).await;
    stage.everything_runs().await
}

pub(super) async fn edge_paused(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let edge = stage.any_edge();
    stage.world.edges[edge].program.pause()?;
    // Longer than clients wait for a ping.
    stage.pass(2_000..5_000).await;
    stage.everything_runs().await
}

pub(super) async fn edge_terminated(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let edge = stage.any_edge();
    stage.world.edges[edge].program.terminate().await?;
    stage.everything_runs().await
}

pub(super) async fn rolling_restart(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for edge in 0..stage.world.edges.len() {
        stage.world.edges[edge].program.terminate().await?;
        stage.everything_runs().await?;
    }
    Ok(())
}

pub(super) async fn archiver_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..6 {
        let archiver = stage.random.random_range(0..stage.world.archivers.len());
        stage.world.archivers[archiver].kill();
        stage.pass(0..400).await;
        stage.world.archivers[archiver].revive()?;
        // Until the lease of the dead one has ended, and then into some batch.
        stage.pass(300..1_800).await;
    }
    stage.everything_runs().await
}

pub(super) async fn archiver_paused(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for archiver in 0..stage.world.archivers.len() {
        stage.world.archivers[archiver].pause()?;
        // The other one takes over; then the first wakes up and still believes that it is the one.
        stage.pass(2_000..3_500).await;
        stage.world.archivers[archiver].resume()?;
        stage.pass(100..500).await;
    }
    stage.everything_runs().await
}

pub(super) async fn archivers_terminated(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for archiver in 0..stage.world.archivers.len() {
        stage.world.archivers[archiver].terminate().await?;
        stage.world.archivers[archiver].revive()?;
        stage.pass(200..900).await;
    }
    stage.everything_runs().await
}

pub(super) async fn nats_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..2 {
        stage.world.backbone.servers[0].kill();
        stage.pass(100..2_500).await;
        stage.everything_runs().await?;
        stage.pass(0..500).await;
    }
    Ok(())
}

pub(super) async fn nats_paused(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.world.backbone.servers[0].pause();
    stage.pass(500..4_000).await;
    stage.everything_runs().await
}

pub(super) async fn nats_terminated(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.world.backbone.servers[0].stop().await;
    stage.pass(100..2_000).await;
    stage.everything_runs().await
}

pub(super) async fn postgres_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.world.postgres.kill();
    stage.pass(500..4_000).await;
    stage.everything_runs().await
}

pub(super) async fn postgres_paused(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.world.postgres.pause();
    stage.pass(500..4_000).await;
    stage.everything_runs().await
}

pub(super) async fn postgres_terminated(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.world.postgres.stop().await;
    stage.pass(100..3_000).await;
    stage.everything_runs().await
}

pub(super) async fn everything_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for edge in &mut stage.world.edges {
        edge.program.kill();
    }
    for archiver in &mut stage.world.archivers {
        archiver.kill();
    }
    for server in &stage.world.backbone.servers {
        server.kill();
    }
    stage.world.postgres.kill();
    stage.pass(100..1_000).await;
    stage.everything_runs().await
}

/// The clocks of some edges jump, forth and back, by less than the life of a token.
pub(super) async fn clocks_jump(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..3 {
        let edge = stage.any_edge();
        let seconds = stage.random.random_range(-1_800..1_800);
        if let Some(clock) = &stage.world.edges[edge].clock {
            clock.set(seconds)?;
        }
        stage.pass(1_200..2_500).await;
    }
    stage.everything_runs().await
}
