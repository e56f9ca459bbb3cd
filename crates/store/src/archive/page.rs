//! Pages for many readers in one query.

use std::collections::HashMap;

use delivery::{Page, PageError, PageRequest};
use protocol::{Cursor, Epoch};
use uuid::Uuid;

use super::epochs::{epoch_from_sql, epoch_to_sql, seq_from_sql, seq_to_sql};
use super::rows::{MessageRow, Names};
use crate::connect::{Store, statement};
use crate::error::StoreError;

/// The most messages that one query returns for all its readers together,
/// so that a query takes some 40 ms at most and those who wait for the next
/// one are not held up by readers of long pages: these get shorter pages
/// while others read too.
const QUERY_MESSAGES_MAX: usize = 8_192;
/// The least that one reader gets in a full query.
const READER_MESSAGES_MIN: usize = 16;
/// The most payload that one query returns, unless single messages are larger.
const QUERY_BYTES_MAX: usize = 16 << 20;
/// The least payload that one reader may get in a full query.
const READER_BYTES_MIN: usize = 64 << 10;

/// What the archive knows of the epoch that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EpochState {
    shard: i32,
    start: u64,
    floor: u64,
    watermark: u64,
    closed: bool,
    complete: bool,
    next: Option<Epoch>,
}

/// A row of the query: at least one for each request.
#[derive(Debug)]
struct PageRow {
    ord: i64,
    shard: Option<i32>,
    start_seq: Option<i64>,
    floor_seq: Option<i64>,
    watermark: Option<i64>,
    closed: Option<bool>,
    complete: Option<bool>,
    next_epoch: Option<i64>,
    fetched: Option<i64>,
    seq: Option<i64>,
    time_ms: Option<i64>,
    id_key: Option<Uuid>,
    id: Option<String>,
    kind: Option<String>,
    sender: Option<String>,
    traceparent: Option<String>,
    data: Option<Vec<u8>>,
}

impl PageRow {
    fn epoch_state(&self) -> Option<EpochState> {
        Some(EpochState {
            shard: self.shard?,
            start: seq_from_sql(self.start_seq?),
            floor: seq_from_sql(self.floor_seq?),
            watermark: seq_from_sql(self.watermark?),
            closed: self.closed?,
            complete: self.complete?,
            next: self.next_epoch.map(epoch_from_sql),
        })
    }

    fn message(self) -> Option<MessageRow> {
        Some(MessageRow {
            seq: self.seq?,
            time_ms: self.time_ms?,
            id_key: self.id_key,
            id: self.id,
            kind: self.kind?,
            sender: self.sender,
            traceparent: self.traceparent,
            data: self.data?,
        })
    }
}

/// How the query's bounds are shared: none may get more than asked for.
fn share(request: &PageRequest, readers: usize) -> (usize, usize) {
    let messages = (QUERY_MESSAGES_MAX / readers.max(1)).max(READER_MESSAGES_MIN);
    let bytes = (QUERY_BYTES_MAX / readers.max(1)).max(READER_BYTES_MIN);
    (
        request.max_messages.clamp(1, messages),
        request.max_bytes.clamp(1, bytes),
    )
}

