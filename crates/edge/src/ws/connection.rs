//! The one task of a connection, and its one loop.

mod due;
mod leave;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use protocol::frame::{Connect, Connected, GoawayReason, Limits, Retry, ServerBody, Subscribe};
use protocol::{
    ClientBody, ClientFrame, CloseCode, Encoding, ErrorCode, ServerFrame, decode_client,
    encode_server, limits,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::frames::encode_output;
use super::pace::Pace;
use super::replies::{error, limited};
use super::session::{Session, Work};
use super::socket::{Received, Socket};
use super::unwritten::{Stalled, Unwritten};
use crate::Edge;
use crate::admission::address::AddressPlace;
use crate::auth::{Grants, TokenError, unix_now_s};
use crate::drain::Phase;

/// How long a closed connection waits for the peer's close frame.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Frames that could not be read before the connection is closed: one may be
/// a newer client's, many are a defect that would go on for ever.
const BAD_FRAMES_MAX: u32 = 10;

/// Pieces of work in one go before the client and other tasks get their turn.
const OUTPUTS_PER_TURN: u32 = 32;

/// Runs a connection in a task of its own until it ends. `read` are the bytes
/// that were read behind the handshake; `place` is given back at the end.
pub(super) fn spawn<S>(
    edge: Edge,
    io: S,
    read: &[u8],
    encoding: Encoding,
    grants: Option<Grants>,
    place: Option<AddressPlace>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let bounds = &edge.config().limits;
    let frame_bytes = limits::frame_bytes(bounds.message_bytes, bounds.subscriptions);
    let mut socket = Socket::new(io, encoding, frame_bytes);
    socket.feed(read);
    // Tracked through the place that the socket holds. Crash policy: a panic
    // ends this connection, which comes back, and is counted.
    tokio::spawn(Connection::new(edge, socket, grants, place));
}

/// The connection is its own future, and so its task has no second copy of
/// what it begins with.
struct Connection<S> {
    edge: Edge,
    _place: Option<AddressPlace>,
    /// Still set when a panic has ended it.
    running: bool,
    socket: Socket<S>,
    /// From the handshake's header; the `connect` frame may do without then.
    header_grants: Option<Grants>,
    session: Option<Session>,
    /// Resolves when this connection is to leave; then when it must be gone.
    /// None once it has a session, which is woken when connections leave.
    departure: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    timer: Pin<Box<Sleep>>,
    times: Times,
    /// Why it was sent away, once it was.
    sent_away: Option<GoawayReason>,
    closing: Option<CloseCode>,
    /// Of the token that `times` knows, in seconds since the Unix epoch.
    expires_s: u64,
    bad_frames: u32,
    pace: Pace,
    unwritten: Unwritten,
}

/// When what is due. `None` is never.
struct Times {
    connect_by: Option<Instant>,
    next_ping: Option<Instant>,
    heard: Instant,
    /// Since when the socket has not taken what was written.
    stalled: Option<Stalled>,
    /// When it has lived long enough.
    lifetime: Option<Instant>,
    /// When it is sent away, while connections leave.
    turn: Option<Instant>,
    /// When a connection that was sent away closes, at the latest.
    leave_by: Option<Instant>,
    /// When a closed connection ends without the peer's answer.
    gone_by: Option<Instant>,
    expires: Option<Instant>,
    /// When the client is told that its token expires; once per token.
    expiry_notice: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.running = true;
        let code = self.run(cx);
        self.running = false;
        let code = ready!(code);
        self.edge.counters().count_close(code);
        Poll::Ready(())
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if self.running {
            self.edge.counters().panics.add(1);
            tracing::error!("a connection's task panicked");
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(
        edge: Edge,
        socket: Socket<S>,
        header_grants: Option<Grants>,
        place: Option<AddressPlace>,
    ) -> Self {
        let now = Instant::now();
        let connect_by = now + edge.config().limits.connect_timeout();
        let drain = edge.drain().clone();
        let pace = Pace::new(edge.config().limits.send_bytes_per_s);
        Self {
            edge,
            _place: place,
            running: false,
            socket,
            header_grants,
            session: None,
            departure: Some(Box::pin(async move { drain.turn().await })),
            timer: Box::pin(tokio::time::sleep_until(connect_by)),
            times: Times {
                connect_by: Some(connect_by),
                next_ping: None,
                heard: now,
                stalled: None,
                lifetime: None,
                turn: None,
                leave_by: None,
                gone_by: None,
                expires: None,
                expiry_notice: None,
            },
            sent_away: None,
            closing: None,
            expires_s: 0,
            bad_frames: 0,
            pace,
            unwritten: Unwritten::default(),
        }
    }

    /// The loop. What ends a connection comes first, then what produces,
    /// then what consumes; when nothing more is ready, everything gathered
    /// is written with one call. Ready with the code it was closed with.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseCode>> {
        let mut outputs = 0;
        loop {
            if self.is_to_leave(cx) {
                if let Poll::Ready(code) = self.depart(GoawayReason::Drain) {
                    return Poll::Ready(code);
                }
                continue;
            }
            if self.has_left() {
                self.close(match self.sent_away {
                    Some(GoawayReason::Lifetime) => CloseCode::Lifetime,
                    Some(GoawayReason::Drain) | None => CloseCode::Draining,
                });
            }
            if self.closing.is_none() && outputs < OUTPUTS_PER_TURN && self.work(cx) {
                outputs += 1;
                if outputs == OUTPUTS_PER_TURN {
                    // Other tasks get their turn, and so does what the client
                    // has to say: it may be the sign of life.
                    cx.waker().wake_by_ref();
                }
                continue;
            }
            if self.may_receive() {
                match self.socket.poll_receive(cx) {
                    Poll::Ready(Received::Gone) => {
                        // Best effort: the answer to the peer's close frame.
                        let _ = self.socket.poll_flush(cx);
                        return Poll::Ready(self.closing);
                    }
                    Poll::Ready(received) => {
                        self.on_received(received);
                        continue;
                    }
                    Poll::Pending => {}
                }
            }
            let was_full = self.socket.is_full();
            if self.socket.has_unwritten() && self.flush(cx).is_ready() {
                return Poll::Ready(self.closing);
            }
            if was_full && !self.socket.is_full() {
                continue;
            }
            match self.poll_timer(cx) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when the connection is broken.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.socket.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                if self.times.stalled.take().is_some() {
                    self.note_stalled(false);
                }
                self.unwritten.written(self.edge.counters());
                Poll::Pending
            }
            Poll::Ready(Err(())) => Poll::Ready(()),
            Poll::Pending => {
                if self.times.stalled.is_none() {
                    self.times.stalled = Some(Stalled::now(&self.edge));
                    self.note_stalled(true);
                }
                Poll::Pending
            }
        }
    }

    fn note_stalled(&self, stalled: bool) {
        if let Some(session) = &self.session {
            session.note_stalled(stalled);
        }
    }

    /// Does one piece of the session's work. Returns whether there was one.
    fn work(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(session) = self.session.as_mut() else {
            return false;
        };
        let produce = !self.socket.is_full() && self.pace.poll_ready(cx);
        let mut out = Vec::new();
        match session.poll_work(cx, produce, &mut out) {
            Poll::Pending => return false,
            Poll::Ready(Work::Frames) => {}
            Poll::Ready(Work::Output(output, unread)) => {
                self.unwritten.note(&output);
                let frame = encode_output(self.socket.encoding(), output, unread);
                self.pace.spend(frame.len());
                self.send(frame);
            }
            Poll::Ready(Work::Close(code)) => {
                self.send_frames(out);
                self.close(code);
                return true;
            }
        }
        self.send_frames(out);
        true
    }

    /// Nothing is read while what was read is not answered, or while the
    /// peer does not take the answers.
    fn may_receive(&self) -> bool {
        match &self.session {
            Some(session) if self.closing.is_none() => !session.is_busy() && !self.socket.is_full(),
            Some(_) | None => true,
        }
    }

    fn on_received(&mut self, received: Received) {
        self.times.heard = Instant::now();
        if self.closing.is_some() {
            return;
        }
        match received {
            Received::Frame(bytes) => self.on_frame(&bytes),
            Received::Alive | Received::Gone => {}
            Received::WrongEncoding => self.close(CloseCode::WrongEncoding),
            Received::TooLarge => self.close(CloseCode::FrameTooLarge),
            Received::Broken => self.end(),
        }
    }

    fn on_frame(&mut self, bytes: &Bytes) {
        self.edge.counters().frames_in.add(1);
        let frame = match decode_client(self.socket.encoding(), bytes) {
            Ok(frame) => frame,
            Err(problem) => {
                self.edge.counters().bad_frames.add(1);
                self.send_frames(vec![problem.to_frame()]);
                self.bad_frames += 1;
                let hopeless = self.session.is_none() || self.bad_frames >= BAD_FRAMES_MAX;
                if hopeless {
                    self.close(CloseCode::BadFrame);
                }
                return;
            }
        };
        let mut out = Vec::new();
        match (&mut self.session, frame) {
            (Some(session), frame) => {
                session.handle(frame, &mut out);
                let expires_s = session.grants.expires_s;
                self.note_expiry(expires_s);
            }
            (
                None,
                ClientFrame {
                    req,
                    body: ClientBody::Connect(connect),
                },
            ) => self.connect(req, connect, &mut out),
            (None, frame) => {
                let message = "the first frame of a connection is connect";
                out.push(error(frame.req, ErrorCode::BadRequest, message, None));
                self.send_frames(out);
                return self.close(CloseCode::BadFrame);
            }
        }
        self.send_frames(out);
    }

    fn connect(&mut self, req: u32, connect: Connect, out: &mut Vec<ServerFrame>) {
        let verified = match (&connect.token, self.header_grants.take()) {
            (Some(token), _) => self
                .edge
                .auth()
                .verify_token(token.as_str(), unix_now_s())
                .map_err(Some),
            (None, Some(grants)) => Ok(grants),
            (None, None) => Err(None),
        };
        // Registered first: a revocation from now on finds this connection,
        // and one from before is seen by the check.
        let session = verified.and_then(|grants| {
            let session = Session::new(self.edge.clone(), grants, connect.device);
            let revoked = self.edge.auth().check_revoked(&session.grants);
            revoked.map(|()| session).map_err(Some)
        });
        let mut session = match session {
            Ok(session) => session,
            Err(problem) => return self.refuse(req, problem),
        };
        #[cfg(test)]
        assert!(
            session
                .device
                .as_ref()
                .is_none_or(|device| device.as_str() != "panic"),
            "a defect that a test asks for"
        );
        let open = self.edge.registry().count_of(&session.grants.user);
        // The new one is among them.
        if let Err(refused) = self.edge.admission().another_of_user(open - 1) {
            self.send_frames(vec![limited(req, refused, None)]);
            drop(session);
            return self.close(CloseCode::RateLimited);
        }
        self.edge.counters().connects.add(1);
        self.note_expiry(session.grants.expires_s);
        let limits = &self.edge.config().limits;
        self.times.connect_by = None;
        // At a random moment, so that clients that came together do not stay
        // together.
        let first_ping = limits
            .ping_interval()
            .mul_f64(0.5 + rand::random::<f64>() / 2.0);
        let first_ping = due::on_grid(Instant::now() + first_ping, first_ping);
        self.times.next_ping = Some(first_ping);
        self.times.lifetime = limits.lifetime().map(|lifetime| Instant::now() + lifetime);
        let expires_ms = session.grants.expires_s.saturating_mul(1_000);
        let connected = Connected {
            session: format!("{}-{}", self.edge.config().name, session.id()).into(),
            user: session.grants.user.clone(),
            edge: self.edge.config().name.as_str().into(),
            ping_ms: limits.ping_ms,
            limits: Limits {
                message_bytes: u32::try_from(limits.message_bytes).unwrap_or(u32::MAX),
                subscriptions: u32::try_from(limits.subscriptions).unwrap_or(u32::MAX),
            },
            retry: Retry {
                min_ms: limits.retry_min_ms,
                max_ms: limits.retry_max_ms,
            },
            expires_ms,
        };
        out.push(ServerFrame::reply(req, ServerBody::Connected(connected)));
        for subscribe in connect.subscriptions {
            session.subscribe(req, subscribe, out);
        }
        let inbox = session.grants.inbox().clone();
        if connect.inbox && !session.feed.is_subscribed(&inbox) {
            let from = session.default_from();
            session.subscribe(
                req,
                Subscribe {
                    channel: inbox,
                    from,
                    max_catchup: 0,
                },
                out,
            );
        }
        if connect.rooms {
            session.subscribe_rooms(req, out);
        }
        if self.times.leave_by.is_none() {
            self.departure = None;
        }
        self.session = Some(session);
    }

    /// Lets nobody in, and says why; no token is none to speak of.
    fn refuse(&mut self, req: u32, problem: Option<TokenError>) {
        let (code, message, close) = match problem {
            Some(problem) => (problem.code(), problem.to_string(), problem.close_code()),
            None => {
                let message = "a token is needed, here or in the Authorization header";
                let (code, close) = (ErrorCode::Unauthorized, CloseCode::Unauthorized);
                (code, message.to_owned(), close)
            }
        };
        self.send_frames(vec![error(req, code, message, None)]);
        self.close(close);
    }

    fn close(&mut self, code: CloseCode) {
        if self.closing.is_none() {
            self.closing = Some(code);
            self.end();
            self.socket.close(code);
        }
    }

    /// Nothing more is delivered; the peer has a moment to read the close
    /// frame and to answer.
    fn end(&mut self) {
        self.times.gone_by = Some(Instant::now() + CLOSE_GRACE);
        // Its readers end here.
        self.session = None;
        if self.departure.is_none() {
            let drain = self.edge.drain().clone();
            let stopped = async move { drain.reached(Phase::Stopped).await };
            self.departure = Some(Box::pin(stopped));
        }
    }

    fn send_frames(&mut self, frames: Vec<ServerFrame>) {
        for frame in frames {
            if let ServerBody::Error(error) = &frame.body {
                self.edge.counters().count_error(error.code);
            }
            self.send(encode_server(self.socket.encoding(), &frame));
        }
    }

    fn send(&mut self, frame: Bytes) {
        self.edge.counters().frames_out.add(1);
        self.socket.send(frame);
    }
}
