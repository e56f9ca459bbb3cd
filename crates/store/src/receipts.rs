//! What each user has received and read.
//!
//! A position is stored as one number that grows as the log does: the ordinal
//! of its epoch among the shard's times 2^48, plus the sequence.

use std::sync::Arc;

use delivery::members::{ROOM_NAMESPACE, StoreFailure};
use delivery::receipts::{Ack, Acked, Receipts, UNREAD_COUNT_MAX, Unread};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, Cursor, Device, UserId};

use crate::archive::epochs::{epoch_from_sql, epoch_to_sql, seq_from_sql};
use crate::batch::Batcher;
use crate::connect::{Store, statement};
use crate::error::StoreError;

/// The channels of one inbox.
const INBOX_CHANNELS_MAX: i64 = 1_000;
/// Channels that are counted in one query.
const UNREAD_BATCH: usize = 50;
const SEQ_BITS: u32 = 48;

/// Receipts in Postgres; cheap to clone.
#[derive(Clone)]
pub struct ReceiptStore {
    store: Store,
    acks: Arc<Batcher<Ack, Result<Acked, StoreError>>>,
    positions: Arc<Batcher<(UserId, Device, Channel), Option<Cursor>>>,
    unreads: Arc<Batcher<(UserId, Channel), Unread>>,
}

impl ReceiptStore {
    /// The receipts of this store. Must be called within a runtime.
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            acks: Arc::new(Batcher::start(store, record)),
            positions: Arc::new(Batcher::start(store, positions)),
            unreads: Arc::new(Batcher::start(store, unread)),
        }
    }
}

fn shards_of<'a>(store: &Store, channels: impl Iterator<Item = &'a Channel>) -> Vec<i32> {
    let shards = store.config().shards;
    channels
        .map(|channel| i32::from(channel.shard(shards)))
        .collect()
}

fn cursor(epoch: Option<i64>, position: Option<i64>) -> Option<Cursor> {
    let seq = position? & ((1 << SEQ_BITS) - 1);
    Some(Cursor::new(epoch_from_sql(epoch?), seq_from_sql(seq)))
}

fn epoch_of(cursor: Option<Cursor>) -> Option<i64> {
    cursor.map(|cursor| epoch_to_sql(cursor.epoch))
}

/// The sequence, as far as a position holds it. No stream counts further.
fn seq_of(cursor: Option<Cursor>) -> Option<i64> {
    cursor.map(|cursor| cursor.seq.min((1 << SEQ_BITS) - 1).cast_signed())
}

