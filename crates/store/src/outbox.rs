//! Messages that applications publish in their own transactions.
//!
//! `rejoin.publish(…)` writes a row; when the transaction commits the row
//! takes its place in the order of commits of its channel (see the
//! migration). The relay publishes rows in that order and deletes them when
//! the stream has them. A row that can never be published is parked with the
//! reason, and the channel goes on behind it.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use delivery::publish::{Publication, Publish, PublishError, Publisher};
use futures_util::future::{Either, join_all, select};
use protocol::limits::MESSAGE_BYTES_MAX;
use protocol::names::check_type;
use protocol::{Channel, MessageId};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::connect::{Store, statement};
use crate::error::StoreError;
use crate::listen::Listener;

/// Whose ids the messages' ids are.
const PUBLISHER: &str = "sql";
/// Held by the one relay that is at work, for each transaction.
const RELAY_LOCK: i64 = 0x7265_6a6f_696e_0002;
/// Messages of one round, and their bytes unless one is larger.
const ROUND_MESSAGES: i64 = 256;
const ROUND_BYTES: i64 = 4 << 20;
/// No message is begun later than this in a round: its transaction should not
/// stay open for long.
const ROUND_TIME: Duration = Duration::from_secs(2);
/// Without a notification the table is looked at this often.
const POLL: Duration = Duration::from_secs(1);
/// The pause after a round that could not be finished.
const BACKOFF: Duration = Duration::from_millis(500);

/// Rows that are counted for metrics: more means "at least so many".
const COUNT_MAX: i64 = 10_000;

/// Relays the outbox to the stream. Any number may run: one works, the others
/// stand by.
pub struct OutboxRelay {
    store: Store,
    publisher: Arc<dyn Publish>,
    data_bytes: usize,
    stats: Arc<OutboxStats>,
}

/// What a relay has done, for metrics.
#[derive(Debug, Default)]
pub struct OutboxStats {
    published: AtomicU64,
    refused: AtomicU64,
    failed_rounds: AtomicU64,
    waiting: AtomicU64,
    parked: AtomicU64,
}

impl OutboxStats {
    /// Messages that the stream has.
    pub fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// Messages that this relay found that can never be published; they stay
    /// in the table with the reason.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Rounds that Postgres or the stream did not let finish.
    pub fn failed_rounds(&self) -> u64 {
        self.failed_rounds.load(Relaxed)
    }

    /// Committed messages that the stream does not have yet, counted up to
    /// 10,000 and about once per second.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// Messages in the table that can never be published, whoever found out;
    /// counted likewise.
    pub fn parked(&self) -> u64 {
        self.parked.load(Relaxed)
    }
}

#[derive(Debug)]
struct Row {
    entry: i64,
    channel: String,
    kind: String,
    data: String,
    id: Uuid,
}

/// What became of a round.
enum Round {
    /// Another relay is at work.
    StandBy,
    /// Nothing is left.
    Empty,
    /// There may be more.
    More,
}

/// What became of the messages of one channel.
#[derive(Default)]
struct Outcome {
    published: Vec<i64>,
    refused: Vec<(i64, String)>,
    /// Set if the rest has to wait.
    waits: Option<Duration>,
}

impl OutboxRelay {
    /// A relay from this store to `publisher`, which should be an
    /// [`crate::OncePublisher`]: a message that was published before a crash
    /// may be published again at any time after it. From when it runs,
    /// `rejoin.publish` accepts at most `data_bytes` of payload; the relay
    /// that started last decides.
    pub fn new(store: &Store, publisher: Arc<dyn Publish>, data_bytes: usize) -> Self {
        Self {
            store: store.clone(),
            publisher,
            data_bytes: data_bytes.min(MESSAGE_BYTES_MAX),
            stats: Arc::default(),
        }
    }

    /// What it has done; shared and always up to date.
    pub fn stats(&self) -> Arc<OutboxStats> {
        Arc::clone(&self.stats)
    }

