//! Streams are deleted, purged and trimmed, the archive forgets, and disks are full.

use std::time::Duration;

use anyhow::{Context, ensure};
use protocol::Cursor;
use tokio::time::sleep;
use torture::history::What;

use super::Stage;

/// Publishers finish what they have begun: a try takes 3 s at most.
const HUSH: Duration = Duration::from_millis(3_500);

impl Stage<'_> {
    async fn ask(&self, what: &str, payload: &str) -> anyhow::Result<()> {
        let subject = format!("$JS.API.STREAM.{what}.REJOIN_0");
        let answer = self.world.backbone.ask(&subject, payload).await?;
        ensure!(answer["success"] == true, "{subject}: {answer}");
        Ok(())
    }

    async fn at_rest(&self) -> anyhow::Result<()> {
        self.load.hush(true);
        sleep(HUSH).await;
        self.world.archived().await
    }

    async fn delete_stream(&mut self, archived: bool) -> anyhow::Result<()> {
        let epoch = self.world.epochs().await?.pop();
        let epoch = epoch.context("no epoch")?;
        let end = What::EpochEnded { epoch, archived };
        self.load.recorder.note(end);
        self.ask("DELETE", "").await
    }
}

/// Everything is archived: nobody may need a reset.
pub(super) async fn stream_deleted_at_rest(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.at_rest().await?;
    stage.delete_stream(true).await?;
    stage.pass(500..1_500).await;
    stage.load.hush(false);
    stage.everything_runs().await
}

/// What was not archived is gone: resets are due.
pub(super) async fn stream_deleted(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.delete_stream(false).await?;
    stage.pass(500..1_500).await;
    stage.everything_runs().await
}

/// Everything is archived: nobody may notice.
pub(super) async fn stream_purged_at_rest(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.at_rest().await?;
    stage.ask("PURGE", "").await?;
    stage.pass(200..800).await;
    stage.load.hush(false);
    stage.pass(500..1_000).await;
    Ok(())
}

/// What was not archived is gone.
pub(super) async fn stream_purged(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.ask("PURGE", "").await?;
    // What was stored since is not lost; that it is excused as well makes the check weaker, and never wrong.
    let (first, _) = stage.world.stream_state().await?;
    let epoch = stage.world.epochs().await?.pop().context("no epoch")?;
    let through = Cursor::new(epoch, first.saturating_sub(1));
    stage.load.recorder.note(What::Forgotten { through });
    stage.pass(1_000..2_000).await;
    Ok(())
}

/// The stream keeps the last few messages only, as the archiver would leave it after an hour: cursors are below.
pub(super) async fn stream_trimmed(mut stage: Stage<'_>) -> anyhow::Result<()> {
    for _ in 0..3 {
        let (_, last) = stage.world.stream_state().await?;
        let watermark = stage
            .world
            .postgres
            .execute(
                "SELECT watermark FROM rejoin.epochs WHERE shard = 0 ORDER BY ordinal DESC LIMIT 1",
            )
            .await?;
        let archived: u64 = watermark.trim().parse()?;
        let through = archived.min(last.saturating_sub(5));
        let payload = format!("{{\"seq\":{}}}", through + 1);
        stage.ask("PURGE", &payload).await?;
        // New edges have nothing of it in memory either.
        for edge in &mut stage.world.edges {
            edge.program.kill();
        }
        stage.everything_runs().await?;
        stage.pass(300..800).await;
    }
    Ok(())
}

/// The archive forgets everything up to now, while clients were away with older cursors.
pub(super) async fn retention(mut stage: Stage<'_>) -> anyhow::Result<()> {
    stage.at_rest().await?;
    let (_, last) = stage.world.stream_state().await?;
    let epoch = stage.world.epochs().await?.pop().context("no epoch")?;
    let through = Cursor::new(epoch, last);
    stage.load.recorder.note(What::Forgotten { through });
    // As the archiver does it when a partition is too old: floors rise first, then the rows go.
    stage
        .world
        .postgres
        .execute(&format!(
            "UPDATE rejoin.epochs SET floor_seq = {last} WHERE shard = 0 AND closed_at IS NULL; \
             UPDATE rejoin.epochs SET floor_seq = watermark WHERE shard = 0 AND closed_at IS NOT NULL; \
             DELETE FROM rejoin.messages WHERE true"
        ))
        .await?;
    stage.ask("PURGE", "").await?;
    for edge in &mut stage.world.edges {
        edge.program.kill();
    }
    stage.everything_runs().await?;
    stage.load.hush(false);
    stage.pass(1_000..2_000).await;
    Ok(())
}

pub(super) async fn nats_disk_full(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let disk = stage.world.backbone.disks.first();
    disk.context("no disk of its own")?.fill()?;
    stage.pass(2_000..4_000).await;
    let disk = stage.world.backbone.disks.first();
    disk.context("no disk of its own")?.free()?;
    // A server that could not write may have to be started again, as an operator would.
    stage.world.backbone.servers[0].stop().await;
    stage.everything_runs().await
}

pub(super) async fn postgres_disk_full(mut stage: Stage<'_>) -> anyhow::Result<()> {
    let disk = stage.world.postgres_disk.as_ref();
    disk.context("no disk of its own")?.fill()?;
    stage.pass(3_000..6_000).await;
    let disk = stage.world.postgres_disk.as_ref();
    disk.context("no disk of its own")?.free()?;
    stage.pass(500..1_000).await;
    let dead = stage.world.postgres.execute("SELECT 1").await.is_err();
    if dead {
        stage.world.postgres.stop().await;
    }
    stage.everything_runs().await
}

/// The machines of all nats-servers lose their power at once.
pub(super) async fn power_cut(mut stage: Stage<'_>) -> anyhow::Result<()> {
    // Some more messages since the start, whose state is on the disk.
    stage.pass(3_000..5_000).await;
    let all: Vec<usize> = (0..stage.world.backbone.servers.len()).collect();
    stage.world.backbone.cut_power(&all).await?;
    stage.pass(200..1_000).await;
    stage.everything_runs().await
}
