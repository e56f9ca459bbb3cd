//! How much a user has not read, for `subscribed` frames.
//!
//! The store counts, and a subscription waits for that only for a moment:
//! what it is for are messages. All counts of a connection are asked for at
//! once, and share queries with those of other connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use delivery::Start;
use delivery::receipts::{Receipts, Unread};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use protocol::frame::{Receipt, ServerBody};
use protocol::{Channel, Device, UserId};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::Edge;

/// How long a subscription waits for its count. A store in good order needs a
/// few milliseconds; one that is away must not show in how soon messages come.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whose messages are counted: a client that keeps receipts names its device.
pub(crate) struct Reader {
    pub(crate) receipts: Arc<dyn Receipts>,
    pub(crate) user: UserId,
    pub(crate) device: Device,
}

/// The counts of one connection that are under way, each of at most one
/// subscription.
#[derive(Default)]
pub(crate) struct Unreads {
    /// None while nothing is asked: an idle connection pays one word.
    asked: Option<Box<Asked>>,
}

#[derive(Default)]
struct Asked {
    counting: FuturesUnordered<BoxFuture<'static, (Channel, Option<Unread>)>>,
    /// Of the subscriptions that have not started yet.
    starting: HashMap<Channel, Count>,
}

enum Count {
    /// The subscription starts when this is dropped.
    Asked { _waits: oneshot::Sender<()> },
    /// `None` if it cannot be had.
    Known(Option<Unread>),
}

impl Unreads {
    /// Asks for the count of a channel that is about to be subscribed to, and
    /// lets the subscription start when it is known, or soon anyway.
    pub(crate) fn ask(&mut self, reader: &Reader, channel: &Channel, start: Start) -> Start {
        let (waits, known) = oneshot::channel();
        let by = Instant::now() + PATIENCE;
        let asked = self.asked.get_or_insert_default();
        let count = Count::Asked { _waits: waits };
        asked.starting.insert(channel.clone(), count);
        let (receipts, user) = (Arc::clone(&reader.receipts), reader.user.clone());
        let channel = channel.clone();
        asked.counting.push(Box::pin(async move {
            // A count that cannot be had is not worth an error.
            let unread = receipts.unread(user, channel.clone()).await.ok();
            (channel, unread)
        }));
        let first = async move {
            let _ = timeout_at(by, known).await;
        };
        Start::After(Box::pin(first), Box::new(start))
    }

    /// The count for a subscription that starts now, or will never start.
    pub(crate) fn take(&mut self, channel: &Channel) -> Option<Unread> {
        match self.asked.as_mut()?.starting.remove(channel)? {
            Count::Known(unread) => unread,
            // It comes out of `poll_late`.
            Count::Asked { .. } => None,
        }
    }

    /// The next count that came too late for its `subscribed`.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Unread> {
        let Some(asked) = self.asked.as_mut() else {
            return Poll::Pending;
        };
        while let Poll::Ready(next) = asked.counting.poll_next_unpin(cx) {
            match next {
                Some((channel, unread)) => match asked.starting.get_mut(&channel) {
                    Some(count) => *count = Count::Known(unread),
                    None => {
                        if let Some(unread) = unread {
                            return Poll::Ready(unread);
                        }
                    }
                },
                None if asked.starting.is_empty() => {
                    self.asked = None;
                    break;
                }
                None => break,
            }
        }
        Poll::Pending
    }
}

impl Edge {
    /// Who keeps receipts on a connection, if anybody.
    pub(crate) fn reader(&self, user: &UserId, device: Option<&Device>) -> Option<Reader> {
        Some(Reader {
            receipts: self.receipts()?.clone(),
            user: user.clone(),
            device: device?.clone(),
        })
    }
}

impl Reader {
    /// What a device hears where its count came too late for `subscribed`.
    pub(crate) fn receipt(self, edge: &Edge, unread: Unread) -> ServerBody {
        ServerBody::Receipt(Receipt {
            unread: edge.hub().complete_unread(&unread, &self.user),
            channel: unread.channel,
            device: Some(self.device),
            delivered: None,
            read: unread.read,
        })
    }
}