/// Records acknowledgements, in one statement and so all or nothing. Rows are
/// written in key order, so that concurrent batches cannot deadlock; a
/// position that does not move is not written.
async fn record(
    store: Store,
    acks: Vec<Ack>,
) -> Result<Vec<Result<Acked, StoreError>>, StoreError> {
    let users: Vec<&str> = acks.iter().map(|a| a.user.as_str()).collect();
    let devices: Vec<&str> = acks.iter().map(|a| a.device.as_str()).collect();
    let channels: Vec<&str> = acks.iter().map(|a| a.channel.as_str()).collect();
    let shards = shards_of(&store, acks.iter().map(|a| &a.channel));
    let delivered_epochs: Vec<_> = acks.iter().map(|a| epoch_of(a.delivered)).collect();
    let delivered_seqs: Vec<_> = acks.iter().map(|a| seq_of(a.delivered)).collect();
    let read_epochs: Vec<_> = acks.iter().map(|a| epoch_of(a.read)).collect();
    let read_seqs: Vec<_> = acks.iter().map(|a| seq_of(a.read)).collect();
    let rows = statement!(
        store,
        fetch_all,
        sqlx::query!(
            r#"
WITH input AS MATERIALIZED (
    SELECT r.*, d.shard AS delivered_shard, (d.ordinal::bigint << 48) + r.delivered_seq AS delivered,
           e.shard AS read_shard, (e.ordinal::bigint << 48) + r.read_seq AS read
    FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[],
                $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
        WITH ORDINALITY r(user_id, device, channel, shard,
                          delivered_epoch, delivered_seq, read_epoch, read_seq, ord)
    LEFT JOIN rejoin.epochs d ON d.epoch = r.delivered_epoch
    LEFT JOIN rejoin.epochs e ON e.epoch = r.read_epoch
), valid AS MATERIALIZED (
    SELECT * FROM input
    WHERE (delivered_epoch IS NULL OR delivered_shard = shard) AND (read_epoch IS NULL OR read_shard = shard)
), merged AS MATERIALIZED (
    SELECT user_id, channel, device, max(delivered) AS delivered, max(read) AS read
    FROM valid GROUP BY user_id, channel, device
), written AS (
    INSERT INTO rejoin.receipts AS old (user_id, channel, device, delivered, read)
    SELECT * FROM merged ORDER BY user_id, channel, device
    ON CONFLICT (user_id, channel, device) DO UPDATE SET
        delivered = greatest(old.delivered, excluded.delivered),
        read = greatest(old.read, excluded.read), updated_at = now()
    WHERE excluded.delivered > coalesce(old.delivered, -1) OR excluded.read > coalesce(old.read, -1)
    RETURNING old.user_id, old.channel, old.device, old.delivered
)
SELECT i.ord AS "ord!", v.ord IS NOT NULL AS "valid!",
       (i.delivered_epoch IS NULL OR i.delivered_shard IS NOT NULL)
           AND (i.read_epoch IS NULL OR i.read_shard IS NOT NULL) AS "known!",
       delivered.position AS "delivered?", de.epoch AS "delivered_epoch?",
       reading.position AS "read?", re.epoch AS "read_epoch?",
       reading.position > coalesce(reading.before, -1) AS "read_moved?"
FROM input i
LEFT JOIN valid v ON v.ord = i.ord
LEFT JOIN LATERAL (
    SELECT coalesce(
        (SELECT w.delivered FROM written w
         WHERE w.user_id = i.user_id AND w.channel = i.channel AND w.device = i.device),
        (SELECT o.delivered FROM rejoin.receipts o
         WHERE o.user_id = i.user_id AND o.channel = i.channel AND o.device = i.device)) AS position
) delivered ON true
LEFT JOIN LATERAL (
    SELECT before.read AS before,
           greatest(before.read, (SELECT max(m.read) FROM merged m
                                  WHERE m.user_id = i.user_id AND m.channel = i.channel)) AS position
    FROM (SELECT max(o.read) AS read FROM rejoin.receipts o
          WHERE o.user_id = i.user_id AND o.channel = i.channel) before
) reading ON true
LEFT JOIN rejoin.epochs de ON de.shard = i.shard AND de.ordinal = delivered.position >> 48
LEFT JOIN rejoin.epochs re ON re.shard = i.shard AND re.ordinal = reading.position >> 48
ORDER BY i.ord
        "#,
            &users as &[&str],
            &devices as &[&str],
            &channels as &[&str],
            &shards,
            &delivered_epochs as &[Option<i64>],
            &delivered_seqs as &[Option<i64>],
            &read_epochs as &[Option<i64>],
            &read_seqs as &[Option<i64>],
        )
    );
    // The count may have to wait for the archive's pages; the receipts do not.
    let moved: Vec<_> = rows
        .iter()
        .zip(&acks)
        .filter(|(row, _)| row.valid && row.read_moved.unwrap_or(false))
        .map(|(_, ack)| (ack.user.clone(), ack.channel.clone()))
        .collect();
    let mut unreads = unread(store, moved).await?.into_iter();
    Ok(rows
        .into_iter()
        .map(|row| {
            if !row.known {
                return Err(StoreError::unavailable(
                    "the archive does not know the epoch",
                ));
            }
            if !row.valid {
                return Err(StoreError::refused("the position is of another shard"));
            }
            let read_moved = row.read_moved.unwrap_or(false);
            Ok(Acked {
                delivered: cursor(row.delivered_epoch, row.delivered),
                read: cursor(row.read_epoch, row.read),
                read_moved,
                unread: if read_moved { unreads.next() } else { None },
            })
        })
        .collect())
}

