//! Writing the archive.

use std::time::Duration;

use delivery::archive::{
    ArchiveBatch, ArchiveRetention, ArchiveSink, ArchivedEpoch, Lease, NewEpoch, SinkError,
    SourceMessage,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use protocol::{Cursor, Epoch};
use sqlx::postgres::PgConnection;
use tokio::time::timeout;

use super::copy::CopyBuffer;
use super::epochs::{epoch_from_sql, epoch_to_sql, seq_from_sql, seq_to_sql};
use super::partitions::{self, Spans};
use crate::connect::{Session, Store, statement};
use crate::error::StoreError;

/// The width of a partition that had to be created for a message before
/// [`ArchiveSink::maintain`] told the configured one.
const DEFAULT_PARTITION_HOURS: i32 = 24;

/// A transaction ends in a partition's creation at most this often before it
/// gives up.
const PARTITION_ATTEMPTS: usize = 3;

/// The archive as an [`ArchiveSink`].
#[derive(Debug)]
pub struct Sink {
    store: Store,
    layout: Mutex<Layout>,
}

#[derive(Debug)]
struct Layout {
    spans: Spans,
    width_hours: i32,
}

/// The shard's newest epoch, locked for the transaction.
struct Newest {
    epoch_no: i32,
    epoch: i64,
    ordinal: i32,
    watermark: i64,
    bucket: i32,
}

/// How a batch is spread over the partitions.
#[derive(Debug, Clone, Copy)]
struct Segment {
    bucket: i32,
    first_seq: i64,
    last_seq: i64,
}

impl Sink {
    /// The archive of this store.
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            layout: Mutex::new(Layout {
                spans: Spans::default(),
                width_hours: DEFAULT_PARTITION_HOURS,
            }),
        }
    }

    async fn written<T>(
        &self,
        write: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        match timeout(self.store.config().write_timeout(), write).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::unavailable("not written in time").into()),
        }
    }

    /// A session in a transaction that only the holder of the lease can have: the lease is
    /// locked until it ends, and extended.
    async fn begin(&self, lease: &Lease) -> Result<Session, SinkError> {
        let mut session = self.store.session().await?;
        session.begin().await?;
        let held = sqlx::query!(
            "UPDATE rejoin.archiver_leases
             SET expires_at = clock_timestamp() + make_interval(secs => ttl_ms / 1000.0)
             WHERE shard = $1 AND token = $2",
            i32::from(lease.shard),
            lease.token,
        )
        .execute(&mut *session)
        .await
        .map_err(unavailable)?;
        if held.rows_affected() == 0 {
            session.rollback().await?;
            return Err(SinkError::Fenced);
        }
        Ok(session)
    }

    async fn append_batch(&self, lease: &Lease, batch: &ArchiveBatch<'_>) -> Result<(), SinkError> {
        for _ in 0..PARTITION_ATTEMPTS {
            let mut session = self.begin(lease).await?;
            let newest = newest(&mut session, lease.shard).await?;
            let newest = newest.filter(|newest| {
                newest.epoch == epoch_to_sql(batch.epoch)
                    && newest.watermark == seq_to_sql(batch.after)
            });
            let Some(newest) = newest else {
                return Err(SinkError::Moved {
                    reason: String::from("its watermark is not where the batch begins"),
                });
            };
            let buckets = {
                let layout = self.layout.lock();
                place(&layout.spans, newest.bucket, batch.messages, now_ms())
            };
            match buckets {
                Ok(buckets) => {
                    let stored = store_batch(&mut session, &newest, batch, &buckets).await;
                    if stored.is_err() {
                        // A partition may be gone: look before the next try.
                        self.layout.lock().spans = Spans::default();
                    }
                    stored?;
                    return Ok(session.commit().await?);
                }
                Err(hours) => {
                    session.rollback().await?;
                    self.create_partitions(hours).await?;
                }
            }
        }
        Err(StoreError::unavailable("partitions vanish as they are created").into())
    }

    async fn create_partitions(&self, hours: Vec<i32>) -> Result<(), SinkError> {
        let width = self.layout.lock().width_hours;
        let spans = partitions::create(&self.store, hours, width).await?;
        self.layout.lock().spans = spans;
        Ok(())
    }
}

