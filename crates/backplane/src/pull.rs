//! A pull consumer read continuously into one inbox.
//!
//! Pull and not push: what is under way is bounded by what was asked for, so
//! that the client library's queue, which drops what does not fit, never
//! fills. The order of deliveries is checked, so that a lost one is noticed.

use std::time::Duration;

use async_nats::header::HeaderName;
use async_nats::{Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::time::Instant;

use crate::link::Link;
use crate::message::Stored;

/// Messages asked for at once. The client library's queue takes 65,536.
const BATCH: u64 = 4_096;

/// Bytes asked for at once: bounds the memory of what is under way where
/// messages are large.
const BATCH_MAX_BYTES: u64 = 8 << 20;

/// More are asked for when this many are left, so that the next ones need
/// not wait for a round trip.
const BATCH_LOW: u64 = BATCH / 8;

/// How long a request waits at the server before it is asked again.
const EXPIRES: Duration = Duration::from_secs(30);

/// How the server says that a request has got what it asked for.
const USED_UP: [&str; 2] = ["MaxBytes", "Batch Completed"];

const PENDING_MESSAGES: HeaderName = HeaderName::from_static("Nats-Pending-Messages");

/// A message as the consumer delivered it.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) stored: Stored,
    /// Where it is acknowledged.
    pub(crate) reply: Subject,
    /// How often it was delivered, this time included.
    pub(crate) times: u64,
    /// How many more the consumer has to deliver.
    pub(crate) pending: u64,
}

/// What the consumer had to say.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Delivered),
    /// It is alive and has no message.
    Quiet,
}

/// Why a consumer can no longer be read and must be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection was lost")]
    ConnectionLost,
    #[error("nothing heard for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("a delivery was lost")]
    OutOfOrder,
    #[error("the consumer ended: {0}")]
    Ended(String),
}

/// The reading side of one consumer.
pub(crate) struct Pull {
    link: Link,
    life: u64,
    answers: Subscriber,
    inbox: String,
    method: String,
    heartbeat: Duration,
    /// Messages asked for and not yet delivered.
    outstanding: u64,
    /// The consumer's number of its last delivery; `None` before the first.
    delivery: Option<u64>,
    heard_at: Instant,
    /// Found while looking ahead; told at the next call.
    broken: Option<Broken>,
}

