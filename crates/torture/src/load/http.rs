//! Requests of publishers and of clients without a WebSocket.

use std::time::Duration;

/// A client that takes a new connection for each request, so that the balancer spreads them.
pub(super) fn client(timeout: Duration) -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(timeout)
        .pool_max_idle_per_host(0)
        .build()
        .unwrap_or_default()
}
