//! Three nats-servers that lose their leader in every way.

use std::time::Duration;

use super::Stage;

const LEADER: Duration = Duration::from_secs(30);

pub(super) async fn leader_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let leader = stage.world.backbone.leader(LEADER).await?;
    stage.world.backbone.servers[leader].kill();
    stage.pass(3_000..8_000).await;
    stage.everything_runs().await
}

pub(super) async fn leader_paused(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let leader = stage.world.backbone.leader(LEADER).await?;
    stage.world.backbone.servers[leader].pause();
    // Another one is elected; then the old one wakes up.
    stage.pass(6_000..12_000).await;
    stage.everything_runs().await
}

pub(super) async fn leader_cut_off(stage: Stage<'_>) -> anyhow::Result<()> {
    isolated(stage, false).await
}

pub(super) async fn leader_half_open(stage: Stage<'_>) -> anyhow::Result<()> {
    isolated(stage, true).await
}

/// The leader is in a minority of one, while edges still speak with it.
async fn isolated(mut stage: Stage<'_>, half_open: bool) -> anyhow::Result<()> {
    let leader = stage.world.backbone.leader(LEADER).await?;
    stage.world.backbone.isolate(leader, half_open).await;
    stage.pass(6_000..12_000).await;
    stage.everything_runs().await
}

pub(super) async fn all_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for server in &stage.world.backbone.servers {
        server.kill();
    }
    stage.pass(500..2_000).await;
    stage.everything_runs().await
}

pub(super) async fn paused_and_killed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let leader = stage.world.backbone.leader(LEADER).await?;
    stage.world.backbone.servers[leader].pause();
    stage.pass(5_000..9_000).await;
    stage.world.backbone.servers[leader].kill();
    stage.pass(500..1_500).await;
    stage.everything_runs().await
}

pub(super) async fn rolling_restart(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for server in 0..stage.world.backbone.servers.len() {
        stage.world.backbone.servers[server].stop().await;
        stage.pass(300..1_000).await;
        stage.everything_runs().await?;
        stage.pass(1_500..2_500).await;
    }
    Ok(())
}

/// The machine of the leader loses its power; the other two go on.
pub(super) async fn leader_loses_power(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.pass(2_000..4_000).await;
    let leader = stage.world.backbone.leader(LEADER).await?;
    stage.world.backbone.cut_power(&[leader]).await?;
    stage.pass(1_000..6_000).await;
    stage.everything_runs().await
}
