//! What the frames of a client do, once it is known who the client is.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use delivery::members::StoreFailure;
use delivery::{Feed, Output, Start, SubscribeError};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};
use protocol::frame::{ServerBody, Subscribe, UnsubscribeReason, Unsubscribed};
use protocol::{Channel, ClientBody, ClientFrame, CloseCode, Device, ErrorCode, ServerFrame};

use super::publishes::Publishes;
use super::replies::{error, forbidden, published, store_error};
use crate::Edge;
use crate::auth::{Action, Grants, TokenError};
use crate::registry::{Command, Registered, Transport};
use crate::unread::Unreads;

/// Questions to the store of one connection that are under way. With this
/// many, the connection reads no further frame until one is answered.
const LOOKUPS_MAX: usize = 64;

/// Something to be sent or done, in the order in which it came about.
pub(super) enum Work {
    /// Frames were added.
    Frames,
    /// The feed has something; with how much is unread, for `subscribed`.
    Output(Output, u64),
    /// The connection is to be closed.
    Close(CloseCode),
}

/// An answer of the store, and what it was asked for.
pub(super) enum Answer {
    /// Whether the user is a member of the room to subscribe to.
    MayJoin {
        req: u32,
        subscribe: Subscribe,
        member: Result<bool, StoreFailure>,
        /// [`Session::rights_lost`] when it was asked.
        asked: u32,
    },
    /// The rooms of the user, to be subscribed to.
    Rooms {
        req: u32,
        rooms: Result<Vec<Channel>, StoreFailure>,
        /// [`Session::rights_lost`] when it was asked.
        asked: u32,
    },
    /// Whether the user is still a member of a subscribed room.
    StillMember {
        room: Channel,
        member: Result<bool, StoreFailure>,
    },
    /// Nothing but a reply, or not even that.
    Reply(Option<ServerFrame>),
}

/// A client that is known.
pub(super) struct Session {
    pub(super) edge: Edge,
    pub(super) grants: Grants,
    pub(super) device: Option<Device>,
    registered: Registered,
    pub(super) feed: Feed,
    pub(super) publishes: Publishes,
    /// How often a membership ended, or may have. An answer from before is
    /// asked for again: the subscription would start after its end was told.
    rights_lost: u32,
    /// None while nothing is asked.
    lookups: Option<Box<FuturesUnordered<BoxFuture<'static, Answer>>>>,
    unreads: Unreads,
}

impl Session {
    pub(super) fn new(edge: Edge, grants: Grants, device: Option<Device>) -> Self {
        let registered =
            edge.registry()
                .add(grants.user.clone(), device.clone(), Transport::WebSocket);
        registered.handle().set_token(grants.token_id.as_deref());
        let feed = edge.hub().feed(Some(grants.user.clone()));
        Self {
            edge,
            grants,
            device,
            registered,
            feed,
            publishes: Publishes::default(),
            rights_lost: 0,
            lookups: None,
            unreads: Unreads::default(),
        }
    }

    /// Names this connection on its edge.
    pub(super) fn id(&self) -> u64 {
        self.registered.handle().id()
    }

    /// Notes since when the client takes nothing of what is written.
    pub(super) fn note_stalled(&self, stalled: bool) {
        self.registered.handle().note_stalled(stalled);
    }

    /// Has the task woken for what others want of this connection. Before
    /// each [`Self::poll_work`].
    pub(super) fn register(&self, waker: &Waker) {
        self.registered.handle().register(waker);
    }

    /// Whether reading further frames has to wait.
    pub(super) fn is_busy(&self) -> bool {
        let lookups = self.lookups.as_ref().map_or(0, |lookups| lookups.len());
        self.publishes.is_full() || lookups >= LOOKUPS_MAX
    }

