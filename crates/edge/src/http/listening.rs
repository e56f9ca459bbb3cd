//! The readers of one event stream or poll: the same feed as a WebSocket
//! connection's, with the client's positions kept for it.
//!
//! Nothing outlives the request. Where it stood is in the positions, which
//! the client brings along to the next one, to whichever edge.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use delivery::members::StoreFailure;
use delivery::receipts::Unread;
use delivery::{Feed, Output, PageError, Start};
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{FuturesUnordered, Stream};
use protocol::frame::{ServerBody, ServerFrame, UnsubscribeReason, Unsubscribed};
use protocol::{Channel, CloseCode, Device, Encoding, ErrorCode, From, encode_server};

use super::error::ApiError;
use crate::auth::{Action, Caller, TokenError};
use crate::registry::{Command, Counted, Registered, Transport};
use crate::unread::Unreads;
use crate::ws::encode_output;
use crate::{Edge, http::positions};

/// What a client gets to hear.
pub(super) enum Heard {
    /// A frame, as JSON. `news` is more than where things stand: messages, a
    /// reset, an error, a signal.
    Frame { json: Bytes, news: bool },
    /// It is over.
    End(End),
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody outside asked for it, or the edge leaves.
    Closed(CloseCode),
    /// A subscription could not start; worth trying again after this time.
    Refused(Duration),
    /// No subscription is left.
    Nothing,
}

type StillMember = (Channel, Result<bool, StoreFailure>);

/// The subscriptions of one request.
pub(super) struct Listening {
    edge: Edge,
    caller: Caller,
    known: Known,
    /// Names the client's device among the user's, for `acked` and receipts.
    device: Option<Device>,
    unreads: Unreads,
    feed: Feed,
    places: Vec<Place>,
    /// At most one per channel and recheck.
    rechecks: FuturesUnordered<BoxFuture<'static, StillMember>>,
    queue: VecDeque<Heard>,
}

/// How the edge knows of it, for as long as it lasts.
enum Known {
    User(Registered),
    /// Nothing outside concerns a service.
    Service(#[expect(dead_code, reason = "held to be counted")] Counted),
}

/// Where one channel stands.
struct Place {
    channel: Channel,
    /// What was asked for until the subscription has started, then a cursor.
    position: From,
    open: bool,
    live: bool,
}

impl Listening {
    /// Starts reading. Nothing is read if one of the channels may not be.
    pub(super) async fn start(
        edge: &Edge,
        caller: Caller,
        wanted: Vec<(Channel, From)>,
        device: Option<Device>,
        transport: Transport,
    ) -> Result<Self, ApiError> {
        if !edge.drain().takes_connections() || !edge.hub().is_filled() {
            let message = "this edge takes no connections at the moment";
            return Err(ApiError::new(ErrorCode::Unavailable, message));
        }
        // Registered before the rights are checked: a right that ends in
        // between is told through the registry.
        let known = match &caller {
            Caller::User(grants) => {
                let user = grants.user.clone();
                let registered = edge.registry().add(user, device.clone(), transport);
                registered.handle().set_token(grants.token_id.as_deref());
                edge.auth().check_revoked(grants)?;
                // The new one is among them.
                let open = edge.registry().count_of(&grants.user);
                edge.admission().another_of_user(open - 1)?;
                Known::User(registered)
            }
            Caller::Service(_) => Known::Service(edge.registry().count(transport)),
        };
        try_join_all(
            wanted
                .iter()
                .map(|(channel, _)| edge.check_read(&caller, channel)),
        )
        .await?;
        let user = match &caller {
            Caller::User(grants) => Some(grants.user.clone()),
            Caller::Service(_) => None,
        };
        let mut listening = Self {
            edge: edge.clone(),
            caller,
            known,
            device,
            unreads: Unreads::default(),
            feed: edge.hub().feed(user),
            places: Vec::with_capacity(wanted.len()),
            rechecks: FuturesUnordered::new(),
            queue: VecDeque::new(),
        };
        for (channel, from) in wanted {
            // A poll that goes on was told before.
            let is_counted = transport != Transport::Poll || !matches!(from, From::Cursor(_));
            listening.subscribe(channel, from, is_counted)?;
        }
        Ok(listening)
    }

