//! What the archive holds, position by position, for comparing it with what
//! was acknowledged.

use protocol::Cursor;

use super::epochs::{epoch_to_sql, seq_from_sql, seq_to_sql};
use super::ids::StoredId;
use crate::connect::{Store, statement};
use crate::error::StoreError;

/// One archived message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedRow {
    /// Its sequence.
    pub seq: u64,
    /// Its channel.
    pub channel: String,
    /// Its id.
    pub id: Option<String>,
    /// When the stream stored it, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Its payload.
    pub data: Vec<u8>,
}

/// The rows of `after.epoch` after `after` and up to sequence `through`,
/// ascending; a row that is there twice appears twice. Ask for a few thousand
/// sequences at a time: the answer is not bounded otherwise.
///
/// # Errors
/// `Unavailable` when Postgres is.
pub async fn rows(
    store: &Store,
    after: Cursor,
    through: u64,
) -> Result<Vec<ArchivedRow>, StoreError> {
    let rows = statement!(
        store,
        fetch_all,
        sqlx::query!(
            "SELECT m.seq, m.channel, m.id_key, m.id, m.time_ms, m.data
         FROM rejoin.epochs e JOIN rejoin.messages m ON m.epoch_no = e.epoch_no
         WHERE e.epoch = $1 AND m.seq > $2 AND m.seq <= $3 ORDER BY m.seq",
            epoch_to_sql(after.epoch),
            seq_to_sql(after.seq),
            seq_to_sql(through),
        )
    );
    Ok(rows
        .into_iter()
        .map(|row| ArchivedRow {
            seq: seq_from_sql(row.seq),
            channel: row.channel,
            id: row
                .id_key
                .and_then(|key| StoredId::id(key, row.id.as_deref()))
                .map(|id| id.to_string()),
            time_ms: row.time_ms,
            data: row.data,
        })
        .collect())
}
