//! What an application tells the client.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use protocol::frame::Subscribe;
use protocol::{Channel, Device, Encoding, From as StartFrom};

/// How a [`Client`](super::Client) connects.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `ws://host[:port]/v1/connect` of any edge, or of the balancer before them.
    pub url: String,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// How frames are written. Default: protobuf.
    pub encoding: Encoding,
    /// Names this device among the user's; the same after every restart.
    pub device: Option<Device>,
    /// Listen to the user's inbox without naming it.
    pub inbox: bool,
    /// Listen to the user's rooms without naming them.
    pub rooms: bool,
    /// What to listen to from the beginning. With stored cursors as `from`, the client goes on where it was.
    pub subscriptions: Vec<Subscribe>,
}

impl ClientConfig {
    /// The defaults, for this address and these tokens.
    #[must_use]
    pub fn new(url: impl Into<String>, tokens: TokenSource) -> Self {
        Self {
            url: url.into(),
            tokens,
            encoding: Encoding::Proto,
            device: None,
            inbox: false,
            rooms: false,
            subscriptions: Vec::new(),
        }
    }

    /// With one more subscription.
    #[must_use]
    pub fn subscribe(mut self, channel: Channel, from: StartFrom) -> Self {
        self.subscriptions.push(Subscribe {
            channel,
            from,
            max_catchup: 0,
        });
        self
    }
}

/// Where tokens come from: asked before the first connection, when a token is about to expire, and when an edge no
/// longer takes it.
#[derive(Clone)]
pub struct TokenSource(Arc<Ask>);

type Ask = dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync;

impl TokenSource {
    /// Asks the application's own login service. An error is tried again, after a delay.
    pub fn new<F, R>(ask: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// Always the same token: for tools and tests.
    #[must_use]
    pub fn fixed(token: impl Into<String>) -> Self {
        let token = token.into();
        Self::new(move || std::future::ready(Ok(token.clone())))
    }

    pub(super) fn ask(&self) -> BoxFuture<'static, Result<String, String>> {
        (self.0)()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}
