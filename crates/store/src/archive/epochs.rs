//! A shard's epochs, and how reading crosses from one to the next.

use delivery::PageError;
use protocol::{Channel, Cursor, Epoch};

use crate::connect::{Store, statement};
use crate::error::{RETRY_AFTER, StoreError};

/// Epochs of one shard that reading goes back over; older ones only expire.
const EPOCHS_MAX: i64 = 256;

/// One epoch of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochRow {
    pub(crate) epoch_no: i32,
    pub(crate) epoch: i64,
    pub(crate) start_seq: i64,
    pub(crate) floor_seq: i64,
    pub(crate) watermark: i64,
    pub(crate) closed: bool,
    pub(crate) complete: bool,
}

impl EpochRow {
    pub(crate) fn epoch(&self) -> Epoch {
        epoch_from_sql(self.epoch)
    }

    /// Whether the reader of this epoch may go on into the next.
    fn leads_on(&self) -> bool {
        self.closed && self.complete
    }
}

/// An epoch's 64 bits as Postgres' signed type holds them.
pub(crate) fn epoch_to_sql(epoch: Epoch) -> i64 {
    epoch.0.cast_signed()
}

pub(crate) fn epoch_from_sql(epoch: i64) -> Epoch {
    Epoch(epoch.cast_unsigned())
}

/// A sequence; those beyond `i64` (no stream counts that far) become the
/// largest there is.
pub(crate) fn seq_to_sql(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// A sequence from a column that is never negative.
pub(crate) fn seq_from_sql(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or_default()
}

/// The epochs of the channel's shard, newest first; never empty.
pub(crate) async fn of_channel(
    store: &Store,
    channel: &Channel,
) -> Result<Vec<EpochRow>, PageError> {
    let shard = i32::from(channel.shard(store.config().shards));
    let query = async {
        Ok::<_, StoreError>(statement!(
            store,
            fetch_all,
            sqlx::query_as!(
                EpochRow,
                r#"SELECT epoch_no, epoch, start_seq, floor_seq, watermark,
                      closed_at IS NOT NULL AS "closed!", complete
               FROM rejoin.epochs WHERE shard = $1 ORDER BY ordinal DESC LIMIT $2"#,
                shard,
                EPOCHS_MAX,
            )
        ))
    };
    let epochs = store.within(query).await?;
    if epochs.is_empty() {
        return Err(PageError::Unavailable {
            retry_after: RETRY_AFTER,
            reason: String::from("nothing of the shard is archived yet"),
        });
    }
    Ok(epochs)
}

/// The oldest position from which reading on loses nothing.
pub(crate) fn earliest(newest_first: &[EpochRow]) -> Option<Cursor> {
    let mut epochs = newest_first.iter();
    let mut oldest = epochs.next()?;
    for before in epochs {
        let joined = oldest.floor_seq == oldest.start_seq && before.leads_on();
        if !joined || before.floor_seq >= before.watermark {
            break;
        }
        oldest = before;
    }
    Some(Cursor::new(oldest.epoch(), seq_from_sql(oldest.floor_seq)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: i64, start: i64, floor: i64, watermark: i64, complete: bool) -> EpochRow {
        EpochRow {
            epoch_no: 0,
            epoch,
            start_seq: start,
            floor_seq: floor,
            watermark,
            closed: epoch < 9,
            complete,
        }
    }

    #[test]
    fn the_earliest_position_is_reached_through_complete_epochs_only() {
        let at = |rows: &[EpochRow]| earliest(rows).map(|c| (c.epoch.0, c.seq));
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[row(9, 0, 0, 5, false)]), Some((9, 0)));
        let joined = [row(9, 3, 3, 5, false), row(8, 0, 2, 7, true)];
        assert_eq!(at(&joined), Some((8, 2)));
        let incomplete = [row(9, 3, 3, 5, false), row(8, 0, 2, 7, false)];
        assert_eq!(at(&incomplete), Some((9, 3)));
        let with_a_hole = [row(9, 0, 3, 5, false), row(8, 0, 2, 7, true)];
        assert_eq!(at(&with_a_hole), Some((9, 3)));
        let expired_before = [row(9, 0, 0, 5, false), row(8, 0, 7, 7, true)];
        assert_eq!(at(&expired_before), Some((9, 0)));
    }
}
