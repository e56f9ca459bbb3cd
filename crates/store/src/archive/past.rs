//! Reading a channel backwards.

use delivery::archive::PastPage;
use delivery::{Message, PageError};
use protocol::{Channel, Cursor};

use super::epochs::{self, EpochRow, seq_from_sql, seq_to_sql};
use super::rows::{MessageRow, Names};
use crate::connect::{Store, statement};
use crate::error::{RETRY_AFTER, StoreError};

/// The most messages that are counted or returned at a time.
pub(super) const PAST_MESSAGES_MAX: usize = 10_000;

/// The epochs in which to read backwards from a position: the first is the
/// position's, each further one leads on into the one before it here.
fn chain(newest_first: &[EpochRow], through: Cursor) -> Result<&[EpochRow], PageError> {
    let at = newest_first
        .iter()
        .position(|row| row.epoch() == through.epoch)
        .ok_or(PageError::UnknownEpoch)?;
    let rows = &newest_first[at..];
    let first = &rows[0];
    if first.closed && !first.complete {
        return Err(PageError::UnknownEpoch);
    }
    if through.seq > seq_from_sql(first.watermark) {
        if first.closed {
            return Err(PageError::UnknownEpoch);
        }
        return Err(PageError::Unavailable {
            retry_after: RETRY_AFTER,
            reason: String::from("not archived up to there yet"),
        });
    }
    let joined = rows.windows(2).take_while(|pair| {
        let (newer, older) = (&pair[0], &pair[1]);
        newer.floor_seq == newer.start_seq
            && older.closed
            && older.complete
            && older.floor_seq < older.watermark
    });
    Ok(&rows[..1 + joined.count()])
}

/// See [`delivery::Log::before_last`].
pub(super) async fn before_last(
    store: &Store,
    channel: &Channel,
    through: Cursor,
    count: usize,
) -> Result<Cursor, PageError> {
    let newest_first = epochs::of_channel(store, channel).await?;
    let mut wanted = count.clamp(1, PAST_MESSAGES_MAX);
    let mut end = seq_to_sql(through.seq);
    let mut reached = through;
    for (n, row) in chain(&newest_first, through)?.iter().enumerate() {
        if n > 0 {
            end = row.watermark;
        }
        let query = async {
            Ok::<_, StoreError>(statement!(
                store,
                fetch_all,
                sqlx::query_scalar!(
                    r#"
SELECT m.seq
FROM (
    SELECT coalesce(
        (SELECT s.bucket FROM rejoin.segments s WHERE s.epoch_no = $2 AND s.first_seq <= $3
         ORDER BY s.bucket DESC LIMIT 1), 0) AS bucket
) b
CROSS JOIN LATERAL (
    SELECT m.bucket, m.seq FROM rejoin.messages m
    WHERE m.channel = $1 AND m.epoch_no = $2
      AND m.bucket <= b.bucket AND (m.bucket, m.seq) <= (b.bucket, $3) AND m.seq > $4
    ORDER BY m.bucket DESC, m.seq DESC LIMIT $5
) m
ORDER BY m.bucket DESC, m.seq DESC
                "#,
                    channel.as_str(),
                    row.epoch_no,
                    end,
                    row.floor_seq,
                    wanted as i64,
                )
            ))
        };
        let seqs = store.within(query).await?;
        if seqs.len() == wanted {
            let oldest = seqs.last().copied().unwrap_or(end);
            return Ok(Cursor::new(row.epoch(), seq_from_sql(oldest - 1)));
        }
        wanted -= seqs.len();
        reached = Cursor::new(row.epoch(), seq_from_sql(row.floor_seq));
    }
    Ok(reached)
}

