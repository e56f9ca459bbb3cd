//! Where a message of a given id is archived.

use protocol::{Channel, Cursor, MessageId};

use super::epochs::{epoch_from_sql, seq_from_sql};
use super::ids::StoredId;
use crate::batch::Batcher;
use crate::connect::{Store, statement};
use crate::error::StoreError;

/// Which message.
#[derive(Debug, Clone)]
pub(crate) struct IdQuestion {
    /// `u.<user>` or `s.<key name>`.
    pub(crate) scope: String,
    pub(crate) channel: Channel,
    pub(crate) id: MessageId,
}

/// What the archive says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) position: Option<Cursor>,
    /// Every message that the shard's stream stored before this time
    /// (milliseconds since the Unix epoch) was there to be found.
    pub(crate) covered_ms: i64,
}

pub(crate) type IdLookup = Batcher<IdQuestion, Found>;

/// Looks ids up. Every partition is asked: a client's clock, and so the time
/// in its id, may be wrong by any amount.
pub(crate) async fn find(
    store: Store,
    questions: Vec<IdQuestion>,
) -> Result<Vec<Found>, StoreError> {
    let shards = store.config().shards;
    let stored: Vec<StoredId> = questions.iter().map(|q| StoredId::of(&q.id)).collect();
    let keys: Vec<uuid::Uuid> = stored.iter().map(|s| s.key).collect();
    let texts: Vec<Option<&str>> = stored.iter().map(|s| s.text.as_deref()).collect();
    let scopes: Vec<&str> = questions.iter().map(|q| q.scope.as_str()).collect();
    let channels: Vec<&str> = questions.iter().map(|q| q.channel.as_str()).collect();
    let of_shards: Vec<i32> = questions
        .iter()
        .map(|q| i32::from(q.channel.shard(shards)))
        .collect();
    let rows = statement!(
        store,
        fetch_all,
        sqlx::query!(
            // The channel is compared as an expression so that the index of ids
            // is the only one to choose.
            r#"
SELECT c.covered_ms AS "covered_ms?", m.epoch AS "epoch?", m.seq AS "seq?"
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::integer[])
    WITH ORDINALITY r(id_key, id, scope, channel, shard, ord)
LEFT JOIN LATERAL (
    SELECT e.covered_ms FROM rejoin.epochs e WHERE e.shard = r.shard ORDER BY e.ordinal DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT e.epoch, m.seq FROM rejoin.messages m JOIN rejoin.epochs e ON e.epoch_no = m.epoch_no
    WHERE m.id_key = r.id_key AND m.id IS NOT DISTINCT FROM r.id AND m.scope = r.scope
      AND m.channel || '' = r.channel AND e.shard = r.shard
    LIMIT 1
) m ON true
ORDER BY r.ord
        "#,
            &keys,
            &texts as &[Option<&str>],
            &scopes as &[&str],
            &channels as &[&str],
            &of_shards,
        )
    );
    Ok(rows
        .into_iter()
        .map(|row| Found {
            position: row
                .epoch
                .zip(row.seq)
                .map(|(epoch, seq)| Cursor::new(epoch_from_sql(epoch), seq_from_sql(seq))),
            covered_ms: row.covered_ms.unwrap_or(0),
        })
        .collect())
}