fn unavailable(error: sqlx::Error) -> SinkError {
    StoreError::from(error).into()
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The bucket of each message, or the hours for which a partition is missing.
/// Buckets never decrease, whatever the clocks did, and a clock that runs
/// ahead of ours does not drag them into the future.
fn place(
    spans: &Spans,
    mut bucket: i32,
    messages: &[SourceMessage],
    now_ms: i64,
) -> Result<Vec<i32>, Vec<i32>> {
    let mut buckets = Vec::with_capacity(messages.len());
    let mut missing = Vec::new();
    for message in messages {
        let hour = partitions::hour(message.message.time_ms.min(now_ms));
        // The bucket of an earlier message may have been dropped since: that
        // is a missing partition like any other.
        match spans.holding(hour.max(bucket)) {
            Some(span) => {
                bucket = span.bucket;
                buckets.push(bucket);
            }
            None if missing.last() == Some(&hour.max(bucket)) => {}
            None => missing.push(hour.max(bucket)),
        }
    }
    if missing.is_empty() {
        Ok(buckets)
    } else {
        Err(missing)
    }
}

async fn newest(connection: &mut PgConnection, shard: u16) -> Result<Option<Newest>, SinkError> {
    sqlx::query_as!(
        Newest,
        "SELECT epoch_no, epoch, ordinal, watermark, bucket FROM rejoin.epochs
         WHERE shard = $1 ORDER BY ordinal DESC LIMIT 1 FOR UPDATE",
        i32::from(shard),
    )
    .fetch_optional(connection)
    .await
    .map_err(unavailable)
}

/// Rows, segments and watermark; the caller commits.
async fn store_batch(
    connection: &mut PgConnection,
    newest: &Newest,
    batch: &ArchiveBatch<'_>,
    buckets: &[i32],
) -> Result<(), SinkError> {
    let mut segments: Vec<Segment> = Vec::new();
    if !batch.messages.is_empty() {
        let mut buffer = CopyBuffer::with_capacity(batch.messages.len());
        for (message, bucket) in batch.messages.iter().zip(buckets) {
            buffer.push(newest.epoch_no, *bucket, message);
            let seq = seq_to_sql(message.message.seq());
            match segments.last_mut().filter(|last| last.bucket == *bucket) {
                Some(last) => last.last_seq = seq,
                None => segments.push(Segment {
                    bucket: *bucket,
                    first_seq: seq,
                    last_seq: seq,
                }),
            }
        }
        let mut copy = connection
            .copy_in_raw(CopyBuffer::STATEMENT)
            .await
            .map_err(unavailable)?;
        copy.send(buffer.finish()).await.map_err(unavailable)?;
        copy.finish().await.map_err(unavailable)?;
    }
    let of_buckets: Vec<i32> = segments.iter().map(|s| s.bucket).collect();
    let firsts: Vec<i64> = segments.iter().map(|s| s.first_seq).collect();
    let lasts: Vec<i64> = segments.iter().map(|s| s.last_seq).collect();
    let last = batch.messages.last().map(|last| &last.message);
    sqlx::query!(
        "WITH moved AS (
             INSERT INTO rejoin.segments (epoch_no, bucket, first_seq, last_seq)
             SELECT $1, * FROM unnest($2::integer[], $3::bigint[], $4::bigint[])
             ON CONFLICT (epoch_no, bucket) DO UPDATE SET last_seq = excluded.last_seq
         )
         UPDATE rejoin.epochs SET
             watermark = $5,
             witness_seq = coalesce($6, witness_seq),
             witness_time_ms = coalesce($7, witness_time_ms),
             bucket = $8,
             observed_seq = greatest(observed_seq, $9),
             observed_at = clock_timestamp(),
             covered_ms = greatest(covered_ms, $10)
         WHERE epoch_no = $1",
        newest.epoch_no,
        &of_buckets,
        &firsts,
        &lasts,
        seq_to_sql(batch.watermark),
        last.map(|last| seq_to_sql(last.seq())),
        last.map(|last| last.time_ms),
        buckets.last().copied().unwrap_or(newest.bucket),
        seq_to_sql(batch.observed),
        batch.covered_ms,
    )
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

impl ArchiveSink for Sink {
    fn acquire<'a>(
        &'a self,
        shard: u16,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, SinkError>> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let query = async move {
            let token = statement!(self.store, fetch_optional, sqlx::query_scalar!(
                "INSERT INTO rejoin.archiver_leases AS held (shard, holder, token, ttl_ms, expires_at)
                 VALUES ($1, $2, 1, $3::bigint, clock_timestamp() + make_interval(secs => $3::bigint / 1000.0))
                 ON CONFLICT (shard) DO UPDATE SET
                     token = CASE WHEN held.holder = excluded.holder THEN held.token ELSE held.token + 1 END,
                     holder = excluded.holder, ttl_ms = excluded.ttl_ms, expires_at = excluded.expires_at
                 WHERE held.holder = excluded.holder OR held.expires_at < clock_timestamp()
                 RETURNING token",
                i32::from(shard),
                holder,
                ttl_ms,
            ));
            Ok(token.map(|token| Lease { shard, token }))
        };
        self.written(query).boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), SinkError>> {
        let query = async move {
            statement!(
                self.store,
                execute,
                sqlx::query!(
                    "UPDATE rejoin.archiver_leases SET expires_at = '-infinity', holder = ''
                 WHERE shard = $1 AND token = $2",
                    i32::from(lease.shard),
                    lease.token,
                )
            );
            Ok(())
        };
        self.written(query).boxed()
    }

    fn newest_epoch(&self, shard: u16) -> BoxFuture<'_, Result<Option<ArchivedEpoch>, SinkError>> {
        let query = async move {
            let row = statement!(
                self.store,
                fetch_optional,
                sqlx::query!(
                    r#"SELECT epoch, start_seq, floor_seq, watermark, witness_seq, witness_time_ms, observed_seq,
                          (extract(epoch FROM clock_timestamp() - observed_at) * 1000)::bigint AS "age_ms!"
                   FROM rejoin.epochs WHERE shard = $1 ORDER BY ordinal DESC LIMIT 1"#,
                    i32::from(shard),
                )
            );
            Ok(row.map(|row| ArchivedEpoch {
                epoch: epoch_from_sql(row.epoch),
                start: seq_from_sql(row.start_seq),
                floor: seq_from_sql(row.floor_seq),
                watermark: seq_from_sql(row.watermark),
                witness: row.witness_seq.map(seq_from_sql).zip(row.witness_time_ms),
                observed: seq_from_sql(row.observed_seq),
                observed_age: Duration::from_millis(seq_from_sql(row.age_ms)),
            }))
        };
        self.written(query).boxed()
    }

    fn archived_time(
        &self,
        shard: u16,
        position: Cursor,
    ) -> BoxFuture<'_, Result<Option<i64>, SinkError>> {
        let query = async move {
            Ok(statement!(self.store, fetch_optional, sqlx::query_scalar!(
                "SELECT m.time_ms FROM rejoin.epochs e
                 JOIN rejoin.segments s ON s.epoch_no = e.epoch_no AND $3 BETWEEN s.first_seq AND s.last_seq
                 JOIN rejoin.messages m ON m.epoch_no = e.epoch_no AND m.bucket = s.bucket AND m.seq = $3
                 WHERE e.shard = $1 AND e.epoch = $2",
                i32::from(shard),
                epoch_to_sql(position.epoch),
                seq_to_sql(position.seq),
            )))
        };
        self.written(query).boxed()
    }

    fn begin_epoch<'a>(
        &'a self,
        lease: &'a Lease,
        new: &'a NewEpoch,
    ) -> BoxFuture<'a, Result<bool, SinkError>> {
        let write = async move {
            let mut session = self.begin(lease).await?;
            let newest = newest(&mut session, lease.shard).await?;
            let epoch = epoch_to_sql(new.epoch);
            if newest.as_ref().is_some_and(|newest| newest.epoch == epoch) {
                // Begun before; its confirmation was lost.
                return Ok(true);
            }
            let inserted = sqlx::query!(
                "INSERT INTO rejoin.epochs (shard, ordinal, epoch, start_seq, floor_seq, watermark, observed_seq)
                 VALUES ($1, $2, $3, $4, $5, $5, $5) ON CONFLICT (epoch) DO NOTHING",
                i32::from(lease.shard),
                newest.as_ref().map_or(1, |newest| newest.ordinal + 1),
                epoch,
                seq_to_sql(new.start),
                seq_to_sql(new.floor),
            )
            .execute(&mut *session)
            .await
            .map_err(unavailable)?;
            if inserted.rows_affected() == 0 {
                return Ok(false);
            }
            if let Some(newest) = newest {
                sqlx::query!(
                    "UPDATE rejoin.epochs SET closed_at = now(), complete = $2 WHERE epoch_no = $1",
                    newest.epoch_no,
                    new.previous_complete,
                )
                .execute(&mut *session)
                .await
                .map_err(unavailable)?;
            }
            session.commit().await?;
            Ok(true)
        };
        self.written(write).boxed()
    }

    fn raise_floor<'a>(
        &'a self,
        lease: &'a Lease,
        epoch: Epoch,
        floor: u64,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        let write = async move {
            let mut session = self.begin(lease).await?;
            let raised = sqlx::query!(
                "UPDATE rejoin.epochs SET
                     floor_seq = greatest(floor_seq, $3), watermark = greatest(watermark, $3),
                     observed_seq = greatest(observed_seq, $3)
                 WHERE shard = $1 AND epoch = $2 AND closed_at IS NULL",
                i32::from(lease.shard),
                epoch_to_sql(epoch),
                seq_to_sql(floor),
            )
            .execute(&mut *session)
            .await
            .map_err(unavailable)?;
            if raised.rows_affected() == 0 {
                return Err(SinkError::Moved {
                    reason: String::from("the epoch is closed"),
                });
            }
            Ok(session.commit().await?)
        };
        self.written(write).boxed()
    }

    fn append<'a>(
        &'a self,
        lease: &'a Lease,
        batch: ArchiveBatch<'a>,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        let write = async move { self.append_batch(lease, &batch).await };
        self.written(write).boxed()
    }

    fn maintain<'a>(
        &'a self,
        lease: &'a Lease,
        retention: &'a ArchiveRetention,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        let write = async move {
            // Proves the lease; nothing below harms if it is lost meanwhile.
            let session = self.begin(lease).await?;
            session.commit().await?;
            let width = i32::try_from(retention.partition_hours.clamp(1, 24 * 366)).unwrap_or(24);
            self.layout.lock().width_hours = width;
            if let Some(keep) = retention.keep {
                let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
                let before = partitions::hour(now_ms.saturating_sub(keep_ms));
                partitions::expire(&self.store, before).await?;
            }
            let now = partitions::hour(now_ms);
            let ahead = i32::try_from(retention.partitions_ahead.min(1_000)).unwrap_or(0);
            let hours = (0..=ahead).map(|n| now.saturating_add(n.saturating_mul(width)));
            let spans = partitions::create(&self.store, hours, width).await?;
            self.layout.lock().spans = spans;
            Ok(())
        };
        self.written(write).boxed()
    }
}