/// See [`delivery::archive::History::page_before`].
pub(super) async fn page_before(
    store: &Store,
    channel: &Channel,
    before: Option<Cursor>,
    max_messages: usize,
    max_bytes: usize,
) -> Result<PastPage, PageError> {
    let newest_first = epochs::of_channel(store, channel).await?;
    let through = match (before, newest_first.first()) {
        (Some(before), _) => Cursor::new(before.epoch, before.seq.saturating_sub(1)),
        (None, Some(newest)) => Cursor::new(newest.epoch(), seq_from_sql(newest.watermark)),
        (None, None) => return Ok(PastPage::default()),
    };
    let mut page = PastPage::default();
    let mut names = Names::default();
    let mut bytes_left = max_bytes.max(1);
    let mut end = seq_to_sql(through.seq);
    for (n, row) in chain(&newest_first, through)?.iter().enumerate() {
        if n > 0 {
            end = row.watermark;
        }
        let wanted = max_messages.clamp(1, PAST_MESSAGES_MAX) - page.messages.len();
        let (rows, whole) = messages(store, channel, row, end, wanted, bytes_left).await?;
        for message in rows {
            let message = message.into_message(channel, row.epoch(), &mut names);
            bytes_left = bytes_left.saturating_sub(message.data.len());
            page.messages.push(message);
        }
        let full = page.messages.len() == max_messages.clamp(1, PAST_MESSAGES_MAX);
        if !whole || full || bytes_left == 0 {
            page.before = page.messages.last().map(|message| message.position);
            break;
        }
    }
    link(&mut page.messages);
    Ok(page)
}

/// Sets each message's predecessor where it is in the same epoch.
fn link(newest_first: &mut [Message]) {
    for n in 1..newest_first.len() {
        let before = newest_first[n].position;
        let message = &mut newest_first[n - 1];
        if before.epoch == message.position.epoch {
            message.prev = before.seq;
        }
    }
}

/// The channel's newest messages of an epoch up to `end`, newest first, and
/// whether they are all that it has.
async fn messages(
    store: &Store,
    channel: &Channel,
    row: &EpochRow,
    end: i64,
    max_messages: usize,
    max_bytes: usize,
) -> Result<(Vec<MessageRow>, bool), StoreError> {
    let query = async {
        Ok::<_, StoreError>(statement!(
            store,
            fetch_all,
            sqlx::query!(
                r#"
SELECT q.seq, q.time_ms, q.id_key, q.id, q.kind, q.sender, q.traceparent, q.data, q.fetched AS "fetched!"
FROM (
    SELECT coalesce(
        (SELECT s.bucket FROM rejoin.segments s WHERE s.epoch_no = $2 AND s.first_seq <= $3
         ORDER BY s.bucket DESC LIMIT 1), 0) AS bucket
) b
CROSS JOIN LATERAL (
    SELECT p.*, count(*) OVER () AS fetched,
           sum(octet_length(p.data)) OVER (ORDER BY p.bucket DESC, p.seq DESC ROWS UNBOUNDED PRECEDING) AS bytes
    FROM (
        SELECT * FROM rejoin.messages m
        WHERE m.channel = $1 AND m.epoch_no = $2
          AND m.bucket <= b.bucket AND (m.bucket, m.seq) <= (b.bucket, $3) AND m.seq > $4
        ORDER BY m.bucket DESC, m.seq DESC LIMIT $5
    ) p
) q
WHERE q.bytes <= $6::bigint OR q.bytes = octet_length(q.data)
ORDER BY q.bucket DESC, q.seq DESC
            "#,
                channel.as_str(),
                row.epoch_no,
                end,
                row.floor_seq,
                max_messages as i64,
                max_bytes as i64,
            )
        ))
    };
    let rows = store.within(query).await?;
    let fetched = rows.first().map_or(0, |row| row.fetched);
    let whole = rows.len() as i64 == fetched && rows.len() < max_messages;
    let rows = rows
        .into_iter()
        .map(|row| MessageRow {
            seq: row.seq,
            time_ms: row.time_ms,
            id_key: row.id_key,
            id: row.id,
            kind: row.kind,
            sender: row.sender,
            traceparent: row.traceparent,
            data: row.data,
        })
        .collect();
    Ok((rows, whole))
}
