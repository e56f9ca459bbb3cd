//! The loop that moves a shard's stream into the archive.
//!
//! One archiver per shard is active: it holds the archive's [`Lease`], the
//! others stand by. It may be killed at any point: messages and watermark
//! become durable together, and only then are the messages acknowledged to
//! the stream and, much later, trimmed from it. Whoever goes on starts from
//! the archive's watermark.

mod decide;
mod lives;
mod stats;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use protocol::Epoch;
use tokio::time::{Instant, sleep};

use crate::archive::{
    ArchiveBatch, ArchiveRetention, ArchiveSink, ArchiveSource, Lease, SinkError, SourceBatch,
    SourceError, SourceMessage,
};
use decide::Verdict;
pub use stats::ArchiverStats;

/// When and how much the archiver moves.
#[derive(Debug, Clone)]
pub struct ArchiverConfig {
    /// Unique to this process: the lease is held under it.
    pub holder: String,
    /// Another archiver takes over this long after the active one's last sign
    /// of life. Longer than a pause of the process or of Postgres that should
    /// not cause a take-over.
    pub lease_ttl: Duration,
    /// At most this many messages per transaction.
    pub max_batch_messages: usize,
    /// How long to wait for the first message of a batch; also how often an
    /// idle archiver compares stream and archive.
    pub max_wait: Duration,
    /// Archived messages stay in the stream for at least this long, so that
    /// catch-up and window fill need no archive.
    pub hot_time: Duration,
    /// Archived messages leave the stream sooner if it holds more than this
    /// share of its byte limit, so that the rest can take an outage of the
    /// archive. 0 to 1.
    pub hot_byte_share: f64,
    /// How often the stream is trimmed.
    pub trim_interval: Duration,
    /// How often partitions are prepared and expired ones dropped.
    pub maintenance_interval: Duration,
    /// An ended epoch counts as completely archived only if the stream was
    /// last seen at most this long before.
    pub max_evidence_age: Duration,
    /// Layout of the archive.
    pub retention: ArchiveRetention,
}

impl ArchiverConfig {
    /// The defaults for a process of this unique name.
    pub fn new(holder: impl Into<String>) -> Self {
        Self {
            holder: holder.into(),
            lease_ttl: Duration::from_secs(10),
            max_batch_messages: 5_000,
            max_wait: Duration::from_millis(500),
            hot_time: Duration::from_secs(3_600),
            hot_byte_share: 0.25,
            trim_interval: Duration::from_secs(10),
            maintenance_interval: Duration::from_secs(60),
            max_evidence_age: Duration::from_secs(60),
            retention: ArchiveRetention {
                keep: Some(Duration::from_secs(90 * 86_400)),
                partition_hours: 24,
                partitions_ahead: 2,
            },
        }
    }
}

/// The longest pause between attempts while stream or archive are away.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Missing sequences of a gap that are looked up to tell deleted messages
/// from messages that another consumer took.
const GAP_PROBES: u64 = 8;

/// The wall clock, in milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Moves one shard's stream into the archive.
pub struct Archiver<S, K> {
    shard: u16,
    config: ArchiverConfig,
    source: S,
    sink: K,
    now_ms: Clock,
    stats: Arc<ArchiverStats>,
}

/// Why archiving was interrupted.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the stream skipped messages after {after} that it still holds")]
    Gap { after: u64 },
    #[error("the stream is in another epoch than the archive")]
    OtherEpoch,
}

/// The active archiver's view of the archive.
struct Position {
    lease: Lease,
    epoch: Epoch,
    watermark: u64,
    /// The newest archived message and when the stream stored it.
    witness: Option<(u64, i64)>,
    /// Rounds in which nothing came although the stream holds more.
    stuck_rounds: u32,
}

impl<S: ArchiveSource, K: ArchiveSink> Archiver<S, K> {
    /// An archiver for one shard; [`Archiver::run`] starts it.
    pub fn new(shard: u16, config: ArchiverConfig, source: S, sink: K, now_ms: Clock) -> Self {
        Self {
            shard,
            config,
            source,
            sink,
            now_ms,
            stats: Arc::default(),
        }
    }

    /// What it is doing; shared and always up to date.
    pub fn stats(&self) -> Arc<ArchiverStats> {
        Arc::clone(&self.stats)
    }