    /// Acts on a frame. Replies go to `out`.
    pub(super) fn handle(&mut self, frame: ClientFrame, out: &mut Vec<ServerFrame>) {
        let req = frame.req;
        match frame.body {
            ClientBody::Connect(_) => {
                out.push(error(
                    req,
                    ErrorCode::BadRequest,
                    "this connection is open already",
                    None,
                ));
            }
            ClientBody::Subscribe(subscribe) => self.subscribe(req, subscribe, out),
            ClientBody::Unsubscribe { channel } => self.unsubscribe(req, channel, out),
            ClientBody::Publish(publish) => self.publish(req, publish, out),
            ClientBody::Signal(signal) => self.signal(req, signal, out),
            ClientBody::Ack(ack) => self.ack(req, ack, out),
            ClientBody::Presence { channel } => self.presence(req, channel),
            ClientBody::Refresh { token } => self.refresh(req, &token, out),
            // Every frame counts as a sign of life.
            ClientBody::Pong => {}
        }
    }

    /// Subscribes to a channel that the token or a membership grants.
    pub(super) fn subscribe(&mut self, req: u32, subscribe: Subscribe, out: &mut Vec<ServerFrame>) {
        if self.grants.may_subscribe(&subscribe.channel) {
            return self.start(req, subscribe, out);
        }
        let asked = self.rights_lost;
        match self.ask_right(&subscribe.channel, Action::Read) {
            Some(member) => self.ask(Box::pin(async move {
                Answer::MayJoin {
                    req,
                    subscribe,
                    member: member.await,
                    asked,
                }
            })),
            None => out.push(forbidden(req, "subscribing to", subscribe.channel)),
        }
    }

    /// Subscribes to all rooms of the user.
    pub(super) fn subscribe_rooms(&mut self, req: u32, out: &mut Vec<ServerFrame>) {
        let Some(members) = self.edge.members().cloned() else {
            let message = "this edge has no store, so it knows no rooms";
            out.push(error(req, ErrorCode::Unsupported, message, None));
            return;
        };
        let user = self.grants.user.clone();
        let most = self.edge.config().limits.subscriptions;
        let asked = self.rights_lost;
        self.ask(Box::pin(async move {
            let listing = members.rooms(user, None, most).await;
            Answer::Rooms {
                req,
                rooms: listing.map(|listing| listing.items),
                asked,
            }
        }));
    }

    /// Where a device that names no cursor goes on.
    pub(super) fn default_from(&self) -> protocol::From {
        match self.device {
            Some(_) if self.edge.receipts().is_some() => protocol::From::Acked,
            Some(_) | None => protocol::From::Tail,
        }
    }

    fn start(&mut self, req: u32, subscribe: Subscribe, out: &mut Vec<ServerFrame>) {
        let Subscribe {
            channel,
            from,
            max_catchup,
        } = subscribe;
        let max_catchup = (max_catchup > 0).then_some(max_catchup as usize);
        let start = match Start::from_wire(from) {
            Some(start) => Ok(start),
            None => self
                .edge
                .acked_start(&self.grants.user, self.device.as_ref(), &channel),
        };
        let (code, message) = match start {
            Ok(start) => {
                let start = self.counted(&channel, start);
                match self
                    .feed
                    .subscribe(channel.clone(), start, max_catchup, req)
                {
                    Ok(()) => return,
                    Err(problem @ SubscribeError::TooMany { .. }) => {
                        self.unreads.take(&channel);
                        (ErrorCode::TooManySubscriptions, problem.to_string())
                    }
                    Err(problem @ SubscribeError::Already) => {
                        (ErrorCode::AlreadySubscribed, problem.to_string())
                    }
                }
            }
            Err((code, message)) => (code, message.to_owned()),
        };
        out.push(error(req, code, message, Some(channel)));
    }

    /// Lets a subscription start when it is known how much is unread, if the
    /// client keeps receipts.
    fn counted(&mut self, channel: &Channel, start: Start) -> Start {
        match self.edge.reader(&self.grants.user, self.device.as_ref()) {
            Some(reader) if !self.feed.is_subscribed(channel) => {
                self.unreads.ask(&reader, channel, start)
            }
            Some(_) | None => start,
        }
    }

