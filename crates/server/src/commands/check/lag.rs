//! How far the archive is, and whether the streams are those that it knows.

use std::time::Duration;

use backplane::{Backplane, Inspection, StreamInspection};
use delivery::archive::{ArchiveSink, ArchiveSource, ArchivedEpoch, SourceState};
use store::{Sink, Store};

use super::report::Report;
use crate::config::Config;

/// An archiver looks at its stream every second; one that has not for so long
/// does not run.
const UNSEEN: Duration = Duration::from_secs(60);

/// So much of its free room taken by what is not archived leaves time to act.
const LAG_WEAK_SHARE: f64 = 0.1;

/// Adds some lines for each shard that was archived before.
pub(super) async fn check(
    config: &Config,
    backplane: &Backplane,
    found: &Inspection,
    store: &Store,
    report: &mut Report,
) {
    for (shard, stream) in (0..).zip(&found.streams) {
        let Some(state) = &stream.state else { continue };
        let what = format!("archive of {}", stream.name);
        match Sink::new(store).newest_epoch(shard).await {
            Ok(None) => report.weak(
                format!("{what}: nothing was archived yet"),
                "an edge with store.archive.enabled, or `rejoin archive`, has to run",
            ),
            Ok(Some(archived)) => {
                let same = check_epoch(&what, backplane, shard, state, &archived, report).await;
                check_archiver(config, &what, stream, &archived, report);
                if same {
                    check_lag(&what, state, &archived, report);
                }
            }
            // Migrations that were not applied are told of elsewhere.
            Err(error) => report.weak(
                format!("{what}: {error}"),
                "run this again once an edge has brought the schema up to date",
            ),
        }
    }
}

/// Whether the stream is in the epoch that the archive knows, and holds what
/// the archiver saw in it.
async fn check_epoch(
    what: &str,
    backplane: &Backplane,
    shard: u16,
    state: &SourceState,
    archived: &ArchivedEpoch,
    report: &mut Report,
) -> bool {
    const ADVICE: &str = "run `rejoin archive` until it logs `a new epoch begins`, before any edge takes publishes \
                          (docs/RECIPES.md, \"Back up and restore NATS\")";
    if archived.epoch != state.epoch {
        report.weak(
            format!(
                "{what}: it is in epoch {}, the stream in {}",
                archived.epoch, state.epoch
            ),
            "the stream was made anew, or restored: run `rejoin archive` until it logs `a new epoch begins`, before any \
             edge takes publishes (docs/RECIPES.md)",
        );
        return false;
    }
    let highest = archived.observed.max(archived.watermark);
    if state.last < highest {
        let last = state.last;
        report.bad(
            format!("{what}: the stream ends at {last}, and {highest} was seen in it: it is an older copy"),
            ADVICE,
        );
        return false;
    }
    if let Some((seq, time_ms)) = archived.witness
        && let Ok(Some(found_ms)) = backplane.archive_source(shard).time_of(seq).await
        && found_ms != time_ms
    {
        report.bad(
            format!(
                "{what}: message {seq} is another one than was archived: the stream is another copy"
            ),
            ADVICE,
        );
        return false;
    }
    report.good(
        what,
        format!("the stream is in its epoch {}", archived.epoch),
    );
    true
}

fn check_archiver(
    config: &Config,
    what: &str,
    stream: &StreamInspection,
    archived: &ArchivedEpoch,
    report: &mut Report,
) {
    let seen_s = archived.observed_age.as_secs();
    if archived.observed_age > UNSEEN {
        let advice = match config.store.archive.enabled {
            true => "an edge archives while it runs: does one?",
            false => "run `rejoin archive`, as store.archive.enabled is off",
        };
        report.weak(format!("{what}: no archiver for {seen_s} s"), advice);
    } else if stream.archiver.as_ref().is_some_and(|it| !it.in_use) {
        report.good(what, "its archiver is between two batches");
    }
}

fn check_lag(what: &str, state: &SourceState, archived: &ArchivedEpoch, report: &mut Report) {
    if state.first > archived.watermark + 1 && state.first > 1 {
        let (from, to) = (archived.watermark + 1, state.first - 1);
        report.bad(
            format!("{what}: messages {from} to {to} left the stream before they were archived"),
            "somebody purged or limited it: see `nats stream info`; nothing here can bring them back",
        );
    }
    let waiting = state
        .last
        .saturating_sub(archived.watermark.max(state.first - 1));
    let held = (state.last + 1).saturating_sub(state.first).max(1);
    let waiting_bytes = state.bytes as f64 * waiting as f64 / held as f64;
    let share = match state.max_bytes {
        0 => 0.0,
        max => waiting_bytes / max as f64,
    };
    let found = format!(
        "{waiting} messages not archived yet, {:.1}% of the stream's byte limit",
        share * 100.0
    );
    match share > LAG_WEAK_SHARE {
        false => report.good(what, found),
        true => report.weak(
            format!("{what}: {found}"),
            "mend Postgres, or raise the limit: `nats stream edit --max-bytes`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Epoch;

    fn lag(first: u64, last: u64, watermark: u64) -> String {
        let state = SourceState {
            epoch: Epoch(1),
            first,
            last,
            bytes: (last + 1 - first) * 100,
            max_bytes: 100_000,
        };
        let archived = ArchivedEpoch {
            epoch: Epoch(1),
            start: 0,
            floor: 0,
            watermark,
            witness: None,
            observed: watermark,
            observed_age: Duration::ZERO,
        };
        let mut report = Report::default();
        check_lag("archive", &state, &archived, &mut report);
        report.text()
    }

    #[test]
    fn what_is_not_archived_is_weighed_against_the_limit() {
        assert!(lag(1, 100, 98).starts_with("ok    archive: 2 messages not archived yet, 0.2%"));
        assert!(lag(1, 500, 100).starts_with("weak  archive: 400 messages"));
        // An empty stream that was trimmed.
        assert!(lag(101, 100, 100).starts_with("ok    archive: 0 messages"));
    }

    #[test]
    fn what_left_too_early_is_told() {
        let report = lag(51, 100, 40);
        assert!(
            report.starts_with("BAD   archive: messages 41 to 50 left"),
            "{report}"
        );
    }
}