async fn positions(
    store: Store,
    questions: Vec<(UserId, Device, Channel)>,
) -> Result<Vec<Option<Cursor>>, StoreError> {
    let users: Vec<&str> = questions.iter().map(|q| q.0.as_str()).collect();
    let devices: Vec<&str> = questions.iter().map(|q| q.1.as_str()).collect();
    let channels: Vec<&str> = questions.iter().map(|q| q.2.as_str()).collect();
    let shards = shards_of(&store, questions.iter().map(|q| &q.2));
    let rows = statement!(
        store,
        fetch_all,
        sqlx::query!(
            r#"SELECT o.delivered AS "delivered?", e.epoch AS "epoch?"
           FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[])
               WITH ORDINALITY r(user_id, device, channel, shard, ord)
           LEFT JOIN rejoin.receipts o
               ON o.user_id = r.user_id AND o.channel = r.channel AND o.device = r.device
           LEFT JOIN rejoin.epochs e ON e.shard = r.shard AND e.ordinal = o.delivered >> 48
           ORDER BY r.ord"#,
            &users as &[&str],
            &devices as &[&str],
            &channels as &[&str],
            &shards,
        )
    );
    Ok(rows
        .into_iter()
        .map(|row| cursor(row.epoch, row.delivered))
        .collect())
}

/// Counts what is unread. At most the newest [`UNREAD_COUNT_MAX`] messages of
/// a channel are looked at, newest first, whatever its size.
async fn unread(
    store: Store,
    questions: Vec<(UserId, Channel)>,
) -> Result<Vec<Unread>, StoreError> {
    let users: Vec<&str> = questions.iter().map(|q| q.0.as_str()).collect();
    let channels: Vec<&str> = questions.iter().map(|q| q.1.as_str()).collect();
    let rooms: Vec<Option<&str>> = questions
        .iter()
        .map(|q| (q.1.namespace() == ROOM_NAMESPACE).then(|| q.1.id()))
        .collect();
    let shards = shards_of(&store, questions.iter().map(|q| &q.1));
    let rows = statement!(
        store,
        fetch_all,
        sqlx::query!(
            r#"
SELECT reading.position AS "read?", re.epoch AS "read_epoch?",
       newest.epoch AS "newest_epoch?", newest.watermark AS "watermark?", unread.messages AS "messages!"
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[])
    WITH ORDINALITY r(user_id, channel, room, shard, ord)
LEFT JOIN LATERAL (
    SELECT max(o.read) AS position FROM rejoin.receipts o
    WHERE o.user_id = r.user_id AND o.channel = r.channel
) reading ON true
LEFT JOIN rejoin.members m ON m.room = r.room AND m.user_id = r.user_id
LEFT JOIN rejoin.epochs re ON re.shard = r.shard AND re.ordinal = reading.position >> 48
LEFT JOIN LATERAL (
    SELECT e.epoch, e.watermark FROM rejoin.epochs e WHERE e.shard = r.shard ORDER BY e.ordinal DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (
        WHERE x.sender IS DISTINCT FROM r.user_id
          AND (reading.position IS NOT NULL OR x.time_ms >= coalesce(m.joined_ms, 0))
    ) AS messages
    FROM (
        SELECT p.sender, p.time_ms
        FROM (
            SELECT e.epoch_no,
                   CASE WHEN e.ordinal = reading.position >> 48
                        THEN greatest(reading.position & 281474976710655, e.floor_seq)
                        ELSE e.floor_seq END AS after
            FROM rejoin.epochs e
            WHERE e.shard = r.shard AND e.ordinal >= coalesce(reading.position >> 48, 0)
            ORDER BY e.ordinal DESC
        ) e
        CROSS JOIN LATERAL (
            SELECT coalesce(
                (SELECT s.bucket FROM rejoin.segments s WHERE s.epoch_no = e.epoch_no AND s.first_seq <= e.after
                 ORDER BY s.bucket DESC LIMIT 1), 0) AS bucket
        ) b
        CROSS JOIN LATERAL (
            SELECT x.sender, x.time_ms FROM rejoin.messages x
            WHERE x.channel = r.channel AND x.epoch_no = e.epoch_no
              AND x.bucket >= b.bucket AND (x.bucket, x.seq) > (b.bucket, e.after) AND x.seq > e.after
            ORDER BY x.bucket DESC, x.seq DESC LIMIT $5
        ) p
        LIMIT $5
    ) x
) unread ON true
ORDER BY r.ord
        "#,
            &users as &[&str],
            &channels as &[&str],
            &rooms as &[Option<&str>],
            &shards,
            i64::from(UNREAD_COUNT_MAX),
        )
    );
    Ok(rows
        .into_iter()
        .zip(questions)
        .map(|(row, (_, channel))| Unread {
            channel,
            read: cursor(row.read_epoch, row.read),
            unread: u32::try_from(row.messages).unwrap_or(UNREAD_COUNT_MAX),
            counted_through: row
                .newest_epoch
                .zip(row.watermark)
                .map(|(epoch, watermark)| {
                    Cursor::new(epoch_from_sql(epoch), seq_from_sql(watermark))
                }),
        })
        .collect())
}