/// One page for each request, in order, as of one moment.
///
/// In one statement, and so of one snapshot: the epoch with its watermark and
/// floor, and the messages. The walk begins in the partition of the cursor;
/// `(bucket, seq) > …` is where the index scan begins, `bucket >= …` is what
/// prunes the partitions before it. Payloads beyond the byte limit are not
/// read, only their sizes.
pub(super) async fn pages(
    store: Store,
    requests: Vec<PageRequest>,
) -> Result<Vec<Result<Page, PageError>>, StoreError> {
    let readers = requests.len();
    let limits: Vec<_> = requests.iter().map(|r| share(r, readers)).collect();
    let channels: Vec<&str> = requests.iter().map(|r| r.channel.as_str()).collect();
    let epochs: Vec<i64> = requests
        .iter()
        .map(|r| epoch_to_sql(r.after.epoch))
        .collect();
    let afters: Vec<i64> = requests.iter().map(|r| seq_to_sql(r.after.seq)).collect();
    let max_messages: Vec<i64> = limits.iter().map(|l| l.0 as i64).collect();
    let max_bytes: Vec<i64> = limits.iter().map(|l| l.1 as i64).collect();
    let rows = statement!(
        store,
        fetch_all,
        sqlx::query_as!(
            PageRow,
            r#"
SELECT r.ord AS "ord!", e.shard AS "shard?", e.start_seq AS "start_seq?", e.floor_seq AS "floor_seq?",
       e.watermark AS "watermark?", e.closed_at IS NOT NULL AS "closed?", e.complete AS "complete?",
       (SELECT n.epoch FROM rejoin.epochs n
        WHERE e.complete AND n.shard = e.shard AND n.ordinal = e.ordinal + 1) AS "next_epoch?",
       m.fetched AS "fetched?", m.seq AS "seq?", m.time_ms AS "time_ms?", m.id_key AS "id_key?", m.id AS "id?",
       m.kind AS "kind?", m.sender AS "sender?", m.traceparent AS "traceparent?", m.data AS "data?"
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    WITH ORDINALITY r(channel, epoch, after, max_messages, max_bytes, ord)
LEFT JOIN rejoin.epochs e ON e.epoch = r.epoch
LEFT JOIN LATERAL (
    SELECT coalesce(
        (SELECT s.bucket FROM rejoin.segments s WHERE s.epoch_no = e.epoch_no AND s.first_seq <= r.after
         ORDER BY s.bucket DESC LIMIT 1), 0) AS bucket
) b ON true
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT p.*, count(*) OVER () AS fetched,
               sum(octet_length(p.data)) OVER (ORDER BY p.bucket, p.seq ROWS UNBOUNDED PRECEDING) AS bytes
        FROM (
            SELECT * FROM rejoin.messages m
            WHERE m.channel = r.channel AND m.epoch_no = e.epoch_no
              AND m.bucket >= b.bucket AND (m.bucket, m.seq) > (b.bucket, r.after) AND m.seq > r.after
            ORDER BY m.bucket, m.seq LIMIT r.max_messages
        ) p
    ) q
    WHERE q.bytes <= r.max_bytes OR q.bytes = octet_length(q.data)
) m ON true
ORDER BY r.ord, m.bucket, m.seq
        "#,
            &channels as &[&str],
            &epochs,
            &afters,
            &max_messages,
            &max_bytes,
        )
    );

    let mut by_request: HashMap<i64, Vec<PageRow>> = HashMap::with_capacity(readers);
    for row in rows {
        by_request.entry(row.ord).or_default().push(row);
    }
    let shards = store.config().shards;
    let pages = requests
        .iter()
        .zip(&limits)
        .enumerate()
        .map(|(n, (request, limit))| {
            let rows = by_request.remove(&(n as i64 + 1)).unwrap_or_default();
            let state = rows.first().and_then(PageRow::epoch_state);
            let fetched = rows.first().and_then(|row| row.fetched).unwrap_or(0);
            let rows: Vec<MessageRow> = rows.into_iter().filter_map(PageRow::message).collect();
            let whole = fetched == rows.len() as i64 && rows.len() < limit.0;
            assemble(request, shards, state, rows, whole)
        })
        .collect();
    Ok(pages)
}

