//! The archive against the streams, message by message.
//!
//! What a stream still holds is compared with the archive's rows of the same
//! epoch and sequences, up to the last message that was archived. What has
//! left the stream cannot be compared with anything.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use backplane::{Backplane, TailStart};
use delivery::archive::{ArchiveSink, ArchivedEpoch};
use delivery::{Message, Tail, TailEvent};
use protocol::{Cursor, MessageId};
use store::archive::check::{ArchivedRow, rows};
use store::{Sink, Store};

use super::report::Report;

/// A tail that says nothing for so long has lost its server.
const SILENCE: Duration = Duration::from_secs(10);

/// Differences of one shard.
#[derive(Default)]
struct Comparison {
    compared: u64,
    missing: u64,
    extra: u64,
    different: u64,
    /// In the stream, and newer than everything archived.
    waiting: u64,
}

/// Adds a line for each shard.
pub(super) async fn compare(backplane: &Backplane, store: &Store, report: &mut Report) {
    for shard in 0..backplane.shards() {
        let what = format!("archive of shard {shard}");
        match compare_shard(backplane, store, shard).await {
            Ok(found) => add(&what, &found, report),
            Err(error) => report.bad(format!("{what}: {error:#}"), "run this again"),
        }
    }
}

fn add(what: &str, found: &Comparison, report: &mut Report) {
    let Comparison {
        compared,
        missing,
        extra,
        different,
        waiting,
    } = found;
    let line = format!(
        "{compared} messages compared: {missing} missing, {extra} extra, {different} different; \
         {waiting} not archived yet"
    );
    match missing + extra + different {
        0 => report.good(what, line),
        _ => report.bad(
            format!("{what}: {line}"),
            "this is a defect or somebody changed rows: keep the stream and report it",
        ),
    }
}

async fn compare_shard(
    backplane: &Backplane,
    store: &Store,
    shard: u16,
) -> anyhow::Result<Comparison> {
    // Asked before anything is read: what is archived meanwhile counts as
    // waiting, not as missing.
    let newest = Sink::new(store).newest_epoch(shard).await?;
    let archived = newest.context("nothing was archived yet")?;
    // From the stream's first message.
    let everything = TailStart::Fill {
        budget_bytes: u64::MAX,
        max_age: None,
    };
    let mut tail = backplane.tail(shard, everything);
    let mut found = Comparison::default();
    let mut reading: Option<(Cursor, u64)> = None;
    loop {
        let event = tokio::time::timeout(SILENCE, tail.next()).await;
        match event.context("the stream has gone silent")? {
            TailEvent::Started { after, last } => {
                ensure!(
                    after.epoch == archived.epoch,
                    "the archive is in epoch {}, the stream in {}",
                    archived.epoch,
                    after.epoch
                );
                match reading {
                    None => reading = Some((after, last)),
                    // Goes on after an interruption; the end stays.
                    Some((at, _)) => ensure!(at == after, "the stream moved on unseen"),
                }
            }
            TailEvent::Messages {
                messages, through, ..
            } => {
                let Some((after, last)) = &mut reading else {
                    bail!("the stream began in the middle");
                };
                // What was published since the start waits for the next time.
                let through = through.min(*last);
                let rows = rows(store, *after, through).await?;
                found.add(&messages, rows, through, &archived);
                after.seq = through;
            }
        }
        if reading.is_some_and(|(after, last)| after.seq >= last) {
            return Ok(found);
        }
    }
}

impl Comparison {
    /// Compares a piece of the stream, up to `through`, with the rows of the
    /// same piece.
    fn add(
        &mut self,
        messages: &[Message],
        rows: Vec<ArchivedRow>,
        through: u64,
        archived: &ArchivedEpoch,
    ) {
        let mut by_seq: BTreeMap<u64, ArchivedRow> = BTreeMap::new();
        for row in rows {
            if by_seq.insert(row.seq, row).is_some() {
                self.extra += 1;
            }
        }
        for message in messages.iter().filter(|message| message.seq() <= through) {
            let seq = message.seq();
            match by_seq.remove(&seq) {
                Some(row) => {
                    self.compared += 1;
                    self.different += u64::from(!is_same(&row, message));
                }
                None if seq > archived.watermark => self.waiting += 1,
                None if seq > archived.floor.max(archived.start) => self.missing += 1,
                // Of the epoch before, or known to be lost to the archive.
                None => {}
            }
        }
        self.extra += by_seq.len() as u64;
    }
}

fn is_same(row: &ArchivedRow, message: &Message) -> bool {
    row.channel == message.channel.as_str()
        && row.id.as_deref() == message.id.as_ref().map(MessageId::as_str)
        && row.time_ms == message.time_ms
        && row.data == message.data
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Channel, Epoch};

    fn message(seq: u64, data: &'static str) -> Message {
        Message {
            channel: Channel::parse("room:1").unwrap(),
            position: Cursor::new(Epoch(1), seq),
            prev: 0,
            id: None,
            kind: "".into(),
            sender: None,
            time_ms: 5,
            data: data.into(),
            traceparent: None,
        }
    }

    fn row(seq: u64, data: &str) -> ArchivedRow {
        ArchivedRow {
            seq,
            channel: "room:1".to_owned(),
            id: None,
            time_ms: 5,
            data: data.into(),
        }
    }

    #[test]
    fn every_kind_of_difference_is_counted() {
        let archived = ArchivedEpoch {
            epoch: Epoch(1),
            start: 0,
            floor: 1,
            watermark: 6,
            witness: None,
            observed: 8,
            observed_age: Duration::ZERO,
        };
        // 1 is below the floor, 3 is missing, 4 differs, 5 is not in the
        // stream, 6 is there twice, 7 waits, 8 is beyond the comparison.
        let messages = [1, 2, 3, 4, 6, 7, 8].map(|seq| message(seq, "x"));
        let rows = vec![
            row(2, "x"),
            row(4, "y"),
            row(5, "x"),
            row(6, "x"),
            row(6, "x"),
        ];
        let mut found = Comparison::default();
        found.add(&messages, rows, 7, &archived);
        let counts = [
            found.compared,
            found.missing,
            found.extra,
            found.different,
            found.waiting,
        ];
        assert_eq!(counts, [3, 1, 2, 1, 1]);
    }
}
