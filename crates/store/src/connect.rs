//! The bounded pool and the embedded migrations.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Postgres};
use tokio::time::timeout;

use crate::config::StoreConfig;
use crate::error::StoreError;

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Where the applied migrations are remembered: not in the schema of the
/// application whose database it may be.
const MIGRATIONS_TABLE: &str = "rejoin.schema_migrations";

/// Migrations may have to wait for those of another process.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that was used this recently is taken to be alive.
const FRESH: Duration = Duration::from_millis(500);

/// Settings of our sessions.
///
/// A page is one plan for every cursor: an ordered walk over the partitions
/// that prunes when it runs. Planning it anew costs 7 ms with 30 partitions, and
/// fresh partitions without statistics must not tempt the planner into a scan
/// and a sort. Compiling a plan (JIT) costs more than any of our queries.
const SESSION: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    // Ours are abandoned sooner by the caller; this ends them in the server.
    ("statement_timeout", "15s"),
    ("client_connection_check_interval", "1s"),
];

/// A handle to Postgres; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    config: Arc<StoreConfig>,
}

impl Store {
    /// A store that connects when it is first used, so that a process can
    /// start while Postgres is away. Every call answers `Unavailable` until
    /// [`Store::migrate`] has succeeded somewhere.
    ///
    /// # Errors
    /// `Config` if the URL is none, or a file cannot be read.
    pub fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let options = connect_options(&config)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections.clamp(3, 100))
            .acquire_timeout(config.acquire_timeout())
            // Asking every time whether it is still there would double every
            // round trip; one that was used a moment ago is not asked.
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for > FRESH {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .idle_timeout(Duration::from_secs(300))
            .connect_lazy_with(options.clone().options(SESSION));
        Ok(Self {
            pool,
            options: Arc::new(options),
            config: Arc::new(config),
        })
    }

    /// [`Store::new`] and [`Store::migrate`].
    ///
    /// # Errors
    /// `Config` for a bad URL, `Unavailable` when Postgres is.
    pub async fn connect(config: StoreConfig) -> Result<Self, StoreError> {
        let store = Self::new(config)?;
        store.migrate().await?;
        Ok(store)
    }

    /// Brings the schema up to date. Any number of processes may do so at the
    /// same time; migrations that this binary does not know are left alone.
    ///
    /// # Errors
    /// `Unavailable` when Postgres is, when a migration fails, or after 60 s.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut migrator = Migrator {
            migrations: MIGRATIONS.migrations.clone(),
            ..Migrator::DEFAULT
        };
        migrator.set_ignore_missing(true);
        migrator.create_schema("rejoin");
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        let run = async {
            let mut session = self.session().await?;
            migrator
                .run_direct(None, &mut *session, false)
                .await
                .map_err(|error| StoreError::unavailable(error.to_string()))?;
            session.keep();
            Ok(())
        };
        timeout(MIGRATION_TIMEOUT, run)
            .await
            .unwrap_or_else(|_| Err(StoreError::unavailable("migrating took too long")))
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection for one operation.
    pub(crate) async fn session(&self) -> Result<Session, StoreError> {
        Ok(Session {
            connection: Some(self.pool.acquire().await?),
        })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How to connect, without the pool's session settings.
    pub(crate) fn options(&self) -> &Arc<PgConnectOptions> {
        &self.options
    }

    pub(crate) fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// The answer within the configured time, or `Unavailable`.
    pub(crate) async fn within<T, E>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        match timeout(self.config.query_timeout(), query).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::unavailable("no answer in time").into()),
        }
    }
}

/// Where Postgres is, who we are, and whom we take it for.
fn connect_options(config: &StoreConfig) -> Result<PgConnectOptions, StoreError> {
    let wrong = |reason: String| StoreError::Config { reason };
    let mut options = PgConnectOptions::from_str(&config.url)
        .map_err(|error| wrong(error.to_string()))?
        .application_name("rejoin")
        .disable_statement_logging();
    if let Some(path) = &config.password_file {
        let password = std::fs::read_to_string(path)
            .map_err(|error| wrong(format!("password_file {}: {error}", path.display())))?;
        // Editors end a file with a newline; nobody means it.
        options = options.password(password.trim_end_matches(['\n', '\r']));
    }
    if let Some(path) = &config.ca_file {
        // Read again at each connection; missing now, it is a mistake.
        std::fs::metadata(path)
            .map_err(|error| wrong(format!("ca_file {}: {error}", path.display())))?;
        options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(path);
    }
    Ok(options)
}

/// A connection for one operation, from the pool.
///
/// A connection whose operation was abandoned (a time-out, a cancelled task)
/// is in the middle of it: the next user would get its answers or be inside
/// its transaction. So a connection goes back to the pool only when its
/// operation says that it has ended; else it is closed, which rolls back.
pub(crate) struct Session {
    connection: Option<PoolConnection<Postgres>>,
}

impl Session {
    /// The operation has ended: others may have the connection.
    pub(crate) fn keep(mut self) {
        self.connection = None;
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("BEGIN").execute(&mut **self).await?;
        Ok(())
    }

    /// Commits it. After an error it is not known whether it was.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut *self).await?;
        self.keep();
        Ok(())
    }

    /// Rolls it back. So does dropping the session, at the price of a connection.
    pub(crate) async fn rollback(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("ROLLBACK").execute(&mut *self).await?;
        self.keep();
        Ok(())
    }
}

/// One statement on a session of its own: `statement!(store, fetch_all, query)`.
macro_rules! statement {
    ($store:expr, $fetch:ident, $query:expr $(,)?) => {{
        let mut session = $store.session().await?;
        let answer = $query
            .$fetch(&mut *session)
            .await
            .map_err($crate::error::StoreError::from)?;
        session.keep();
        answer
    }};
}
pub(crate) use statement;

const HELD: &str = "a session has its connection until it is kept or dropped";

impl Deref for Session {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().expect(HELD)
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect(HELD)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Out of the pool, and closed.
            drop(connection.detach());
        }
    }
}