    fn unsubscribe(&mut self, req: u32, channel: Channel, out: &mut Vec<ServerFrame>) {
        self.unreads.take(&channel);
        if self.feed.unsubscribe(&channel) {
            let body = Unsubscribed {
                channel,
                reason: UnsubscribeReason::Asked,
                message: "".into(),
            };
            out.push(ServerFrame::reply(req, ServerBody::Unsubscribed(body)));
        } else {
            out.push(error(
                req,
                ErrorCode::NotSubscribed,
                "not subscribed",
                Some(channel),
            ));
        }
    }

    /// Ends a subscription whose right was lost.
    fn remove(&mut self, channel: Channel, out: &mut Vec<ServerFrame>) {
        self.unreads.take(&channel);
        if self.feed.unsubscribe(&channel) {
            let message = "the right to this channel ended".into();
            let body = Unsubscribed {
                channel,
                reason: UnsubscribeReason::Removed,
                message,
            };
            out.push(ServerFrame::new(ServerBody::Unsubscribed(body)));
        }
    }

    fn refresh(&mut self, req: u32, token: &protocol::frame::Token, out: &mut Vec<ServerFrame>) {
        let grants = match self
            .edge
            .auth()
            .verify_token(token.as_str(), crate::auth::unix_now_s())
        {
            Ok(grants) if grants.user == self.grants.user => grants,
            Ok(_) => {
                let message = "the new token is of another user";
                out.push(error(req, ErrorCode::Unauthorized, message, None));
                return;
            }
            Err(problem) => {
                out.push(error(req, problem.code(), problem.to_string(), None));
                return;
            }
        };
        self.grants = grants;
        let handle = self.registered.handle();
        handle.set_token(self.grants.token_id.as_deref());
        // Revoked since it was verified, and before it could be found: asked
        // again with the other commands.
        handle.send(Command::CheckToken);
        let expires_ms = self.grants.expires_s.saturating_mul(1_000);
        out.push(ServerFrame::reply(
            req,
            ServerBody::Refreshed { expires_ms },
        ));
        self.recheck(out);
    }

    /// Ends the subscriptions that the token no longer grants, and asks
    /// again for those that a membership may grant.
    fn recheck(&mut self, out: &mut Vec<ServerFrame>) {
        let channels: Vec<Channel> = self.feed.channels().cloned().collect();
        for channel in channels {
            if self.grants.may_subscribe(&channel) {
                continue;
            }
            match self.ask_right(&channel, Action::Read) {
                Some(member) => {
                    self.ask(Box::pin(async move {
                        Answer::StillMember {
                            room: channel,
                            member: member.await,
                        }
                    }));
                }
                None => self.remove(channel, out),
            }
        }
    }

