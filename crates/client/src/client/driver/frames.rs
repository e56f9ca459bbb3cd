//! What the frames of an edge do to the client.

use std::time::Duration;

use protocol::frame::{ErrorBody, UnsubscribeReason};
use protocol::{Cursor, ServerBody, ServerFrame};
use tokio::time::Instant;

use super::{Delivery, Driver, End, Request, Session};
use crate::client::event::Event;

impl Driver {
    /// Takes a frame of the edge; an end if the connection is of no more use.
    pub(super) fn frame(&mut self, session: &mut Session, frame: ServerFrame) -> Option<End> {
        let request = session.requests.remove(&frame.req);
        match frame.body {
            ServerBody::Subscribed(subscribed) => {
                if let Some(Request::Connect) = request {
                    // Its other subscriptions are still to be answered.
                    session.requests.insert(frame.req, Request::Connect);
                }
                self.inbox_known |=
                    subscribed.channel.namespace() == protocol::names::INBOX_NAMESPACE;
                self.subscriptions.subscribed(&subscribed);
                let (channel, cursor) = (subscribed.channel, subscribed.cursor);
                let moves = vec![(channel.clone(), cursor)];
                let unread = subscribed.unread;
                self.deliver(
                    Event::Subscribed {
                        channel,
                        cursor,
                        unread,
                    },
                    moves,
                );
            }
            ServerBody::Messages(mut batch) => {
                let channel = batch.channel.clone();
                let checked = self.subscriptions.messages(&mut batch);
                if let Some(last) = batch.messages.last() {
                    let moves = vec![(channel.clone(), Cursor::new(batch.epoch, last.seq))];
                    self.deliver(Event::Messages(batch), moves);
                }
                if let Err(gap) = checked {
                    tracing::error!(%channel, position = %gap.position, prev = gap.prev, "the edge left out a message");
                    let (position, prev) = (gap.position, gap.prev);
                    self.tell(Event::Gap {
                        channel,
                        position,
                        prev,
                    });
                    return Some(End::Again("a gap".to_owned()));
                }
            }
            ServerBody::Live { channel, cursor } => {
                if self.subscriptions.contains(&channel) {
                    self.subscriptions.live(&channel, cursor);
                    let moves = vec![(channel.clone(), cursor)];
                    self.deliver(Event::Live { channel, cursor }, moves);
                }
            }
            ServerBody::Reset(reset) => {
                if self.subscriptions.contains(&reset.channel) {
                    self.subscriptions.reset(&reset);
                    let moves = vec![(reset.channel.clone(), reset.head)];
                    self.deliver(Event::Reset(reset), moves);
                }
            }
            ServerBody::Unsubscribed(unsubscribed) => match unsubscribed.reason {
                // The application has been told when it asked.
                UnsubscribeReason::Asked => {}
                UnsubscribeReason::Removed => {
                    self.subscriptions.remove(&unsubscribed.channel);
                    self.tell(Event::Unsubscribed {
                        channel: unsubscribed.channel,
                        reason: unsubscribed.reason,
                    });
                }
            },
            ServerBody::Published(published) => {
                if let Some((answer, room)) = self.outbox.published(&published, Instant::now()) {
                    drop(room);
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(Ok(published));
                }
            }
            ServerBody::Error(error) => self.error(session, frame.req, request, error),
            ServerBody::Signal(signal) => self.tell(Event::Signal(signal)),
            ServerBody::Receipt(receipt) => self.tell(Event::Receipt(receipt)),
            ServerBody::Ping { positions } => {
                let moves = self.subscriptions.ping(&positions);
                if !moves.is_empty() {
                    self.pending.push_back(Delivery { event: None, moves });
                }
            }
            ServerBody::Goaway(goaway) => {
                self.backoff
                    .asked(Duration::from_millis(goaway.retry_after_ms));
            }
            ServerBody::TokenExpiring { .. } => {
                session.refreshing = Some(self.config.tokens.ask());
            }
            ServerBody::Refreshed { .. } | ServerBody::Presence(_) | ServerBody::Connected(_) => {}
        }
        None
    }

    fn error(
        &mut self,
        session: &mut Session,
        req: u32,
        request: Option<Request>,
        error: ErrorBody,
    ) {
        let now = Instant::now();
        let channel = match request {
            Some(Request::Publish(channel, id)) => {
                let refused = self.outbox.refused(&channel, &id, &error, now);
                if let Some((answer, room)) = refused {
                    drop(room);
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(Err(error));
                }
                return;
            }
            Some(Request::Subscribe(channel)) => Some(channel),
            Some(Request::Connect) => {
                session.requests.insert(req, Request::Connect);
                error.channel.clone()
            }
            Some(Request::Refresh) | None => None,
        };
        let Some(channel) = channel else {
            tracing::warn!(code = %error.code, message = %error.message, "the edge answered with an error");
            return;
        };
        if error.code.is_retryable() {
            let after = Duration::from_millis(match error.retry_after_ms {
                0 => 1_000,
                ms => ms,
            });
            let jitter = after.mul_f64(0.25 * rand::random::<f64>());
            self.subscriptions.postpone(&channel, now + after + jitter);
        } else {
            self.subscriptions.remove(&channel);
            self.tell(Event::SubscribeFailed { channel, error });
        }
    }
}