    /// Archives until `stop` resolves, over all outages of either side, and
    /// then gives the lease up.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut lease = None;
        {
            let work = pin!(self.work(&mut lease));
            match select(pin!(stop), work).await {
                Either::Left(((), _)) => {}
                Either::Right((never, _)) => match never {},
            }
        }
        self.stats.set_active(false);
        if let Some(lease) = lease {
            // If this fails the lease runs out by itself.
            let _ = self.sink.release(&lease).await;
        }
    }

    async fn work(&self, held: &mut Option<Lease>) -> std::convert::Infallible {
        let mut backoff = MIN_BACKOFF;
        loop {
            let archived_before = self.stats.archived_messages();
            let interruption = match self.lead(held).await {
                Ok(never) => match never {},
                Err(interruption) => interruption,
            };
            self.stats.set_active(false);
            self.stats.count_interruption();
            if matches!(interruption, Interruption::Sink(SinkError::Fenced)) {
                *held = None;
            }
            if self.stats.archived_messages() > archived_before {
                backoff = MIN_BACKOFF;
            }
            if held.is_some() {
                self.report_lag().await;
            }
            tracing::warn!(
                shard = self.shard,
                error = %interruption,
                retry_ms = backoff.as_millis() as u64,
                "archiving interrupted"
            );
            sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Keeps the alarms truthful while the archive is away.
    async fn report_lag(&self) {
        if let Ok(state) = self.source.state().await {
            self.stats.set_stream(&state);
            let pending = state.last.saturating_sub(self.stats.watermark());
            self.covered(pending, self.stats.covered_ms());
        }
    }

    /// Takes the lease, finds out where to go on, and archives from there.
    async fn lead(
        &self,
        held: &mut Option<Lease>,
    ) -> Result<std::convert::Infallible, Interruption> {
        let lease = self.acquire().await?;
        *held = Some(lease.clone());
        let mut position = self.open(lease).await?;
        self.stats.set_active(true);
        self.source.rewind(position.watermark).await?;
        let mut next_maintenance = Instant::now();
        let mut next_trim = Instant::now() + self.config.trim_interval;
        loop {
            if Instant::now() >= next_maintenance {
                self.sink
                    .maintain(&position.lease, &self.config.retention, (self.now_ms)())
                    .await?;
                next_maintenance = Instant::now() + self.config.maintenance_interval;
            }
            if Instant::now() >= next_trim {
                self.trim(&position).await?;
                next_trim = Instant::now() + self.config.trim_interval;
            }
            let batch = self
                .source
                .next_batch(self.config.max_batch_messages, self.config.max_wait)
                .await?;
            if batch.messages.is_empty() {
                self.idle(&mut position).await?;
            } else {
                self.store(&mut position, batch).await?;
            }
        }
    }

    async fn acquire(&self) -> Result<Lease, SinkError> {
        loop {
            let lease = self
                .sink
                .acquire(self.shard, &self.config.holder, self.config.lease_ttl)
                .await?;
            if let Some(lease) = lease {
                return Ok(lease);
            }
            sleep(self.config.lease_ttl / 4).await;
        }
    }

    /// Nothing came: see whether the stream is still the one that is archived.
    async fn idle(&self, position: &mut Position) -> Result<(), Interruption> {
        let asked_ms = (self.now_ms)();
        let (archived, state, verdict) = self.look().await?;
        let ours = archived.is_some_and(|archived| {
            archived.epoch == position.epoch && archived.watermark == position.watermark
        });
        if !ours || verdict != Verdict::Continue {
            // Opening again sorts it out.
            return Err(Interruption::OtherEpoch);
        }
        if state.last <= position.watermark {
            position.stuck_rounds = 0;
            self.append(position, &[], position.watermark, state.last, asked_ms)
                .await?;
            self.covered(0, asked_ms);
            return Ok(());
        }
        // A message may just have arrived. If the same is seen again, its
        // delivery was lost or the stream ends in deleted messages.
        position.stuck_rounds += 1;
        let mut through = position.watermark;
        if position.stuck_rounds > 1 {
            self.check_gap(position.watermark, state.last + 1).await?;
            through = state.last;
        }
        self.append(position, &[], through, state.last, 0).await?;
        position.watermark = through;
        self.stats.set_watermark(through);
        Ok(())
    }

    fn covered(&self, pending: u64, covered_ms: i64) {
        let behind_ms = (self.now_ms)().saturating_sub(covered_ms);
        self.stats
            .set_lag(pending, if pending == 0 { 0 } else { behind_ms });
        self.stats.set_covered_ms(covered_ms);
    }

    async fn store(&self, position: &mut Position, batch: SourceBatch) -> Result<(), Interruption> {
        let watermark = position.watermark;
        let fresh = batch
            .messages
            .iter()
            .position(|m| m.message.seq() > watermark)
            .unwrap_or(batch.messages.len());
        let messages = &batch.messages[fresh..];
        let Some(last) = messages.last() else {
            // Redelivered: an acknowledgement was lost.
            self.source.ack_through(watermark).await?;
            return Ok(());
        };
        if messages
            .iter()
            .any(|m| m.message.position.epoch != position.epoch)
        {
            return Err(Interruption::OtherEpoch);
        }
        self.check_witness(position).await?;
        self.check_gaps(watermark, messages).await?;
        let through = last.message.seq();
        let last_ms = last.message.time_ms;
        // Not until now, even with nothing behind it: the next message may be
        // stored already and on its way. An idle stream's head says more.
        let covered_ms = last_ms;
        // Counted by the stream itself: a consumer's count of what is pending
        // may be off, and a head that never was would look like a lost one.
        let observed = if batch.pending == 0 {
            through
        } else {
            self.source.state().await?.last
        };
        self.append(position, messages, through, observed, covered_ms)
            .await?;
        position.watermark = through;
        position.witness = Some((through, last_ms));
        self.stats.set_watermark(through);
        position.stuck_rounds = 0;
        self.covered(batch.pending, covered_ms);
        self.stats.count_archived(messages.len());
        self.source.ack_through(through).await?;
        Ok(())
    }

    async fn append(
        &self,
        position: &Position,
        messages: &[SourceMessage],
        watermark: u64,
        observed: u64,
        covered_ms: i64,
    ) -> Result<(), SinkError> {
        let batch = ArchiveBatch {
            messages,
            epoch: position.epoch,
            after: position.watermark,
            watermark,
            observed,
            covered_ms,
        };
        self.sink.append(&position.lease, batch).await
    }

    /// A stream may be put back to an older copy at any time, and grow again
    /// beyond the watermark: what came after the archived messages then is
    /// not what comes after them now. So with every batch the stream shows
    /// that it still has the newest archived message as it was.
    async fn check_witness(&self, position: &Position) -> Result<(), Interruption> {
        let Some((seq, archived)) = position.witness else {
            return Ok(());
        };
        let same = match self.source.time_of(seq).await? {
            Some(stored) => stored == archived,
            // Gone from the stream: purged, or never in this one.
            None => self.look().await?.2 == Verdict::Continue,
        };
        if same {
            Ok(())
        } else {
            Err(Interruption::OtherEpoch)
        }
    }

    /// A missing sequence is a message that was deleted from the stream, or
    /// one that went to a superseded archiver on the same consumer. The
    /// latter is still in the stream: it must be fetched again.
    async fn check_gaps(
        &self,
        watermark: u64,
        messages: &[SourceMessage],
    ) -> Result<(), Interruption> {
        let mut before = watermark;
        for message in messages {
            let seq = message.message.seq();
            self.check_gap(before, seq).await?;
            before = seq;
        }
        Ok(())
    }

    /// Fails if the stream still holds a message between two sequences, as
    /// far as a few look-ups spread over them tell.
    async fn check_gap(&self, before: u64, next: u64) -> Result<(), Interruption> {
        let missing = next - before - 1;
        let probes = missing.min(GAP_PROBES);
        for n in 0..probes {
            let probe = before + 1 + n * (missing - 1) / (probes - 1).max(1);
            if self.source.time_of(probe).await?.is_some() {
                return Err(Interruption::Gap { after: before });
            }
        }
        Ok(())
    }

    async fn trim(&self, position: &Position) -> Result<(), Interruption> {
        let state = self.source.state().await?;
        if state.epoch != position.epoch {
            return Err(Interruption::OtherEpoch);
        }
        self.stats.set_stream(&state);
        let hot_ms = i64::try_from(self.config.hot_time.as_millis()).unwrap_or(i64::MAX);
        let aged = self
            .source
            .last_before((self.now_ms)().saturating_sub(hot_ms))
            .await?;
        let share = self.config.hot_byte_share;
        if let Some(target) = decide::trim_target(&state, position.watermark, aged, share) {
            self.source.trim_through(target).await?;
        }
        Ok(())
    }
}
