//! API keys and revocations.

use crate::connect::{Store, statement};
use crate::error::StoreError;

/// An API key as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Its name, `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// What it may do, in the edge's form.
    pub grants: serde_json::Value,
}

/// What a revocation concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationKind {
    /// All of a user's tokens.
    User,
    /// All tokens of a session.
    Session,
    /// One token.
    Token,
}

impl RevocationKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Token => "token",
        }
    }
}

impl Store {
    /// Creates or replaces an API key, of which only a hash is kept.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is.
    pub async fn put_api_key(&self, key: &ApiKey, key_hash: &[u8]) -> Result<(), StoreError> {
        self.within(async {
            statement!(
                self,
                execute,
                sqlx::query!(
                    "INSERT INTO rejoin.api_keys (name, key_hash, grants) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE SET
                     key_hash = excluded.key_hash, grants = excluded.grants, revoked_at = NULL",
                    key.name,
                    key_hash,
                    key.grants,
                )
            );
            Ok(())
        })
        .await
    }

    /// Revokes an API key; unknown names are fine.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is.
    pub async fn revoke_api_key(&self, name: &str) -> Result<(), StoreError> {
        self.within(async {
            statement!(
                self,
                execute,
                sqlx::query!(
                    "UPDATE rejoin.api_keys SET revoked_at = now() WHERE name = $1",
                    name
                )
            );
            Ok(())
        })
        .await
    }

    /// The key with this hash, unless it was revoked.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is.
    pub async fn api_key(&self, key_hash: &[u8]) -> Result<Option<ApiKey>, StoreError> {
        self.within(async {
            Ok(statement!(self, fetch_optional, sqlx::query_as!(
                ApiKey,
                "SELECT name, grants FROM rejoin.api_keys WHERE key_hash = $1 AND revoked_at IS NULL",
                key_hash
            )))
        })
        .await
    }

    /// From now on tokens of the subject that were issued before `before_ms`
    /// (milliseconds since the Unix epoch) are not accepted. The revocation is
    /// forgotten after `keep_ms`, when those tokens have expired.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is.
    pub async fn revoke(
        &self,
        kind: RevocationKind,
        subject: &str,
        before_ms: i64,
        keep_ms: u32,
    ) -> Result<(), StoreError> {
        self.within(async {
            statement!(
                self,
                execute,
                sqlx::query!(
                    "INSERT INTO rejoin.revocations AS old (kind, subject, before_ms, expires_at)
                 VALUES ($1, $2, $3, now() + make_interval(secs => $4))
                 ON CONFLICT (kind, subject) DO UPDATE SET
                     before_ms = greatest(old.before_ms, excluded.before_ms),
                     expires_at = greatest(old.expires_at, excluded.expires_at)",
                    kind.as_str(),
                    subject,
                    before_ms,
                    f64::from(keep_ms) / 1_000.0,
                )
            );
            statement!(
                self,
                execute,
                sqlx::query!("DELETE FROM rejoin.revocations WHERE expires_at < now()")
            );
            Ok(())
        })
        .await
    }

    /// The time before which the subject's tokens are not accepted, in
    /// milliseconds since the Unix epoch, if it was revoked.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is.
    pub async fn revoked_before_ms(
        &self,
        kind: RevocationKind,
        subject: &str,
    ) -> Result<Option<i64>, StoreError> {
        self.within(async {
            Ok(statement!(
                self,
                fetch_optional,
                sqlx::query_scalar!(
                    "SELECT before_ms FROM rejoin.revocations
                 WHERE kind = $1 AND subject = $2 AND expires_at > now()",
                    kind.as_str(),
                    subject
                )
            ))
        })
        .await
    }
}