/// What the archive can promise with these rows. `whole` says that they are
/// all that the channel has after the request's position.
fn assemble(
    request: &PageRequest,
    shards: u16,
    state: Option<EpochState>,
    rows: Vec<MessageRow>,
    whole: bool,
) -> Result<Page, PageError> {
    let epoch = request.after.epoch;
    let state = state.ok_or(PageError::UnknownEpoch)?;
    if state.shard != i32::from(request.channel.shard(shards)) {
        return Err(PageError::UnknownEpoch);
    }
    if state.closed && !state.complete {
        return Err(PageError::UnknownEpoch);
    }
    // What comes before the epoch's start is the previous epoch's.
    let after = request.after.seq.max(state.start);
    if after < state.floor {
        return Err(PageError::Expired {
            earliest: Cursor::new(epoch, state.floor),
        });
    }
    if after > state.watermark {
        if state.closed {
            // An ended epoch has no such position.
            return Err(PageError::UnknownEpoch);
        }
        return Ok(Page {
            messages: Vec::new(),
            through: request.after.seq,
            next_epoch: None,
        });
    }
    let mut names = Names::default();
    let mut messages = Vec::with_capacity(rows.len());
    let mut prev = 0;
    for row in rows {
        let mut message = row.into_message(&request.channel, epoch, &mut names);
        message.prev = prev;
        prev = message.seq();
        messages.push(message);
    }
    let through = if whole { state.watermark } else { prev };
    Ok(Page {
        messages,
        through: through.max(after),
        next_epoch: state.next.filter(|_| whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Channel;

    const EPOCH: Epoch = Epoch(7);

    fn request(after: u64) -> PageRequest {
        PageRequest {
            channel: Channel::parse("room:1").unwrap(),
            after: Cursor::new(EPOCH, after),
            max_messages: 10,
            max_bytes: 1_000,
        }
    }

    fn open() -> EpochState {
        EpochState {
            shard: 0,
            start: 5,
            floor: 5,
            watermark: 20,
            closed: false,
            complete: false,
            next: None,
        }
    }

    fn row(seq: i64) -> MessageRow {
        MessageRow {
            seq,
            time_ms: 0,
            id_key: None,
            id: None,
            kind: String::new(),
            sender: None,
            traceparent: None,
            data: Vec::new(),
        }
    }

    fn page(after: u64, state: EpochState, seqs: &[i64], whole: bool) -> Result<Page, PageError> {
        let rows = seqs.iter().copied().map(row).collect();
        assemble(&request(after), 1, Some(state), rows, whole)
    }

    #[test]
    fn a_whole_page_reaches_the_watermark_and_a_cut_one_its_last_message() {
        let whole = page(6, open(), &[8, 11], true).unwrap();
        assert_eq!((whole.through, whole.next_epoch), (20, None));
        let prevs: Vec<u64> = whole.messages.iter().map(|m| m.prev).collect();
        assert_eq!(prevs, [0, 8]);
        assert_eq!(page(6, open(), &[8, 11], false).unwrap().through, 11);
        assert_eq!(page(20, open(), &[], true).unwrap().through, 20);
    }

    #[test]
    fn a_position_that_is_not_archived_yet_gets_nothing_and_stays() {
        assert_eq!(page(21, open(), &[], true).unwrap().through, 21);
    }

    #[test]
    fn a_position_before_the_epoch_is_its_start_and_one_below_the_floor_is_expired() {
        assert_eq!(page(0, open(), &[6], true).unwrap().through, 20);
        let expired = EpochState {
            floor: 10,
            ..open()
        };
        let earliest = Cursor::new(EPOCH, 10);
        for after in [0, 5, 9] {
            let error = page(after, expired, &[], true).unwrap_err();
            assert_eq!(error, PageError::Expired { earliest });
        }
        assert!(page(10, expired, &[], true).is_ok());
    }

    #[test]
    fn only_the_end_of_a_complete_epoch_leads_on() {
        let next = Some(Epoch(8));
        let complete = EpochState {
            closed: true,
            complete: true,
            next,
            ..open()
        };
        assert_eq!(page(6, complete, &[8], true).unwrap().next_epoch, next);
        assert_eq!(page(6, complete, &[8], false).unwrap().next_epoch, None);
        assert_eq!(page(20, complete, &[], true).unwrap().next_epoch, next);
        assert_eq!(
            page(21, complete, &[], true).unwrap_err(),
            PageError::UnknownEpoch
        );
        let incomplete = EpochState {
            closed: true,
            ..open()
        };
        assert_eq!(
            page(6, incomplete, &[8], true).unwrap_err(),
            PageError::UnknownEpoch
        );
    }

    #[test]
    fn an_epoch_of_another_shard_is_unknown() {
        let elsewhere = EpochState { shard: 1, ..open() };
        assert_eq!(
            page(6, elsewhere, &[], true).unwrap_err(),
            PageError::UnknownEpoch
        );
        assert_eq!(
            assemble(&request(6), 1, None, Vec::new(), true).unwrap_err(),
            PageError::UnknownEpoch
        );
    }
}
