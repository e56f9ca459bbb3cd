//! The publishes of one connection that have no acknowledgement yet.
//!
//! Messages of one channel are stored in the order in which they were sent,
//! whatever the backplane retries, so each waits for the one before it.
//! Different channels go on side by side.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use delivery::publish::{PublishError, Published};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};
use protocol::{Channel, MessageId};

/// Publishes of one connection without an acknowledgement. With this many,
/// the connection reads no further frame until one is answered.
const UNACKNOWLEDGED_MAX: usize = 64;

/// What became of a publish.
pub(super) struct Outcome {
    pub(super) req: u32,
    pub(super) channel: Channel,
    pub(super) id: MessageId,
    pub(super) result: Result<Published, Refusal>,
}

/// Why there is no acknowledgement.
pub(super) enum Refusal {
    /// The user may not publish there.
    Forbidden,
    /// Whether the user may could not be found out.
    Unknown(delivery::members::StoreFailure),
    /// The backplane's answer.
    Publish(PublishError),
}

/// A publish that has not been started.
pub(super) struct Waiting {
    pub(super) channel: Channel,
    pub(super) work: BoxFuture<'static, Outcome>,
}

/// None while nothing is under way: an idle connection pays one word.
#[derive(Default)]
pub(super) struct Publishes {
    under_way: Option<Box<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    running: FuturesUnordered<BoxFuture<'static, Outcome>>,
    busy: Vec<Channel>,
    waiting: VecDeque<Waiting>,
}

impl Publishes {
    /// Whether reading further frames has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= UNACKNOWLEDGED_MAX
    }

    /// How many are not answered yet.
    pub(super) fn len(&self) -> usize {
        self.under_way
            .as_ref()
            .map_or(0, |it| it.running.len() + it.waiting.len())
    }

    /// Adds a publish behind those of its channel.
    pub(super) fn push(&mut self, publish: Waiting) {
        let under_way = self.under_way.get_or_insert_default();
        if under_way.busy.contains(&publish.channel) {
            under_way.waiting.push_back(publish);
        } else {
            under_way.start(publish);
        }
    }

    /// The next answer.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(under_way) = self.under_way.as_mut() else {
            return Poll::Pending;
        };
        match Pin::new(&mut under_way.running).poll_next(cx) {
            Poll::Ready(Some(outcome)) => {
                under_way.finish(&outcome.channel);
                if under_way.running.is_empty() {
                    self.under_way = None;
                }
                Poll::Ready(outcome)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl UnderWay {
    fn start(&mut self, publish: Waiting) {
        self.busy.push(publish.channel);
        self.running.push(publish.work);
    }

    fn finish(&mut self, channel: &Channel) {
        self.busy.retain(|busy| busy != channel);
        let next = self
            .waiting
            .iter()
            .position(|waiting| waiting.channel == *channel);
        if let Some(publish) = next.and_then(|index| self.waiting.remove(index)) {
            self.start(publish);
        }
    }
}
