//! Comparing the lives of stream and archive, and beginning new epochs.

use std::time::Duration;

use protocol::{Cursor, Epoch};
use tokio::time::{Instant, sleep};

use super::decide::{self, Verdict};
use super::{Archiver, Interruption, Position};
use crate::archive::{
    ArchiveSink, ArchiveSource, ArchivedEpoch, Lease, SinkError, SourceState, Told,
};

/// How many neighbours of a deleted message the search for the common part of
/// two lives looks at before it gives up on that side.
const PROBE_NEIGHBOURS: u64 = 64;

/// How long the edges are waited for when an epoch has ended. They hear of it
/// at once and say so within a second; one that takes longer is cut off, and
/// nobody with a cursor of either epoch gets on before this is decided.
const TOLD_WAIT: Duration = Duration::from_secs(5);
const TOLD_POLL: Duration = Duration::from_millis(100);

impl<S: ArchiveSource, K: ArchiveSink> Archiver<S, K> {
    /// Compares stream and archive and brings the archive to where archiving
    /// can go on.
    pub(super) async fn open(&self, lease: Lease) -> Result<Position, Interruption> {
        let (archived, state, verdict) = self.look().await?;
        let mut witness = None;
        let (epoch, start, watermark) = match (verdict, archived) {
            (Verdict::Continue, Some(archived)) => {
                witness = archived.witness;
                (archived.epoch, archived.start, archived.watermark)
            }
            (Verdict::Lost { floor }, Some(archived)) => {
                tracing::error!(
                    shard = self.shard,
                    epoch = %archived.epoch,
                    messages = floor - archived.watermark,
                    "messages left the stream before they were archived"
                );
                self.sink.raise_floor(&lease, archived.epoch, floor).await?;
                (archived.epoch, archived.start, floor)
            }
            (Verdict::Restored, archived) => {
                self.begin(&lease, archived.as_ref(), &state, true).await?
            }
            (_, archived) => self.begin(&lease, archived.as_ref(), &state, false).await?,
        };
        // The part that an epoch shares with the one before is archived under
        // that one; nobody shall read it again from the stream. It is gone
        // already unless that archiver was killed, or a copy was put back.
        if state.first <= start {
            self.source.trim_through(start).await?;
        }
        self.stats.set_watermark(watermark);
        Ok(Position {
            lease,
            epoch,
            watermark,
            witness,
            stuck_rounds: 0,
        })
    }

    pub(super) async fn look(
        &self,
    ) -> Result<(Option<ArchivedEpoch>, SourceState, Verdict), Interruption> {
        // The archive first: the stream only grows, so a stream that is
        // behind the archive was behind it all along.
        let archived = self.sink.newest_epoch(self.shard).await?;
        let state = self.source.state().await?;
        let witnessed = match archived.as_ref().and_then(|archived| archived.witness) {
            Some((seq, _)) if seq >= state.first && seq <= state.last => {
                self.source.time_of(seq).await?
            }
            _ => None,
        };
        let verdict = decide::inspect(archived.as_ref(), &state, witnessed);
        self.stats.set_stream(&state);
        Ok((archived, state, verdict))
    }

    /// Starts an epoch in the archive, and in the stream if it still carries
    /// an old one.
    async fn begin(
        &self,
        lease: &Lease,
        archived: Option<&ArchivedEpoch>,
        state: &SourceState,
        restored: bool,
    ) -> Result<(Epoch, u64, u64), Interruption> {
        let common = match archived {
            Some(archived) => self.common(archived, state).await?,
            None => None,
        };
        if let Some(common) = common.filter(|common| *common >= state.first) {
            // Archived under the old epoch. It goes before the new one shows:
            // an edge that fills its window from the stream would give it to
            // readers once more.
            self.source.trim_through(common).await?;
        }
        let mut epoch = if restored {
            self.source.begin_epoch().await?
        } else {
            state.epoch
        };
        loop {
            let told = match archived {
                Some(archived) => self.told(lease, archived, epoch).await?,
                None => None,
            };
            let new = decide::new_epoch(
                epoch,
                archived,
                state,
                common,
                restored,
                self.config.max_evidence_age,
                told,
            );
            if self.sink.begin_epoch(lease, &new).await? {
                tracing::warn!(
                    shard = self.shard,
                    epoch = %new.epoch,
                    start = new.start,
                    floor = new.floor,
                    previous_complete = new.previous_complete,
                    "a new epoch begins"
                );
                self.stats.count_epoch();
                return Ok((epoch, new.start, new.floor));
            }
            // The stream carries an epoch that had ended before.
            epoch = self.source.begin_epoch().await?;
        }
    }

    /// The highest sequence of the ended epoch that anybody was told of.
    /// Waits for the edges for a bounded time, and keeps the lease meanwhile.
    async fn told(
        &self,
        lease: &Lease,
        ended: &ArchivedEpoch,
        next: Epoch,
    ) -> Result<Option<u64>, Interruption> {
        if !decide::may_be_complete(ended, self.config.max_evidence_age) {
            return Ok(None);
        }
        let now = Instant::now();
        let seen = now.checked_sub(ended.observed_age).unwrap_or(now);
        loop {
            match self.source.told(ended.epoch, next, seen) {
                Told::Through(seq) => return Ok(Some(seq)),
                Told::NotYet if now.elapsed() < TOLD_WAIT => {}
                Told::NotYet | Told::Unknown => return Ok(None),
            }
            let held = (self.config.holder.as_str(), self.config.lease_ttl);
            let held = self.sink.acquire(self.shard, held.0, held.1).await?;
            if held.as_ref() != Some(lease) {
                return Err(SinkError::Fenced.into());
            }
            sleep(TOLD_POLL).await;
        }
    }

    /// The newest sequence that the stream holds with the time that the
    /// archive has for it: where two lives part. Times are compared by
    /// bisection, as once they part they stay apart.
    async fn common(
        &self,
        archived: &ArchivedEpoch,
        state: &SourceState,
    ) -> Result<Option<u64>, Interruption> {
        let mut same = None;
        let mut low = state.first.max(archived.floor + 1);
        let mut high = state.last.min(archived.watermark);
        while low <= high {
            let middle = low + (high - low) / 2;
            match self.same_at_or_below(archived, middle, low).await? {
                Some(_) => {
                    same = Some(middle);
                    low = middle + 1;
                }
                None => high = middle - 1,
            }
        }
        Ok(same)
    }

    /// Whether stream and archive agree at `seq`, or, where one of them lacks
    /// it, at the nearest sequence below that both have.
    async fn same_at_or_below(
        &self,
        archived: &ArchivedEpoch,
        seq: u64,
        lowest: u64,
    ) -> Result<Option<u64>, Interruption> {
        let lowest = lowest.max(seq.saturating_sub(PROBE_NEIGHBOURS));
        for seq in (lowest..=seq).rev() {
            let Some(stored) = self.source.time_of(seq).await? else {
                continue;
            };
            let position = Cursor::new(archived.epoch, seq);
            if let Some(time) = self.sink.archived_time(self.shard, position).await? {
                return Ok((time == stored).then_some(seq));
            }
        }
        Ok(None)
    }
}