    /// Asks whether a membership or the application grants what the token
    /// does not, where one of them can.
    pub(super) fn ask_right(
        &self,
        channel: &Channel,
        action: Action,
    ) -> Option<BoxFuture<'static, Result<bool, StoreFailure>>> {
        self.edge.ask_right(&self.grants.user, channel, action)
    }

    pub(super) fn ask(&mut self, question: BoxFuture<'static, Answer>) {
        self.lookups.get_or_insert_default().push(question);
    }

    fn on_answer(&mut self, answer: Answer, out: &mut Vec<ServerFrame>) {
        match answer {
            Answer::MayJoin {
                req,
                subscribe,
                member: Ok(true),
                asked,
            } => match asked == self.rights_lost {
                true => self.start(req, subscribe, out),
                false => self.subscribe(req, subscribe, out),
            },
            Answer::MayJoin {
                req,
                subscribe,
                member: Ok(false),
                ..
            } => {
                out.push(forbidden(req, "subscribing to", subscribe.channel));
            }
            Answer::MayJoin {
                req,
                subscribe,
                member: Err(failure),
                ..
            } => {
                out.push(store_error(req, &failure, Some(subscribe.channel)));
            }
            Answer::Rooms {
                req,
                rooms: Ok(_),
                asked,
            } if asked != self.rights_lost => self.subscribe_rooms(req, out),
            Answer::Rooms {
                req,
                rooms: Ok(rooms),
                ..
            } => {
                let from = self.default_from();
                for channel in rooms {
                    if !self.feed.is_subscribed(&channel) {
                        self.start(
                            req,
                            Subscribe {
                                channel,
                                from,
                                max_catchup: 0,
                            },
                            out,
                        );
                    }
                }
            }
            Answer::Rooms {
                req,
                rooms: Err(failure),
                ..
            } => out.push(store_error(req, &failure, None)),
            Answer::StillMember {
                room,
                member: Ok(false),
            } => self.remove(room, out),
            // While the store is away, the last known answer holds: the
            // membership watch asks again when it is back.
            Answer::StillMember {
                member: Ok(true) | Err(_),
                ..
            } => {}
            Answer::Reply(frame) => out.extend(frame),
        }
    }

    fn on_command(&mut self, command: Command, out: &mut Vec<ServerFrame>) -> Option<CloseCode> {
        match command {
            Command::Close(code) => return Some(code),
            Command::Removed(room) => {
                self.rights_lost = self.rights_lost.wrapping_add(1);
                if !self.grants.may_subscribe(&room) {
                    self.remove(room, out);
                }
            }
            Command::Recheck => {
                self.rights_lost = self.rights_lost.wrapping_add(1);
                self.recheck(out);
            }
            Command::CheckToken => {
                // Only what is known ends a connection that was let in.
                if self.edge.auth().check_revoked(&self.grants) == Err(TokenError::Revoked) {
                    return Some(CloseCode::Revoked);
                }
            }
            Command::Describe(describe) => {
                describe.tell(self.id(), self.feed.places());
            }
            Command::Receipt(receipt) => out.push(ServerFrame::new(ServerBody::Receipt(*receipt))),
        }
        None
    }

    /// The next thing to be done; commands first, so that a revocation is
    /// not overtaken by messages. The feed is asked last, and only while
    /// `produce`.
    pub(super) fn poll_work(
        &mut self,
        cx: &mut Context<'_>,
        produce: bool,
        out: &mut Vec<ServerFrame>,
    ) -> Poll<Work> {
        let commands = self.registered.handle().take();
        if !commands.is_empty() {
            for command in commands {
                if let Some(code) = self.on_command(command, out) {
                    return Poll::Ready(Work::Close(code));
                }
            }
            return Poll::Ready(Work::Frames);
        }
        if let Poll::Ready(outcome) = self.publishes.poll_next(cx) {
            out.push(published(outcome));
            return Poll::Ready(Work::Frames);
        }
        if let Some(lookups) = self.lookups.as_mut() {
            match Pin::new(&mut **lookups).poll_next(cx) {
                Poll::Ready(Some(answer)) => {
                    self.on_answer(answer, out);
                    return Poll::Ready(Work::Frames);
                }
                Poll::Ready(None) => self.lookups = None,
                Poll::Pending => {}
            }
        }
        if let Poll::Ready(unread) = self.unreads.poll_late(cx) {
            let reader = self.edge.reader(&self.grants.user, self.device.as_ref());
            if self.feed.is_subscribed(&unread.channel)
                && let Some(reader) = reader
            {
                out.push(ServerFrame::new(reader.receipt(&self.edge, unread)));
            }
            return Poll::Ready(Work::Frames);
        }
        if !produce {
            return Poll::Pending;
        }
        let Poll::Ready(output) = self.feed.poll_next(cx) else {
            return Poll::Pending;
        };
        let unread = match &output {
            Output::Subscribed { channel, .. } | Output::Refused { channel, .. } => {
                let unread = self.unreads.take(channel);
                unread.map_or(0, |unread| {
                    self.edge.hub().complete_unread(&unread, &self.grants.user)
                })
            }
            Output::Messages { .. }
            | Output::Live { .. }
            | Output::Reset { .. }
            | Output::Delayed { .. }
            | Output::Signal(_) => 0,
        };
        Poll::Ready(Work::Output(output, unread))
    }
}
