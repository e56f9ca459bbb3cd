//! What stream and archive hold, read without any code of the program under test.

use std::time::Duration;

use anyhow::{Context, ensure};
use protocol::{Channel, Cursor, Epoch};
use serde_json::json;
use tokio::time::{Instant, sleep};
use torture::checker::{Stored, Truth};

use super::{Wire, World, local};

/// Messages of one request; the server refuses more than 1,000.
const BATCH: u64 = 500;
/// The archiver is less than a second behind; after a fault of its own some seconds more.
const ARCHIVED: Duration = Duration::from_secs(40);

impl World {
    /// What is stored of the channels whose ids begin with `prefix`, once the archive is complete.
    pub(crate) async fn truth(&self, prefix: &str) -> anyhow::Result<Truth> {
        self.archived().await?;
        let epochs = self.epochs().await?;
        let current = *epochs.last().context("no epoch was archived")?;
        let (first, stream) = self.stream(prefix, current).await?;
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

    async fn stream(&self, prefix: &str, epoch: Epoch) -> anyhow::Result<(u64, Vec<Stored>)> {
        let (first, last) = self.stream_state().await?;
        let mut messages = Vec::new();
        let mut next = first.max(1);
        let server = &self.backbone.servers[0];
        let mut wire = Wire::connect(local(server.port())).await?;
        while next <= last {
            let request = json!({ "batch": BATCH, "seq": next, "next_by_subj": ">" });
            wire.send("$JS.API.DIRECT.GET.REJOIN_0", &request.to_string())
                .await?;
            let before = next;
            loop {
                let delivery = wire.next().await?;
                // 204: the end of the batch. 404: nothing at or after it.
                let status = delivery.headers.lines().next().unwrap_or_default();
                if status.contains("204") || status.contains("404") {
                    if status.contains("404") {
                        next = last + 1;
                    }
                    break;
                }
                let sequence = delivery.header("Nats-Sequence").context("no sequence")?;
                let seq: u64 = sequence.trim().parse()?;
                next = seq + 1;
                let subject = delivery.header("Nats-Subject").context("no subject")?;
                messages.extend(stored(prefix, subject.trim(), epoch, seq, &delivery.body));
            }
            ensure!(next > before, "the stream does not move on at {next}");
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

fn stored(prefix: &str, subject: &str, epoch: Epoch, seq: u64, body: &[u8]) -> Option<Stored> {
    let mut tokens = subject.rsplit('.');
    let (id, namespace) = (tokens.next()?, tokens.next()?);
    id.strip_prefix(prefix)?.strip_prefix('-')?;
    Some(Stored {
        channel: Channel::from_parts(namespace, id).ok()?,
        cursor: Cursor::new(epoch, seq),
        content: String::from_utf8_lossy(body).as_ref().into(),
    })
}
