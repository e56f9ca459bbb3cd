//! One NATS connection and what is known about its state.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use rand::Rng;
use tokio::sync::watch;

use crate::config::{BackplaneConfig, secret};
use crate::stats::Counters;

/// How soon a dead connection is noticed: the client library gives up after
/// two unanswered pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Longest pause between two attempts to reconnect, so that an outage is
/// lengthened by no more than this.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(250);

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a state is looked at again where an event could be missed: the
/// client library drops events when it has many.
const STATE_POLL: Duration = Duration::from_millis(100);

/// A connection with its life told as a count: odd while it is up.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    life: watch::Receiver<u64>,
}

impl Link {
    /// Connects once; afterwards the connection repairs itself for ever.
    pub(crate) async fn connect(
        config: &BackplaneConfig,
        role: &str,
        counters: Arc<Counters>,
    ) -> Result<Self, async_nats::ConnectError> {
        let (life_sender, life) = watch::channel(1_u64);
        let life_sender = Arc::new(life_sender);
        let mut first = true;
        let on_event = move |event: Event| {
            let up = match event {
                Event::Connected => Some(true),
                Event::Disconnected | Event::Closed => Some(false),
                Event::LameDuckMode
                | Event::Draining
                | Event::SlowConsumer(_)
                | Event::ServerError(_)
                | Event::ClientError(_) => None,
            };
            let Some(up) = up else { return };
            let was_up = *life_sender.borrow() % 2 == 1;
            life_sender.send_modify(|life| {
                *life += match (was_up, up) {
                    (true, false) | (false, true) => 1,
                    // A missed event: still another life.
                    (true, true) | (false, false) => 2,
                };
            });
            if up {
                counters.reconnects.increment();
            }
        };
        // The first `Connected` is this call's own and no reconnect.
        let on_event = Arc::new(parking_lot::Mutex::new(move |event: Event| {
            if std::mem::take(&mut first) && event == Event::Connected {
                return;
            }
            on_event(event);
        }));
        let options = options(config, role)
            .await
            .map_err(|error| {
                async_nats::ConnectError::with_source(
                    async_nats::ConnectErrorKind::Authentication,
                    error,
                )
            })?
            .event_callback(move |event| {
                (on_event.lock())(event);
                async {}
            });
        let client = options.connect(config.urls.as_slice()).await?;
        Ok(Self { client, life })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Which life of the connection this is. Requests that were sent in an
    /// earlier one are not answered any more.
    pub(crate) fn life(&self) -> u64 {
        *self.life.borrow()
    }

    /// Resolves once the connection has been lost after this life.
    pub(crate) async fn lost_since(&self, life: u64) {
        let mut receiver = self.life.clone();
        // The sender lives in the client's own task; without it the
        // connection is gone for good.
        let _ = receiver.wait_for(|now| *now != life).await;
    }

    /// Waits until the connection is up.
    pub(crate) async fn up(&self) {
        let mut receiver = self.life.clone();
        while !self.is_up() {
            let _ = tokio::time::timeout(STATE_POLL, receiver.changed()).await;
        }
    }
}

async fn options(config: &BackplaneConfig, role: &str) -> std::io::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(format!("rejoin {} {role}", config.edge))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .require_tls(config.tls.required)
        .reconnect_delay_callback(|attempts| {
            if attempts <= 1 {
                return Duration::ZERO;
            }
            let longest_ms = RECONNECT_DELAY_MAX.as_millis() as u64;
            Duration::from_millis(rand::rng().random_range(longest_ms / 4..=longest_ms))
        });
    if let Some(ca) = &config.tls.ca_file {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    let auth = &config.auth;
    if let Some(path) = &auth.credentials_file {
        return options.credentials_file(path).await;
    }
    let seed = secret(auth.nkey_seed.as_ref(), auth.nkey_seed_file.as_ref())?;
    let token = secret(auth.token.as_ref(), auth.token_file.as_ref())?;
    let password = secret(auth.password.as_ref(), auth.password_file.as_ref())?;
    Ok(if let Some(seed) = seed {
        options.nkey(seed)
    } else if let Some(token) = token {
        options.token(token)
    } else if let Some(user) = &auth.user {
        options.user_and_password(user.clone(), password.unwrap_or_default())
    } else {
        options
    })
}
