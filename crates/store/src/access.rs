//! Revocations, and tickets that were used.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use delivery::access::{
    AccessRecords, Revocation, RevocationEvent, RevocationWatch, Revoked, TOKEN_ID_MAX_BYTES,
};
use delivery::members::StoreFailure;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::UserId;
use serde::Deserialize;
use tokio::time::sleep;

use crate::batch::Batcher;
use crate::connect::{Store, statement};
use crate::error::StoreError;
use crate::listen::{Listener, Notice};

/// Revocations of one query when all are read.
const PAGE: i64 = 10_000;
/// Between two attempts to read all.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);
/// What Postgres answers when the bound on revocations is reached
/// (`program_limit_exceeded`).
const LIMIT_EXCEEDED: &str = "54000";

/// Revocations and tickets in Postgres; cheap to clone.
#[derive(Clone)]
pub struct AccessStore {
    store: Store,
    tickets: Arc<Batcher<Ticket, bool>>,
}

/// A ticket's id, and when it expires, in milliseconds since the Unix epoch.
type Ticket = (Box<str>, i64);

impl AccessStore {
    /// The records of this store. Must be called within a runtime.
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            tickets: Arc::new(Batcher::start(store, take_tickets)),
        }
    }

    async fn put(&self, revocation: Revocation) -> Result<Revocation, StoreError> {
        let (kind, subject) = key(&revocation.revoked)?;
        let mut session = self.store.session().await?;
        let put = sqlx::query!(
            r#"INSERT INTO rejoin.revocations AS old (kind, subject, before_ms, expires_at)
               VALUES ($1, $2, $3, to_timestamp($4::bigint / 1000.0))
               ON CONFLICT (kind, subject) DO UPDATE SET
                   before_ms = greatest(old.before_ms, excluded.before_ms),
                   expires_at = greatest(old.expires_at, excluded.expires_at)
               RETURNING before_ms, (extract(epoch FROM expires_at) * 1000)::bigint AS "expires_ms!""#,
            kind,
            subject,
            revocation.before_ms,
            revocation.expires_ms,
        );
        let stands = put.fetch_one(&mut *session).await.map_err(full)?;
        let expired = sqlx::query!("DELETE FROM rejoin.revocations WHERE expires_at < now()");
        expired.execute(&mut *session).await?;
        session.keep();
        Ok(Revocation {
            revoked: revocation.revoked,
            before_ms: stands.before_ms,
            expires_ms: stands.expires_ms,
        })
    }

    async fn remove(&self, revoked: Revoked) -> Result<bool, StoreError> {
        let (kind, subject) = key(&revoked)?;
        let removed = statement!(
            self.store,
            execute,
            sqlx::query!(
                "DELETE FROM rejoin.revocations WHERE kind = $1 AND subject = $2",
                kind,
                subject
            )
        );
        Ok(removed.rows_affected() > 0)
    }
}

/// The key of its row.
fn key(revoked: &Revoked) -> Result<(&'static str, &str), StoreError> {
    match revoked {
        Revoked::User(user) => Ok(("user", user.as_str())),
        Revoked::Token(id)
            if (1..=TOKEN_ID_MAX_BYTES).contains(&id.len()) && !id.contains('\0') =>
        {
            Ok(("token", id))
        }
        Revoked::Token(_) => Err(StoreError::refused("a token's id has 1 to 256 bytes")),
    }
}

fn full(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some(LIMIT_EXCEEDED) => StoreError::refused(error.to_string()),
        Some(_) | None => error.into(),
    }
}

/// What a row says; none for one that no edge can understand.
fn revocation(kind: &str, subject: &str, before_ms: i64, expires_ms: i64) -> Option<Revocation> {
    Some(Revocation {
        revoked: revoked(kind, subject)?,
        before_ms,
        expires_ms,
    })
}

fn revoked(kind: &str, subject: &str) -> Option<Revoked> {
    match kind {
        "user" => Some(Revoked::User(UserId::parse(subject).ok()?)),
        "token" => Some(Revoked::Token(subject.into())),
        _ => None,
    }
}

