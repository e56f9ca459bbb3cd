//! The time partitions: which exist, which come next, which expire.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::connect::{Store, statement};
use crate::error::StoreError;

const HOUR_MS: i64 = 3_600_000;

/// Taken by whoever changes partitions, for as long as it does.
const PARTITIONS_LOCK: i64 = 0x7265_6a6f_696e_0001;

/// Between the moment when a partition's messages count as expired and its
/// drop: longer than any query that began before.
const GRACE_SECONDS: f64 = 30.0;

/// The hours since the Unix epoch that one partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) bucket: i32,
    pub(super) end: i32,
}

/// The hour of a time, as far as 32 bits count them.
pub(super) fn hour(time_ms: i64) -> i32 {
    i32::try_from(time_ms.div_euclid(HOUR_MS)).unwrap_or(if time_ms < 0 {
        i32::MIN / 2
    } else {
        i32::MAX / 2
    })
}

/// The partitions that exist, ascending and disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    pub(super) fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_by_key(|span| span.bucket);
        Self(spans)
    }

    /// The partition that holds an hour.
    pub(super) fn holding(&self, hour: i32) -> Option<Span> {
        let after = self.0.partition_point(|span| span.bucket <= hour);
        let span = *self.0[..after].last()?;
        (hour < span.end).then_some(span)
    }

    /// The partition to create for an hour that none holds: the aligned span
    /// of `width_hours` around it, less what its neighbours hold already.
    fn missing(&self, hour: i32, width_hours: i32) -> Span {
        let width = width_hours.max(1);
        let bucket = hour.div_euclid(width) * width;
        let after = self.0.partition_point(|span| span.bucket <= hour);
        let from = self.0[..after].last().map_or(bucket, |span| span.end);
        let to = self.0.get(after).map_or(i32::MAX, |span| span.bucket);
        Span {
            bucket: bucket.max(from),
            end: bucket.saturating_add(width).min(to),
        }
    }
}

/// The partitions that messages may go to.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Spans, StoreError> {
    let rows = sqlx::query_as!(
        Span,
        r#"SELECT bucket, bucket_end AS "end" FROM rejoin.partitions ORDER BY bucket"#
    )
    .fetch_all(connection)
    .await?;
    Ok(Spans::new(rows))
}

/// Creates what is missing so that each of these hours has its partition.
/// Readers and writers go on meanwhile: a table is created on its own and
/// then attached.
pub(super) async fn create(
    store: &Store,
    hours: impl IntoIterator<Item = i32>,
    width_hours: i32,
) -> Result<Spans, StoreError> {
    let mut session = store.session().await?;
    session.begin().await?;
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1) AS locked",
        PARTITIONS_LOCK
    )
    .fetch_one(&mut *session)
    .await?;
    let mut spans = load(&mut session).await?;
    for hour in hours {
        if spans.holding(hour).is_some() {
            continue;
        }
        let span = spans.missing(hour, width_hours);
        let Span { bucket, end } = span;
        let name = name(bucket);
        sqlx::raw_sql(AssertSqlSafe(format!(
            "SET LOCAL lock_timeout = '3s';
             CREATE TABLE {name} (LIKE rejoin.messages INCLUDING DEFAULTS INCLUDING STORAGE);
             ALTER TABLE rejoin.messages ATTACH PARTITION {name} FOR VALUES FROM ({bucket}) TO ({end});"
        )))
        .execute(&mut *session)
        .await?;
        sqlx::query!(
            "INSERT INTO rejoin.partitions (bucket, bucket_end) VALUES ($1, $2)",
            bucket,
            end
        )
        .execute(&mut *session)
        .await?;
        spans.0.push(span);
        spans = Spans::new(spans.0);
    }
    session.commit().await?;
    Ok(spans)
}

/// The table of a partition. Hours before 1970 occur only with broken clocks.
fn name(bucket: i32) -> String {
    if bucket < 0 {
        format!("rejoin.messages_m{}", bucket.unsigned_abs())
    } else {
        format!("rejoin.messages_{bucket}")
    }
}

/// Lets the partitions that end before `before_hour` expire: at first their
/// messages no longer count as archived, some time later they are dropped.
pub(super) async fn expire(store: &Store, before_hour: i32) -> Result<(), StoreError> {
    let mut session = store.session().await?;
    session.begin().await?;
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1) AS locked",
        PARTITIONS_LOCK
    )
    .fetch_one(&mut *session)
    .await?;
    sqlx::query!(
        "UPDATE rejoin.partitions SET expired_at = now() WHERE bucket_end <= $1 AND expired_at IS NULL",
        before_hour
    )
    .execute(&mut *session)
    .await?;
    raise_floors(&mut session).await?;
    session.commit().await?;

    let due = statement!(
        store,
        fetch_all,
        sqlx::query_scalar!(
            "SELECT bucket FROM rejoin.partitions WHERE expired_at < now() - make_interval(secs => $1) ORDER BY bucket",
            GRACE_SECONDS
        )
    );
    for bucket in due {
        drop_partition(store, bucket).await?;
    }
    Ok(())
}

/// An epoch is complete only after the last message that expired.
async fn raise_floors(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE rejoin.epochs e SET floor_seq = least(x.last_seq, e.watermark)
         FROM (
             SELECT s.epoch_no, max(s.last_seq) AS last_seq
             FROM rejoin.segments s JOIN rejoin.partitions p ON p.bucket = s.bucket
             WHERE p.expired_at IS NOT NULL GROUP BY s.epoch_no
         ) x
         WHERE x.epoch_no = e.epoch_no AND e.floor_seq < least(x.last_seq, e.watermark)"
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Drops one partition unless somebody uses it at the moment; then the next
/// round does.
async fn drop_partition(store: &Store, bucket: i32) -> Result<(), StoreError> {
    let mut session = store.session().await?;
    session.begin().await?;
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1) AS locked",
        PARTITIONS_LOCK
    )
    .fetch_one(&mut *session)
    .await?;
    // A late message may have gone into it since.
    raise_floors(&mut session).await?;
    sqlx::query!("DELETE FROM rejoin.segments WHERE bucket = $1", bucket)
        .execute(&mut *session)
        .await?;
    sqlx::query!("DELETE FROM rejoin.partitions WHERE bucket = $1", bucket)
        .execute(&mut *session)
        .await?;
    let name = name(bucket);
    let dropped = sqlx::raw_sql(AssertSqlSafe(format!(
        "SET LOCAL lock_timeout = '200ms'; DROP TABLE IF EXISTS {name};"
    )))
    .execute(&mut *session)
    .await;
    match dropped {
        Ok(_) => session.commit().await?,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
            session.rollback().await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever widths were configured over time, each hour gets exactly
        /// one partition, and later hours never an earlier one.
        #[test]
        fn partitions_never_overlap(
            hours in proptest::collection::vec((-2_000i32..2_000, 1i32..200), 1..60),
        ) {
            let mut spans = Spans::default();
            for (hour, width) in hours {
                if spans.holding(hour).is_none() {
                    let span = spans.missing(hour, width);
                    prop_assert!(span.bucket <= hour && hour < span.end);
                    spans.0.push(span);
                    spans = Spans::new(spans.0);
                }
                prop_assert!(spans.holding(hour).is_some());
            }
            for pair in spans.0.windows(2) {
                prop_assert!(pair[0].end <= pair[1].bucket);
            }
        }
    }
}
