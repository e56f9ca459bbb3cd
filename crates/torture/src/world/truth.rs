//! What stream and archive hold, read without any code of the program under test.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use protocol::{Channel, Cursor, Epoch};
use serde_json::json;
use tokio::time::{Instant, sleep};
use torture::checker::{Stored, Truth};

use super::{Wire, World, local};

/// The archiver is less than a second behind; after a fault of its own some seconds more.
const ARCHIVED: Duration = Duration::from_secs(40);

impl World {
    /// What is stored of the channels, whose ids begin with `prefix`, once the archive is complete.
    pub(crate) async fn truth(&self, prefix: &str, channels: &[Channel]) -> anyhow::Result<Truth> {
        self.archived().await?;
        let epochs = self.epochs().await?;
        let current = *epochs.last().context("no epoch was archived")?;
        let (first, stream) = self.stream(channels, current).await?;
        let archive = self.archive(prefix).await?;
        Ok(Truth {
            epochs,
            stream,
            stream_first: [(current, first)].into(),
            archive: Some(archive),
        })
    }

    /// Waits until everything in the stream is archived, as the archive says.
    pub(crate) async fn archived(&self) -> anyhow::Result<()> {
        let end = Instant::now() + ARCHIVED;
        loop {
            let last = self.stream_state().await.map(|(_, last)| last);
            let watermark = self
                .postgres
                .execute(
                    "SELECT watermark FROM rejoin.epochs WHERE shard = 0 ORDER BY ordinal DESC LIMIT 1",
                )
                .await;
            let watermark = watermark.map(|it| it.trim().parse::<u64>().unwrap_or(0));
            if let (Ok(last), Ok(watermark)) = (&last, &watermark)
                && watermark >= last
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "the archive is not complete: the stream ends at {last:?}, the archive at {watermark:?}"
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The lives of the stream, in order.
    pub(crate) async fn epochs(&self) -> anyhow::Result<Vec<Epoch>> {
        let text = self
            .postgres
            .execute(
                "SELECT lpad(to_hex(epoch), 16, '0') FROM rejoin.epochs WHERE shard = 0 ORDER BY ordinal",
            )
            .await?;
        let lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
        Ok(lines.map(Epoch::parse).collect::<Result<_, _>>()?)
    }

    /// The first and last sequence of the stream.
    pub(crate) async fn stream_state(&self) -> anyhow::Result<(u64, u64)> {
        let info = self
            .backbone
            .ask("$JS.API.STREAM.INFO.REJOIN_0", "")
            .await?;
        let number = |name: &str| info["state"][name].as_u64();
        number("first_seq")
            .zip(number("last_seq"))
            .with_context(|| format!("no state in {info}"))
    }

    async fn stream(
        &self,
        channels: &[Channel],
        epoch: Epoch,
    ) -> anyhow::Result<(u64, Vec<Stored>)> {
        let (first, last) = self.stream_state().await?;
        let mut messages = Vec::new();
        let server = &self.backbone.servers[0];
        let mut wire = Wire::connect(local(server.port())).await?;
        for channel in channels {
            let subject = format!("rejoin.msg.0.{}.{}", channel.namespace(), channel.id());
            let mut next = first.max(1);
            while next <= last {
                // The leader answers this; other ways of reading may be behind.
                let request = json!({ "seq": next, "next_by_subj": subject });
                let answer = wire
                    .ask("$JS.API.STREAM.MSG.GET.REJOIN_0", &request.to_string())
                    .await?;
                // 10037: no message found.
                if answer["error"]["err_code"] == 10037 {
                    break;
                }
                let message = &answer["message"];
                let seq = message["seq"].as_u64();
                let seq = seq.with_context(|| format!("no message in {answer}"))?;
                let data = message["data"].as_str().unwrap_or_default();
                let data = BASE64_STANDARD.decode(data)?;
                messages.push(Stored {
                    channel: channel.clone(),
                    cursor: Cursor::new(epoch, seq),
                    content: String::from_utf8_lossy(&data).as_ref().into(),
                });
                next = seq + 1;
            }
        }
        Ok((first, messages))
    }

    async fn archive(&self, prefix: &str) -> anyhow::Result<Vec<Stored>> {
        let text = self
            .postgres
            .execute(&format!(
                "SELECT lpad(to_hex(e.epoch), 16, '0'), m.seq, m.channel, convert_from(m.data, 'UTF8') \
                 FROM rejoin.messages m JOIN rejoin.epochs e USING (epoch_no) \
                 WHERE m.channel LIKE 'room:{prefix}-%' ORDER BY e.ordinal, m.seq"
            ))
            .await?;
        let row = |line: &str| {
            let mut cells = line.splitn(4, '|');
            let mut cell = || cells.next().context("a row with too few columns");
            let (epoch, seq) = (Epoch::parse(cell()?)?, cell()?.parse()?);
            Ok(Stored {
                cursor: Cursor::new(epoch, seq),
                channel: Channel::parse(cell()?)?,
                content: cell()?.into(),
            })
        };
        text.lines()
            .filter(|it| !it.trim().is_empty())
            .map(row)
            .collect()
    }
}