/// Notes tickets as used. Of the same ticket twice in one query, one is the
/// first.
async fn take_tickets(store: Store, tickets: Vec<Ticket>) -> Result<Vec<bool>, StoreError> {
    let ids: Vec<&str> = tickets.iter().map(|(id, _)| &**id).collect();
    let expiries: Vec<i64> = tickets.iter().map(|(_, expires_ms)| *expires_ms).collect();
    // Rows are kept for longer than any clock is wrong.
    let taken = statement!(
        store,
        fetch_all,
        sqlx::query_scalar!(
            "WITH gone AS (
                 DELETE FROM rejoin.used_tickets WHERE id IN (
                     SELECT id FROM rejoin.used_tickets WHERE expires_at < now() - interval '10 minutes'
                     LIMIT 1000 FOR UPDATE SKIP LOCKED))
             INSERT INTO rejoin.used_tickets (id, expires_at)
             SELECT t.id, to_timestamp(t.ms / 1000.0) FROM unnest($1::text[], $2::bigint[]) t(id, ms)
             ON CONFLICT DO NOTHING RETURNING id",
            &ids as &[&str],
            &expiries,
        )
    );
    let mut new: HashSet<String> = taken.into_iter().collect();
    Ok(ids.iter().map(|id| new.remove(*id)).collect())
}

impl AccessRecords for AccessStore {
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<Revocation, StoreFailure>> {
        async move { Ok(self.store.within(self.put(revocation)).await?) }.boxed()
    }

    fn lift(&self, revoked: Revoked) -> BoxFuture<'_, Result<bool, StoreFailure>> {
        async move { Ok(self.store.within(self.remove(revoked)).await?) }.boxed()
    }

    fn watch(&self) -> Box<dyn RevocationWatch> {
        Box::new(Watch {
            store: self.store.clone(),
            listener: Listener::start(&self.store, "rejoin_revocations"),
            stale: false,
        })
    }

    fn take_ticket(
        &self,
        id: Box<str>,
        expires_ms: i64,
    ) -> BoxFuture<'_, Result<bool, StoreFailure>> {
        async move { Ok(self.tickets.ask((id, expires_ms)).await?) }.boxed()
    }
}

struct Watch {
    store: Store,
    listener: Listener,
    /// Something may have been missed, and all has not been read since.
    stale: bool,
}

impl RevocationWatch for Watch {
    fn next(&mut self) -> BoxFuture<'_, RevocationEvent> {
        async move {
            loop {
                if self.stale {
                    // Listening already: what commits while this reads is told afterwards.
                    match read_all(&self.store).await {
                        Ok(all) => {
                            self.stale = false;
                            return RevocationEvent::All(all);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "revocations cannot be read yet");
                            sleep(RELOAD_PAUSE).await;
                            continue;
                        }
                    }
                }
                match self.listener.next().await {
                    Notice::Listening => self.stale = true,
                    Notice::Payload(payload) => match parse_change(&payload) {
                        Some(event) => return event,
                        // Whatever it says, reading all is safe.
                        None => self.stale = true,
                    },
                }
            }
        }
        .boxed()
    }
}

async fn read_all(store: &Store) -> Result<Vec<Revocation>, StoreError> {
    let mut all = Vec::new();
    let mut after = (String::new(), String::new());
    loop {
        let page = store.within(read_page(store, &after)).await?;
        let Some(last) = page.last() else {
            return Ok(all);
        };
        after = (last.kind.clone(), last.subject.clone());
        all.extend(
            page.iter().filter_map(|row| {
                revocation(&row.kind, &row.subject, row.before_ms, row.expires_ms)
            }),
        );
    }
}

struct Row {
    kind: String,
    subject: String,
    before_ms: i64,
    expires_ms: i64,
}

async fn read_page(store: &Store, after: &(String, String)) -> Result<Vec<Row>, StoreError> {
    Ok(statement!(
        store,
        fetch_all,
        sqlx::query_as!(
            Row,
            r#"SELECT kind, subject, before_ms,
                      (extract(epoch FROM expires_at) * 1000)::bigint AS "expires_ms!"
               FROM rejoin.revocations
               WHERE (kind, subject) > ($1, $2) AND expires_at > now()
               ORDER BY kind, subject LIMIT $3"#,
            after.0,
            after.1,
            PAGE,
        )
    ))
}

/// A notification, as the trigger on the table writes it.
#[derive(Deserialize)]
struct Change {
    kind: String,
    subject: String,
    #[serde(default)]
    before_ms: i64,
    #[serde(default)]
    expires_ms: i64,
    #[serde(default)]
    lifted: bool,
}

fn parse_change(payload: &str) -> Option<RevocationEvent> {
    let change: Change = serde_json::from_str(payload).ok()?;
    let revoked = revoked(&change.kind, &change.subject)?;
    Some(match change.lifted {
        true => RevocationEvent::Lifted(revoked),
        false => RevocationEvent::Revoked(Revocation {
            revoked,
            before_ms: change.before_ms,
            expires_ms: change.expires_ms,
        }),
    })
}
