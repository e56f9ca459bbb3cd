//! Signals and control messages: core NATS, at most once, never stored.

use std::sync::Arc;

use async_nats::header::HeaderName;
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use delivery::signal::{Control, Controls, Incoming, Signal, SignalError, Signals};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, UserId};

use crate::connect::Inner;
use crate::message::{KIND, SENDER};

/// Longest name of a control message, in bytes.
const CONTROL_NAME_MAX_BYTES: usize = 128;

/// Longest application type of a signal, in bytes.
const KIND_MAX_BYTES: usize = 256;

/// Sends and receives the signals of all channels.
#[derive(Clone)]
pub struct SignalBus {
    inner: Arc<Inner>,
}

/// Sends and receives the control messages of all edges.
#[derive(Clone)]
pub struct ControlBus {
    inner: Arc<Inner>,
}

impl SignalBus {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl ControlBus {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

/// Publishes unless the connection is down: while it is, messages would be
/// kept until it is back, and a stale signal is worse than none.
async fn send(
    inner: &Inner,
    subject: String,
    headers: HeaderMap,
    data: Bytes,
) -> Result<(), SignalError> {
    let fail = |reason: String| Err(SignalError { reason });
    if !inner.publish.is_up() {
        return fail("the backplane is not connected".into());
    }
    let client = &inner.publish.client;
    let sent = client.publish_with_headers(subject, headers, data);
    match tokio::time::timeout(inner.config.request_timeout(), sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => fail(error.to_string()),
        Err(_elapsed) => fail("the connection is congested".into()),
    }
}

async fn subscribe(inner: &Inner, subject: String) -> Result<Subscriber, SignalError> {
    inner
        .publish
        .client
        .subscribe(subject)
        .await
        .map_err(|error| SignalError {
            reason: error.to_string(),
        })
}

impl Signals for SignalBus {
    fn send(&self, signal: Signal) -> BoxFuture<'_, Result<(), SignalError>> {
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            if !signal.kind.is_empty() {
                if signal.kind.len() > KIND_MAX_BYTES || signal.kind.chars().any(char::is_control) {
                    return Err(SignalError {
                        reason: "the type is too long or has control characters".into(),
                    });
                }
                headers.insert(KIND, &*signal.kind);
            }
            if let Some(sender) = &signal.sender {
                headers.insert(SENDER, sender.as_str());
            }
            let subject = self.inner.names.signal(&signal.channel);
            send(&self.inner, subject, headers, signal.data).await
        })
    }

    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Incoming<Signal>>, SignalError>> {
        Box::pin(async move {
            let subscriber = subscribe(&self.inner, self.inner.names.signals()).await?;
            let feed = SubjectFeed {
                inner: self.inner.clone(),
                subscriber,
                decode: decode_signal,
            };
            Ok(Box::new(feed) as Box<dyn Incoming<Signal>>)
        })
    }
}

impl Controls for ControlBus {
    fn send(&self, control: Control) -> BoxFuture<'_, Result<(), SignalError>> {
        Box::pin(async move {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            let name = &*control.name;
            let valid = name.len() <= CONTROL_NAME_MAX_BYTES
                && name
                    .split('.')
                    .all(|token| !token.is_empty() && token.bytes().all(allowed));
            if !valid {
                return Err(SignalError {
                    reason: format!("{name:?} is not the name of a control message"),
                });
            }
            let subject = self.inner.names.control(name);
            send(&self.inner, subject, HeaderMap::new(), control.body).await
        })
    }

    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Incoming<Control>>, SignalError>> {
        Box::pin(async move {
            let subscriber = subscribe(&self.inner, self.inner.names.controls()).await?;
            let feed = SubjectFeed {
                inner: self.inner.clone(),
                subscriber,
                decode: decode_control,
            };
            Ok(Box::new(feed) as Box<dyn Incoming<Control>>)
        })
    }
}

/// A subscription, each message read by `decode`; what it cannot read is
/// skipped.
struct SubjectFeed<T> {
    inner: Arc<Inner>,
    subscriber: Subscriber,
    decode: fn(&Inner, async_nats::Message) -> Option<T>,
}

impl<T: Send + 'static> Incoming<T> for SubjectFeed<T> {
    fn next(&mut self) -> BoxFuture<'_, Option<T>> {
        Box::pin(async move {
            loop {
                let message = self.subscriber.next().await?;
                if let Some(item) = (self.decode)(&self.inner, message) {
                    return Some(item);
                }
            }
        })
    }
}

fn decode_signal(inner: &Inner, message: async_nats::Message) -> Option<Signal> {
    let channel: Channel = inner.names.signal_channel(&message.subject)?;
    let value = |name: HeaderName| Some(message.headers.as_ref()?.get_last(name)?.as_str());
    Some(Signal {
        channel,
        kind: value(KIND).unwrap_or_default().into(),
        sender: value(SENDER).and_then(|sender| UserId::parse(sender).ok()),
        data: message.payload.clone(),
    })
}

fn decode_control(inner: &Inner, message: async_nats::Message) -> Option<Control> {
    Some(Control {
        name: inner.names.control_name(&message.subject)?.into(),
        body: message.payload,
    })
}
