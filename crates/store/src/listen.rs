//! Notifications from Postgres, over all interruptions.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::config::StoreConfig;
use crate::connect::Store;

/// Without a notification for this long the connection is tried out: a cut
/// that nobody announced must show within seconds.
const QUIET: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);
/// Notifications that wait for their reader here; more wait in Postgres.
const WAITING_MAX: usize = 1_024;

/// What a listener reports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Listening (again): whatever was sent before was missed.
    Listening,
    /// A notification's payload.
    Payload(String),
}

/// Listens on one notification channel, with a connection of its own.
pub(crate) struct Listener {
    notices: mpsc::Receiver<Notice>,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Must be called within a runtime.
    pub(crate) fn start(store: &Store, channel: &'static str) -> Self {
        let (sender, notices) = mpsc::channel(WAITING_MAX);
        let store = store.clone();
        Self {
            notices,
            _task: AbortOnDropHandle::new(tokio::spawn(listen(store, channel, sender))),
        }
    }

    /// The next notice; dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Notice {
        match self.notices.recv().await {
            Some(notice) => notice,
            // The task ends only with this handle.
            None => std::future::pending().await,
        }
    }

    /// Forgets what is waiting: the reader is about to look for itself.
    pub(crate) fn clear(&mut self) {
        while self.notices.try_recv().is_ok() {}
    }
}

async fn listen(store: Store, channel: &'static str, notices: mpsc::Sender<Notice>) {
    loop {
        match session(&store, channel, &notices).await {
            // The reader is gone.
            Ok(()) => return,
            Err(error) => {
                tracing::debug!(channel, error = %error, "not listening");
                sleep(RECONNECT).await;
            }
        }
    }
}

async fn session(
    store: &Store,
    channel: &str,
    notices: &mpsc::Sender<Notice>,
) -> Result<(), sqlx::Error> {
    let config = store.config();
    let open = async {
        // A pool of its own, as one connection listens for ever.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(PgConnectOptions::clone(store.options()))
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(channel).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let mut listener = within(config, open).await?;
    if notices.send(Notice::Listening).await.is_err() {
        return Ok(());
    }
    loop {
        match timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                let notice = Notice::Payload(notification.payload().to_owned());
                if notices.send(notice).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Ok(None)) => return Err(sqlx::Error::PoolClosed),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let probe = sqlx::query!("SELECT 1 AS one").fetch_one(&mut listener);
                within(config, probe).await?;
            }
        }
    }
}

async fn within<T>(
    config: &StoreConfig,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(config.query_timeout(), query)
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