    fn subscribe(
        &mut self,
        channel: Channel,
        from: From,
        is_counted: bool,
    ) -> Result<(), ApiError> {
        let user = match &self.caller {
            Caller::User(grants) => Some(&grants.user),
            Caller::Service(_) => None,
        };
        let mut start = match (Start::from_wire(from), user) {
            (Some(start), _) => start,
            (None, Some(user)) => self
                .edge
                .acked_start(user, self.device.as_ref(), &channel)
                .map_err(|(code, message)| ApiError::new(code, message).about(&channel))?,
            (None, None) => {
                let message = "from=acked is for users: an API key has no devices";
                return Err(ApiError::new(ErrorCode::BadRequest, message).about(&channel));
            }
        };
        let reader = user.and_then(|user| self.edge.reader(user, self.device.as_ref()));
        if let Some(reader) = reader.filter(|_| is_counted) {
            start = self.unreads.ask(&reader, &channel, start);
        }
        // Checked before: no channel twice, and not too many.
        self.feed
            .subscribe(channel.clone(), start, None, 0)
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        self.places.push(Place {
            channel,
            position: from,
            open: true,
            live: false,
        });
        Ok(())
    }

    /// Who listens.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Names this request on its edge.
    pub(super) fn id(&self) -> u64 {
        match &self.known {
            Known::User(registered) => registered.handle().id(),
            Known::Service(_) => 0,
        }
    }

    /// Whether everything that was missed has been told.
    pub(super) fn is_caught_up(&self) -> bool {
        self.places.iter().all(|place| place.live || !place.open)
    }

    /// The positions after everything that was heard so far, in the order
    /// of the channels: each is what to read on from.
    pub(super) fn positions(&self) -> String {
        positions::join(self.places.iter().map(|place| place.position))
    }

    /// Moves the positions of quiet channels up to the head.
    pub(super) fn advance(&mut self) {
        for place in self.places.iter_mut().filter(|place| place.live) {
            if let Some(reached) = self.feed.reached(&place.channel) {
                place.position = From::Cursor(reached);
            }
        }
    }

    /// The positions of all shards, as a `ping` tells them.
    pub(super) fn ping(&mut self) -> Bytes {
        self.advance();
        let positions = self.feed.positions().into_iter().collect();
        json(ServerBody::Ping { positions })
    }

    /// The next thing to tell the client. Commands come first, so that a
    /// right that ended is not overtaken by messages.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        self.obey(cx);
        while let Poll::Ready(Some((channel, member))) = Pin::new(&mut self.rechecks).poll_next(cx)
        {
            // While the store is away, the last known answer holds.
            if member == Ok(false) {
                self.remove(&channel);
            }
        }
        while let Poll::Ready(unread) = self.unreads.poll_late(cx) {
            self.tell_unread(unread);
        }
        if let Some(heard) = self.queue.pop_front() {
            return Poll::Ready(heard);
        }
        if self.places.iter().all(|place| !place.open) {
            return Poll::Ready(Heard::End(End::Nothing));
        }
        self.feed.poll_next(cx).map(|output| self.hear(output))
    }

    /// A count that came too late for its `subscribed`.
    fn tell_unread(&mut self, unread: Unread) {
        let Caller::User(grants) = &self.caller else {
            return;
        };
        let reader = self.edge.reader(&grants.user, self.device.as_ref());
        if let Some(reader) = reader.filter(|_| self.feed.is_subscribed(&unread.channel)) {
            self.queue.push_back(Heard::Frame {
                json: json(reader.receipt(&self.edge, unread)),
                news: true,
            });
        }
    }

    /// For an output that starts a subscription, or says that it never will.
    fn unread_of(&mut self, channel: &Channel) -> u64 {
        let Some(unread) = self.unreads.take(channel) else {
            return 0;
        };
        match &self.caller {
            Caller::User(grants) => self.edge.hub().complete_unread(&unread, &grants.user),
            Caller::Service(_) => 0,
        }
    }

