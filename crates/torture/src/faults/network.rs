//! Lines between clients, edges, NATS and Postgres are cut, hang, and drag.

use devstack::ProxyMode;
use rand::Rng;

use super::Stage;

pub(super) async fn clients_cut(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..4 {
        stage.world.balancer.cut();
        if stage.random.random() {
            stage.world.balancer.set_mode(ProxyMode::Refuse).await;
            stage.pass(100..1_200).await;
            stage.world.balancer.set_mode(ProxyMode::Forward).await;
        }
        stage.pass(100..900).await;
    }
    Ok(())
}

pub(super) async fn clients_half_open(mut stage: Stage<'_>) -> anyhow::Result<()> {
    // Those who are connected hear nothing any more, and those who come back do.
    stage.world.balancer.freeze();
    stage.pass(3_200..4_500).await;
    stage.world.balancer.cut();
    // And once for everybody.
    stage.world.balancer.set_mode(ProxyMode::HalfOpen).await;
    stage.pass(500..4_000).await;
    stage.world.balancer.set_mode(ProxyMode::Forward).await;
    Ok(())
}

pub(super) async fn clients_slow(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let bytes_per_s = stage.random.random_range(1_000..8_000);
    let slow = ProxyMode::Slow { bytes_per_s };
    stage.world.balancer.set_mode(slow).await;
    stage.pass(4_000..7_000).await;
    stage.world.balancer.set_mode(ProxyMode::Forward).await;
    Ok(())
}

pub(super) async fn clients_late(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let ms = stage.random.random_range(50..600);
    let late = ProxyMode::Late { ms };
    stage.world.balancer.set_mode(late).await;
    stage.pass(3_000..5_000).await;
    stage.world.balancer.set_mode(ProxyMode::Forward).await;
    Ok(())
}

pub(super) async fn clients_sliced(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..3 {
        let bytes = stage.random.random_range(1..40);
        let sliced = ProxyMode::Sliced { bytes };
        stage.world.balancer.set_mode(sliced).await;
        stage.pass(1_000..2_000).await;
        stage.world.balancer.cut();
    }
    stage.world.balancer.set_mode(ProxyMode::Forward).await;
    Ok(())
}

/// What clients send arrives, and the answers never do.
pub(super) async fn answers_dropped(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..4 {
        stage.world.balancer.set_mode(ProxyMode::Mute).await;
        stage.pass(300..1_500).await;
        stage.world.balancer.cut();
        stage.world.balancer.set_mode(ProxyMode::Forward).await;
        stage.pass(200..800).await;
    }
    Ok(())
}

pub(super) async fn nats_cut(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let edge = stage.any_edge();
    for _ in 0..2 {
        if let Some(line) = &stage.world.edges[edge].nats_line {
            line.set_mode(ProxyMode::Refuse).await;
            line.cut();
        }
        stage.pass(200..3_000).await;
        stage.everything_runs().await?;
        stage.pass(100..500).await;
    }
    Ok(())
}

pub(super) async fn nats_half_open(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let edge = stage.any_edge();
    if let Some(line) = &stage.world.edges[edge].nats_line {
        line.set_mode(ProxyMode::HalfOpen).await;
    }
    stage.pass(1_000..6_000).await;
    if let Some(line) = &stage.world.edges[edge].nats_line {
        line.cut();
    }
    stage.everything_runs().await
}

/// The stream stores what the edges publish, and no edge hears of it.
pub(super) async fn nats_acks_dropped(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..3 {
        for edge in &stage.world.edges {
            if let Some(line) = &edge.nats_line {
                line.set_mode(ProxyMode::Mute).await;
            }
        }
        stage.pass(200..2_500).await;
        for edge in &stage.world.edges {
            if let Some(line) = &edge.nats_line {
                line.cut();
                line.set_mode(ProxyMode::Forward).await;
            }
        }
        stage.pass(200..800).await;
    }
    stage.everything_runs().await
}

pub(super) async fn store_cut(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..3 {
        for edge in &stage.world.edges {
            edge.store_line.set_mode(ProxyMode::Refuse).await;
            edge.store_line.cut();
        }
        stage.pass(200..2_000).await;
        stage.everything_runs().await?;
    }
    Ok(())
}

pub(super) async fn store_half_open(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for edge in &stage.world.edges {
        edge.store_line.set_mode(ProxyMode::HalfOpen).await;
    }
    stage.pass(1_000..5_000).await;
    for edge in &stage.world.edges {
        edge.store_line.cut();
    }
    stage.everything_runs().await
}