impl Pull {
    /// Starts to listen. The consumer itself is made by the caller, after
    /// this: nothing is delivered before it is asked for.
    pub(crate) async fn new(
        link: &Link,
        stream: &str,
        consumer: &str,
        heartbeat: Duration,
    ) -> Result<Self, Broken> {
        let life = link.life();
        let inbox = link.client.new_inbox();
        let answers = link
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| Broken::Ended(error.to_string()))?;
        Ok(Self {
            life,
            answers,
            inbox,
            method: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            heartbeat,
            outstanding: 0,
            delivery: None,
            heard_at: Instant::now(),
            broken: None,
            link: link.clone(),
        })
    }

    /// How long silence is borne.
    fn patience(&self) -> Duration {
        // One heartbeat may be late by a scheduling hiccup on a busy machine.
        self.heartbeat * 2 + Duration::from_millis(100)
    }

    /// The next thing that the consumer has to say. Dropping the future loses
    /// nothing.
    pub(crate) async fn next(&mut self) -> Result<Heard, Broken> {
        // First, so that the next messages are under way while these are
        // taken.
        self.ask().await?;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let patience = self.patience();
        tokio::select! {
            biased;
            message = self.answers.next() => match message {
                Some(message) => self.read(message),
                None => Err(Broken::ConnectionLost),
            },
            () = self.link.lost_since(self.life) => Err(Broken::ConnectionLost),
            () = tokio::time::sleep_until(self.heard_at + patience) => {
                Err(Broken::Silent(patience))
            }
        }
    }

    /// What has already arrived, without waiting. `None` also once the
    /// consumer is broken, which [`Pull::next`] then says.
    pub(crate) fn ready(&mut self) -> Option<Heard> {
        if self.broken.is_some() {
            return None;
        }
        let heard = match self.answers.next().now_or_never()? {
            Some(message) => self.read(message),
            None => Err(Broken::ConnectionLost),
        };
        match heard {
            Ok(heard) => Some(heard),
            Err(broken) => {
                self.broken = Some(broken);
                None
            }
        }
    }

    /// Asks for more when little is left of what was asked for.
    async fn ask(&mut self) -> Result<(), Broken> {
        if self.outstanding > BATCH_LOW {
            return Ok(());
        }
        let body = json!({
            "batch": BATCH,
            "max_bytes": BATCH_MAX_BYTES,
            "expires": EXPIRES.as_nanos() as u64,
            "idle_heartbeat": self.heartbeat.as_nanos() as u64,
        });
        let sent = self.link.client.publish_with_reply(
            self.method.clone(),
            self.inbox.clone(),
            body.to_string().into(),
        );
        let patience = self.patience();
        match tokio::time::timeout(patience, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Broken::Ended(error.to_string())),
            Err(_elapsed) => return Err(Broken::Silent(patience)),
        }
        if self.outstanding == 0 {
            // Nothing was owed until now.
            self.heard_at = Instant::now();
        }
        self.outstanding += BATCH;
        Ok(())
    }

    fn read(&mut self, message: async_nats::Message) -> Result<Heard, Broken> {
        self.heard_at = Instant::now();
        // The status of a message is its publisher's; only what has no place
        // to be acknowledged is the consumer's own word.
        let Some(reply) = message.reply else {
            return self.read_status(
                message.status.map(|status| status.as_u16()),
                message.headers.as_ref(),
                message.description,
            );
        };
        let Some(place) = Place::parse(&reply) else {
            return Err(Broken::Ended(format!("an unknown reply subject {reply}")));
        };
        // The first is 1 for a new consumer, more for a durable one.
        if self.delivery.is_some_and(|last| place.delivery != last + 1) {
            return Err(Broken::OutOfOrder);
        }
        self.delivery = Some(place.delivery);
        self.outstanding = self.outstanding.saturating_sub(1);
        Ok(Heard::Message(Delivered {
            stored: Stored {
                subject: message.subject,
                seq: place.seq,
                time_ms: place.time_ms,
                headers: message.headers,
                data: message.payload,
            },
            reply,
            times: place.times,
            pending: place.pending,
        }))
    }

    fn read_status(
        &mut self,
        status: Option<u16>,
        headers: Option<&async_nats::HeaderMap>,
        description: Option<String>,
    ) -> Result<Heard, Broken> {
        let description = description.unwrap_or_default();
        let request_ended = match status {
            Some(100) => false,
            // Expired; or the messages or bytes asked for are used up.
            Some(404 | 408) => true,
            Some(409) if USED_UP.iter().any(|text| description.contains(text)) => true,
            Some(other) => return Err(Broken::Ended(format!("{other} {description}"))),
            None => return Err(Broken::Ended("a message without a reply".into())),
        };
        if request_ended {
            let unused = headers
                .and_then(|headers| headers.get_last(PENDING_MESSAGES))
                .and_then(|value| value.as_str().parse::<u64>().ok());
            self.outstanding = unused.map_or(0, |n| self.outstanding.saturating_sub(n));
        }
        Ok(Heard::Quiet)
    }
}

/// What a delivery's reply subject tells of it:
/// `$JS.ACK[.<domain>.<account>].<stream>.<consumer>.<times>.<seq>.<delivery>.<nanoseconds>.<pending>`.
struct Place {
    times: u64,
    seq: u64,
    delivery: u64,
    time_ms: i64,
    pending: u64,
}

impl Place {
    fn parse(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let tokens = rest.split('.').count();
        // Later servers may append a token after the eleven of the long form.
        let skip = match tokens {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let mut numbers = rest.split('.').skip(skip);
        let mut number = || numbers.next()?.parse::<u64>().ok();
        Some(Self {
            times: number()?,
            seq: number()?,
            delivery: number()?,
            time_ms: i64::try_from(number()? / 1_000_000).ok()?,
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_reply_subject_are_read() {
        let forms = [
            "$JS.ACK.S.C.1.7.5.1700000000123456789.9",
            "$JS.ACK._.hash.S.C.1.7.5.1700000000123456789.9",
            "$JS.ACK.hub.hash.S.C.1.7.5.1700000000123456789.9.random",
        ];
        for reply in forms {
            let place = Place::parse(reply).unwrap();
            let Place {
                times,
                seq,
                delivery,
                time_ms,
                pending,
            } = place;
            assert_eq!((times, seq, delivery, pending), (1, 7, 5, 9), "{reply}");
            assert_eq!(time_ms, 1_700_000_000_123);
        }
        for reply in ["", "_INBOX.a.b", "$JS.ACK.S.C.1.7", "$JS.ACK.S.C.x.7.5.1.9"] {
            assert!(Place::parse(reply).is_none(), "{reply}");
        }
    }
}