impl Receipts for ReceiptStore {
    fn ack(&self, ack: Ack) -> BoxFuture<'_, Result<Acked, StoreFailure>> {
        async move { Ok(self.acks.ask(ack).await??) }.boxed()
    }

    fn position(
        &self,
        user: UserId,
        device: Device,
        channel: Channel,
    ) -> BoxFuture<'_, Result<Option<Cursor>, StoreFailure>> {
        async move { Ok(self.positions.ask((user, device, channel)).await?) }.boxed()
    }

    fn unread(
        &self,
        user: UserId,
        channel: Channel,
    ) -> BoxFuture<'_, Result<Unread, StoreFailure>> {
        async move { Ok(self.unreads.ask((user, channel)).await?) }.boxed()
    }

    fn inbox(&self, user: UserId) -> BoxFuture<'_, Result<Vec<Unread>, StoreFailure>> {
        async move {
            let own = Channel::inbox(&user);
            let channels = async {
                let names = statement!(
                    self.store,
                    fetch_all,
                    sqlx::query_scalar!(
                        r#"SELECT c.channel AS "channel!" FROM (
                           SELECT $2 AS channel
                           UNION SELECT 'room:' || m.room FROM rejoin.members m WHERE m.user_id = $1
                           UNION SELECT o.channel FROM rejoin.receipts o WHERE o.user_id = $1
                       ) c ORDER BY c.channel COLLATE "C" LIMIT $3"#,
                        user.as_str(),
                        own.as_str(),
                        INBOX_CHANNELS_MAX,
                    )
                );
                Ok::<_, StoreError>(names)
            };
            let names = self.store.within(channels).await?;
            let channels: Vec<Channel> = names
                .iter()
                .filter_map(|name| Channel::parse(name).ok())
                .collect();
            let mut inbox = Vec::with_capacity(channels.len());
            for some in channels.chunks(UNREAD_BATCH) {
                let questions = some.iter().map(|c| (user.clone(), c.clone())).collect();
                let counted = unread(self.store.clone(), questions);
                inbox.extend(self.store.within(counted).await?);
            }
            Ok(inbox)
        }
        .boxed()
    }
}