    fn obey(&mut self, cx: &mut Context<'_>) {
        let Known::User(registered) = &self.known else {
            return;
        };
        registered.handle().register(cx.waker());
        for command in registered.handle().take() {
            match command {
                Command::Close(code) => self.queue.push_back(Heard::End(End::Closed(code))),
                Command::Removed(room) if !self.caller.may_read(&room) => self.remove(&room),
                Command::Removed(_) => {}
                Command::Recheck => self.recheck(),
                Command::CheckToken if is_revoked(&self.edge, &self.caller) => {
                    // Nothing that waits goes out before.
                    self.queue.clear();
                    self.queue
                        .push_back(Heard::End(End::Closed(CloseCode::Revoked)));
                }
                Command::CheckToken => {}
                Command::Describe(describe) => {
                    describe.tell(self.id(), self.feed.places());
                }
                Command::Receipt(receipt) => self.queue.push_back(Heard::Frame {
                    json: json(ServerBody::Receipt(*receipt)),
                    news: true,
                }),
            }
        }
    }

    /// Asks again about every channel that a membership alone grants.
    fn recheck(&mut self) {
        let Caller::User(grants) = &self.caller else {
            return;
        };
        for place in self.places.iter().filter(|place| place.open) {
            if self.caller.may_read(&place.channel) {
                continue;
            }
            let Some(membership) = self
                .edge
                .ask_right(&grants.user, &place.channel, Action::Read)
            else {
                continue;
            };
            let channel = place.channel.clone();
            self.rechecks
                .push(Box::pin(async move { (channel, membership.await) }));
        }
    }

    /// Ends a subscription whose right was lost; its position stays.
    fn remove(&mut self, channel: &Channel) {
        self.unreads.take(channel);
        if !self.feed.unsubscribe(channel) {
            return;
        }
        self.close(channel);
        let body = Unsubscribed {
            channel: channel.clone(),
            reason: UnsubscribeReason::Removed,
            message: "the right to this channel ended".into(),
        };
        self.queue.push_back(Heard::Frame {
            json: json(ServerBody::Unsubscribed(body)),
            news: true,
        });
    }

    fn close(&mut self, channel: &Channel) {
        for place in &mut self.places {
            if place.channel == *channel {
                place.open = false;
                place.live = false;
            }
        }
    }

    /// Keeps the client's position, and makes the frame.
    fn hear(&mut self, output: Output) -> Heard {
        let mut news = true;
        let mut unread = 0;
        if let Output::Subscribed { channel, .. } | Output::Refused { channel, .. } = &output {
            unread = self.unread_of(channel);
        }
        let channel = output.channel();
        let place = self
            .places
            .iter_mut()
            .find(|place| place.channel == *channel);
        match (&output, place) {
            (Output::Subscribed { cursor, .. }, Some(place)) => {
                place.position = From::Cursor(*cursor);
                news = false;
            }
            (Output::Messages { entries, .. }, Some(place)) => {
                if let Some(last) = entries.last() {
                    place.position = From::Cursor(last.message().position);
                }
            }
            (Output::Live { cursor, .. }, Some(place)) => {
                place.position = From::Cursor(*cursor);
                place.live = true;
                news = false;
            }
            (Output::Reset { reset, .. }, Some(place)) => {
                place.position = From::Cursor(reset.head);
                place.live = false;
            }
            (Output::Refused { channel, error, .. }, _) => {
                let retry_after = match error {
                    PageError::Unavailable { retry_after, .. } => *retry_after,
                    PageError::Expired { .. } | PageError::UnknownEpoch => Duration::from_secs(1),
                };
                let channel = channel.clone();
                self.close(&channel);
                self.queue.push_back(Heard::End(End::Refused(retry_after)));
            }
            (Output::Delayed { .. } | Output::Signal(_), _)
            | (
                Output::Subscribed { .. }
                | Output::Messages { .. }
                | Output::Live { .. }
                | Output::Reset { .. },
                None,
            ) => {}
        }
        self.edge.counters().frames_out.add(1);
        Heard::Frame {
            json: encode_output(Encoding::Json, output, unread),
            news,
        }
    }
}

/// Only what is known ends a stream that was let in.
fn is_revoked(edge: &Edge, caller: &Caller) -> bool {
    match caller {
        Caller::User(grants) => edge.auth().check_revoked(grants) == Err(TokenError::Revoked),
        Caller::Service(_) => false,
    }
}

/// A frame that answers no request, as JSON.
pub(super) fn json(body: ServerBody) -> Bytes {
    encode_server(Encoding::Json, &ServerFrame::new(body))
}