    /// Relays until `stop` resolves.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let work = pin!(self.work());
        match select(pin!(stop), work).await {
            Either::Left(((), _)) => {}
            Either::Right((never, _)) => match never {},
        }
    }

    async fn work(&self) -> std::convert::Infallible {
        let mut listener = Listener::start(&self.store, "rejoin_outbox");
        while let Err(error) = self.store.within(self.limit()).await {
            tracing::warn!(error = %error, "the outbox waits for the store");
            sleep(BACKOFF).await;
        }
        let mut count_at = Instant::now();
        loop {
            // What was announced until here, the rounds below will see.
            listener.clear();
            let mut waiting = HashSet::new();
            let pause = loop {
                match self.round(&mut waiting).await {
                    Ok(Round::More) => {}
                    Ok(Round::StandBy) => break POLL,
                    Ok(Round::Empty) => {
                        break if waiting.is_empty() { POLL } else { BACKOFF };
                    }
                    Err(error) => {
                        self.stats.failed_rounds.fetch_add(1, Relaxed);
                        tracing::warn!(error = %error, "the outbox waits for the store");
                        break BACKOFF;
                    }
                }
            };
            if Instant::now() >= count_at {
                // Figures may be old when the store is away; that shows elsewhere.
                let _ = self.store.within(self.count()).await;
                count_at = Instant::now() + POLL;
            }
            if waiting.is_empty() {
                let _ = timeout(pause, listener.next()).await;
            } else {
                sleep(pause).await;
            }
        }
    }

    /// Tells `rejoin.publish` how long a payload may be.
    async fn limit(&self) -> Result<(), StoreError> {
        let most = i32::try_from(self.data_bytes).unwrap_or(i32::MAX);
        statement!(
            self.store,
            execute,
            sqlx::query!(
                "INSERT INTO rejoin.outbox_limits AS l (data_bytes) VALUES ($1)
                 ON CONFLICT (only_row) DO UPDATE SET data_bytes = excluded.data_bytes
                 WHERE l.data_bytes <> excluded.data_bytes",
                most,
            )
        );
        Ok(())
    }

    async fn count(&self) -> Result<(), StoreError> {
        let counts = statement!(
            self.store,
            fetch_one,
            sqlx::query!(
                r#"SELECT (SELECT count(*) FROM (
                       SELECT 1 FROM rejoin.outbox WHERE place IS NOT NULL AND refused IS NULL LIMIT $1
                   ) w) AS "waiting!",
                   (SELECT count(*) FROM (
                       SELECT 1 FROM rejoin.outbox WHERE refused IS NOT NULL LIMIT $1
                   ) p) AS "parked!""#,
                COUNT_MAX,
            )
        );
        let number = |count: i64| u64::try_from(count).unwrap_or_default();
        self.stats.waiting.store(number(counts.waiting), Relaxed);
        self.stats.parked.store(number(counts.parked), Relaxed);
        Ok(())
    }

    /// Publishes the oldest messages, except to channels that have to wait.
    async fn round(&self, waiting: &mut HashSet<String>) -> Result<Round, StoreError> {
        let mut session = self.store.session().await?;
        session.begin().await?;
        let mine = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_xact_lock($1) AS "mine!""#,
            RELAY_LOCK
        )
        .fetch_one(&mut *session)
        .await?;
        if !mine {
            session.rollback().await?;
            return Ok(Round::StandBy);
        }
        let excluded: Vec<String> = waiting.iter().cloned().collect();
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT entry AS "entry!", channel AS "channel!", kind AS "kind!", data AS "data!", id AS "id!"
               FROM (
                   SELECT o.*, sum(octet_length(o.data)) OVER (ORDER BY o.place) AS bytes
                   FROM (
                       SELECT * FROM rejoin.outbox
                       WHERE place IS NOT NULL AND refused IS NULL AND channel <> ALL ($1::text[])
                       ORDER BY place LIMIT $2
                   ) o
               ) s
               WHERE bytes <= $3::bigint OR bytes = octet_length(data)
               ORDER BY place"#,
            &excluded,
            ROUND_MESSAGES,
            ROUND_BYTES,
        )
        .fetch_all(&mut *session)
        .await?;
        if rows.is_empty() {
            session.rollback().await?;
            return Ok(Round::Empty);
        }
        let mut by_channel: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in rows {
            by_channel.entry(row.channel.clone()).or_default().push(row);
        }
        let until = Instant::now() + ROUND_TIME;
        let channels = by_channel.into_iter().map(|(channel, rows)| async move {
            let outcome = self.publish_channel(&channel, rows, until).await;
            (channel, outcome)
        });
        let mut published = Vec::new();
        let mut refused = Vec::new();
        let mut reasons = Vec::new();
        for (channel, outcome) in join_all(channels).await {
            published.extend(outcome.published);
            for (entry, reason) in outcome.refused {
                tracing::error!(
                    entry,
                    channel,
                    reason,
                    "an outbox message can not be published"
                );
                refused.push(entry);
                reasons.push(reason);
            }
            if outcome.waits.is_some() {
                waiting.insert(channel);
            }
        }
        sqlx::query!(
            "WITH refusals AS (
                 UPDATE rejoin.outbox o SET refused = r.reason
                 FROM unnest($2::bigint[], $3::text[]) r(entry, reason) WHERE o.entry = r.entry
             )
             DELETE FROM rejoin.outbox WHERE entry = ANY($1::bigint[])",
            &published,
            &refused,
            &reasons,
        )
        .execute(&mut *session)
        .await?;
        session.commit().await?;
        self.stats
            .published
            .fetch_add(published.len() as u64, Relaxed);
        self.stats.refused.fetch_add(refused.len() as u64, Relaxed);
        Ok(Round::More)
    }

    /// One after the other, so that a message is never stored before one that
    /// was committed earlier. Ends at the first that has to wait.
    async fn publish_channel(&self, channel: &str, rows: Vec<Row>, until: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        for row in rows {
            if Instant::now() >= until {
                break;
            }
            let entry = row.entry;
            let publication = match publication(channel, row) {
                Ok(publication) => publication,
                Err(reason) => {
                    outcome.refused.push((entry, reason));
                    continue;
                }
            };
            match self.publisher.publish(publication).await {
                Ok(_) => outcome.published.push(entry),
                Err(PublishError::Refused { reason }) => outcome.refused.push((entry, reason)),
                Err(
                    error @ (PublishError::Unavailable { retry_after, .. }
                    | PublishError::Full { retry_after }),
                ) => {
                    tracing::warn!(channel, error = %error, "an outbox message waits for the stream");
                    outcome.waits = Some(retry_after);
                    break;
                }
            }
        }
        outcome
    }
}

/// What was accepted by an earlier configuration is published all the same;
/// only what no client could be given is not. Rows that did not come through
/// `rejoin.publish` may be anything.
fn publication(channel: &str, row: Row) -> Result<Publication, String> {
    if row.data.len() > MESSAGE_BYTES_MAX {
        return Err(format!(
            "{} bytes of data; no message has more than {MESSAGE_BYTES_MAX}",
            row.data.len()
        ));
    }
    check_type(&row.kind).map_err(|error| error.to_string())?;
    Ok(Publication {
        channel: Channel::parse(channel).map_err(|error| error.to_string())?,
        id: MessageId::parse(&row.id.to_string()).map_err(|error| error.to_string())?,
        publisher: Publisher::Service(PUBLISHER.into()),
        kind: row.kind.into(),
        sender: None,
        data: Bytes::from(row.data),
        traceparent: None,
    })
}
