//! A look at Postgres without changing it, for operators.

use sqlx::Row as _;

use crate::connect::{MIGRATIONS, Store, statement};
use crate::error::StoreError;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// As Postgres writes it, `15.4 (Debian …)`.
    pub version: String,
    /// The major version; 15 or newer is needed.
    pub major_version: u32,
    /// Whether a commit reaches the disk before it is acknowledged: `fsync`
    /// is on and `synchronous_commit` not off.
    pub durable: bool,
    /// Whether TLS is spoken with it.
    pub is_encrypted: bool,
    /// Migrations of this binary that were not applied yet.
    pub pending_migrations: usize,
}

/// Connections of a process's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Open now.
    pub open: usize,
    /// Of these, not in use.
    pub idle: usize,
    /// Most that may be open.
    pub max: usize,
}

impl Store {
    /// What Postgres takes for the time, in milliseconds since the Unix
    /// epoch: the shortest proof that it answers.
    ///
    /// # Errors
    /// `Unavailable` when it does not.
    pub async fn clock_ms(&self) -> Result<i64, StoreError> {
        self.within(async {
            let now = sqlx::query_scalar::<_, i64>(
                "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
            );
            Ok(statement!(self, fetch_one, now))
        })
        .await
    }

    /// How many connections this process has to Postgres.
    pub fn pool_state(&self) -> PoolState {
        let open = self.pool().size() as usize;
        PoolState {
            open,
            idle: self.pool().num_idle().min(open),
            max: self.config().max_connections as usize,
        }
    }

    /// Looks at the server and at the schema's version.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is.
    pub async fn inspect(&self) -> Result<Inspection, StoreError> {
        let (row, applied) = self
            .within(async {
                let server = sqlx::query(
                    "SELECT current_setting('server_version') AS version,
                            current_setting('server_version_num')::int / 10000 AS major,
                            current_setting('fsync') = 'on'
                                AND current_setting('synchronous_commit') <> 'off' AS durable,
                            (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted,
                            to_regclass('rejoin.schema_migrations') IS NOT NULL AS migrated",
                );
                let row = statement!(self, fetch_one, server);
                let versions = sqlx::query_scalar::<_, i64>(
                    "SELECT version FROM rejoin.schema_migrations WHERE success",
                );
                let applied = match row.try_get("migrated")? {
                    true => statement!(self, fetch_all, versions),
                    false => Vec::new(),
                };
                Ok::<_, StoreError>((row, applied))
            })
            .await?;
        let pending = MIGRATIONS
            .iter()
            .filter(|migration| !applied.contains(&migration.version));
        Ok(Inspection {
            version: row.try_get("version")?,
            major_version: u32::try_from(row.try_get::<i32, _>("major")?).unwrap_or(0),
            durable: row.try_get("durable")?,
            is_encrypted: row.try_get::<Option<bool>, _>("encrypted")? == Some(true),
            pending_migrations: pending.count(),
        })
    }
}
