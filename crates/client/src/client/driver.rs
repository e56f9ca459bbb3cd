//! The task of a client: one connection after another.

mod frames;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use protocol::frame;
use protocol::frame::{
    Ack, Connected, ErrorBody, Publish, Published, SendSignal, Subscribe, UnsubscribeReason,
};
use protocol::{Channel, ClientBody, ClientFrame, CloseCode, Cursor, MessageId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::config::ClientConfig;
use super::event::{Event, State};
use super::outbox::Outbox;
use super::subscriptions::Subscriptions;
use crate::connection::{Closed, ConnectError, ConnectOptions, Connection};

/// For a whole connect: longer than a slow mobile network takes, shorter than a user's patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Subscribe(Subscribe),
    Unsubscribe(Channel),
    Signal(SendSignal),
    Ack(Ack),
    Close,
}

/// A message to publish.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) publish: Publish,
    pub(super) answer: oneshot::Sender<Result<Published, ErrorBody>>,
    pub(super) room: OwnedSemaphorePermit,
}

/// What goes to the application: an event, and the positions that are reached with it.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) event: Option<Event>,
    pub(super) moves: Vec<(Channel, Cursor)>,
}

type Waiter = (
    oneshot::Sender<Result<Published, ErrorBody>>,
    OwnedSemaphorePermit,
);

pub(super) struct Driver {
    config: ClientConfig,
    commands: mpsc::Receiver<Command>,
    submissions: mpsc::UnboundedReceiver<Submission>,
    events: mpsc::Sender<Delivery>,
    /// What one frame gave, until there is room among the events.
    pending: VecDeque<Delivery>,
    state: Option<State>,
    subscriptions: Subscriptions,
    outbox: Outbox<Waiter>,
    backoff: Backoff,
    /// The last token that an edge took or has not seen yet.
    token: Option<String>,
    /// The inbox was subscribed once: from then on it is named with its cursor.
    inbox_known: bool,
}

/// How a connection or a try of one ended.
enum End {
    /// Try again after a delay.
    Again(String),
    /// An edge said not to.
    GiveUp(Closed),
    /// The application has left.
    Left,
}

/// What belongs to one connection.
struct Session {
    connection: Connection,
    ping: Duration,
    subscriptions_max: usize,
    requests: HashMap<u32, Request>,
    heard: Instant,
    refreshing: Option<BoxFuture<'static, Result<String, String>>>,
}

/// What a reply answers.
enum Request {
    Connect,
    Subscribe(Channel),
    Publish(Channel, MessageId),
    Refresh,
}

impl Driver {
    pub(super) fn new(
        config: ClientConfig,
        commands: mpsc::Receiver<Command>,
        submissions: mpsc::UnboundedReceiver<Submission>,
        events: mpsc::Sender<Delivery>,
    ) -> Self {
        let mut subscriptions = Subscriptions::default();
        for subscribe in &config.subscriptions {
            subscriptions.add(subscribe.clone());
        }
        Self {
            config,
            commands,
            submissions,
            events,
            pending: VecDeque::new(),
            state: None,
            subscriptions,
            outbox: Outbox::new(),
            backoff: Backoff::new(),
            token: None,
            inbox_known: false,
        }
    }

    /// Connects again and again until the application leaves or an edge says not to.
    pub(super) async fn run(mut self) {
        loop {
            self.become_state(State::Connecting);
            let end = match self.connect().await {
                Ok(session) => self.serve(session).await,
                Err(end) => end,
            };
            self.subscriptions.disconnected();
            self.outbox.disconnected(Instant::now());
            let reason = match end {
                End::Again(reason) => reason,
                End::GiveUp(closed) => {
                    self.become_state(State::Closed(closed));
                    while let Some(delivery) = self.pending.pop_front() {
                        if self.events.send(delivery).await.is_err() {
                            break;
                        }
                    }
                    return;
                }
                End::Left => return,
            };
            let retry_in = self.backoff.next(&mut rand::rng());
            tracing::debug!(%reason, retry_ms = retry_in.as_millis(), "offline");
            self.become_state(State::Offline { reason, retry_in });
            if self.meanwhile(sleep(retry_in)).await.is_none() {
                return;
            }
        }
    }

    /// One try to connect.
    async fn connect(&mut self) -> Result<Session, End> {
        let fresh = self.token.is_none();
        let token = match self.token.clone() {
            Some(token) => token,
            None => {
                let asking = timeout(CONNECT_TIMEOUT, self.config.tokens.ask());
                match self.meanwhile(asking).await.ok_or(End::Left)? {
                    Ok(Ok(token)) => token,
                    Ok(Err(reason)) => return Err(End::Again(format!("no token: {reason}"))),
                    Err(_) => return Err(End::Again("no token in time".to_owned())),
                }
            }
        };
        self.token = Some(token.clone());
        // As many as every edge takes at once; the rest is asked for when `connected` has told the limit.
        let at_once = protocol::limits::SUBSCRIPTIONS_DEFAULT;
        let options = ConnectOptions {
            encoding: self.config.encoding,
            device: self.config.device.clone(),
            subscriptions: self.subscriptions.ask(Instant::now(), at_once),
            inbox: self.config.inbox && !self.inbox_known,
            rooms: self.config.rooms,
            timeout: CONNECT_TIMEOUT,
            ..ConnectOptions::default()
        };
        let url = self.config.url.clone();
        let connecting = Connection::connect(&url, &token, &options);
        match self.meanwhile(connecting).await.ok_or(End::Left)? {
            Ok((connection, connected)) => Ok(self.begin(connection, &connected)),
            Err(error) => Err(self.not_connected(error, fresh)),
        }
    }

    fn begin(&mut self, connection: Connection, connected: &Connected) -> Session {
        self.backoff.connected(connected.retry);
        Session {
            connection,
            ping: Duration::from_millis(connected.ping_ms.max(1).into()),
            subscriptions_max: connected.limits.subscriptions as usize,
            // `connect` was the first request of the connection.
            requests: HashMap::from([(1, Request::Connect)]),
            heard: Instant::now(),
            refreshing: None,
        }
    }

    fn not_connected(&mut self, error: ConnectError, fresh_token: bool) -> End {
        let reason = error.to_string();
        match error {
            ConnectError::Rejected { closed, .. } | ConnectError::Closed(closed) => {
                self.closed(closed, fresh_token)
            }
            ConnectError::Url(_) | ConnectError::Token => End::GiveUp(Closed::broken(reason)),
            ConnectError::Io(_)
            | ConnectError::Http { .. }
            | ConnectError::Handshake(_)
            | ConnectError::Timeout
            | ConnectError::Unexpected(_) => End::Again(reason),
        }
    }

    /// What a close code asks for. An old token that is no longer taken gets one more chance as a new one.
    fn closed(&mut self, closed: Closed, fresh_token: bool) -> End {
        match closed.close_code() {
            Some(CloseCode::TokenExpired) => self.token = None,
            Some(CloseCode::Unauthorized) if !fresh_token => {
                self.token = None;
                return End::Again(closed.to_string());
            }
            Some(_) | None => {}
        }
        match closed.comes_back() {
            true => End::Again(closed.to_string()),
            false => End::GiveUp(closed),
        }
    }

    /// Waits for something while there is no connection: commands are taken, events flow. Nothing when the application
    /// has left.
    async fn meanwhile<F: Future>(&mut self, work: F) -> Option<F::Output> {
        tokio::pin!(work);
        let events = self.events.clone();
        loop {
            tokio::select! {
                output = &mut work => return Some(output),
                command = self.commands.recv() => match command {
                    Some(Command::Close) | None => return None,
                    // Without a connection nobody is there to be told.
                    Some(command) => drop(self.take(command)),
                },
                Some(submission) = self.submissions.recv() => self.submit(submission),
                permit = events.reserve(), if !self.pending.is_empty() => {
                    permit.ok()?.send(self.pending.pop_front().unwrap_or_default());
                }
            }
        }
    }

    /// Runs a connection until it ends.
    async fn serve(&mut self, mut session: Session) -> End {
        let events = self.events.clone();
        loop {
            if let Err(closed) = self.ask_and_publish(&mut session).await {
                return self.closed(closed, false);
            }
            self.follow_state();
            let due = [self.subscriptions.next_due(), self.outbox.next_due()];
            let due: OptionFuture<_> = due.into_iter().flatten().min().map(sleep_until).into();
            let reading = self.pending.is_empty();
            let dead = session.heard + session.ping * 2;
            let refresh: OptionFuture<_> = session.refreshing.as_mut().into();
            // No branch can starve another for long: each does one step.
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Close) | None => {
                        session.connection.close().await;
                        return End::Left;
                    }
                    Some(command) => {
                        if let Some(body) = self.take(command)
                            && let Err(closed) = send(&mut session, 0, body).await
                        {
                            return self.closed(closed, false);
                        }
                    }
                },
                Some(submission) = self.submissions.recv() => self.submit(submission),
                permit = events.reserve(), if !reading => {
                    let Ok(permit) = permit else { return End::Left };
                    permit.send(self.pending.pop_front().unwrap_or_default());
                    // The time that the application took is not the edge's silence.
                    session.heard = Instant::now();
                }
                frame = session.connection.next(), if reading => {
                    session.heard = Instant::now();
                    match frame {
                        Ok(frame) => if let Some(end) = self.frame(&mut session, frame) {
                            return end;
                        },
                        Err(closed) => return self.closed(closed, false),
                    }
                }
                () = sleep_until(dead), if reading => {
                    return End::Again("nothing heard for two ping intervals".to_owned());
                }
                Some(()) = due => {}
                Some(token) = refresh => {
                    session.refreshing = None;
                    if let Err(closed) = self.refresh(&mut session, token).await {
                        return self.closed(closed, false);
                    }
                }
            }
        }
    }

    /// Sends what is due: subscriptions and messages.
    async fn ask_and_publish(&mut self, session: &mut Session) -> Result<(), Closed> {
        let now = Instant::now();
        for subscribe in self.subscriptions.ask(now, session.subscriptions_max) {
            let request = Request::Subscribe(subscribe.channel.clone());
            ask(session, request, ClientBody::Subscribe(subscribe)).await?;
        }
        for publish in self.outbox.due(now) {
            let request = Request::Publish(publish.channel.clone(), publish.id.clone());
            ask(session, request, ClientBody::Publish(publish)).await?;
        }
        Ok(())
    }

    async fn refresh(
        &mut self,
        session: &mut Session,
        token: Result<String, String>,
    ) -> Result<(), Closed> {
        let token = match token {
            Ok(token) => token,
            Err(reason) => {
                // The edge will close with 4007, and then it is asked for again.
                tracing::warn!(%reason, "no new token");
                return Ok(());
            }
        };
        let Ok(valid) = frame::Token::parse(&token) else {
            tracing::warn!("the new token has no length that a token can have");
            return Ok(());
        };
        self.token = Some(token);
        ask(
            session,
            Request::Refresh,
            ClientBody::Refresh { token: valid },
        )
        .await
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            publish,
            answer,
            room,
        } = submission;
        self.outbox.push(publish, (answer, room), Instant::now());
    }

    /// Takes a command, and says what the edge has to be told now.
    fn take(&mut self, command: Command) -> Option<ClientBody> {
        match command {
            Command::Subscribe(subscribe) => {
                self.subscriptions.add(subscribe);
                None
            }
            Command::Unsubscribe(channel) => {
                let tell = self.subscriptions.remove(&channel);
                let reason = UnsubscribeReason::Asked;
                self.tell(Event::Unsubscribed {
                    channel: channel.clone(),
                    reason,
                });
                tell.then_some(ClientBody::Unsubscribe { channel })
            }
            Command::Signal(signal) => Some(ClientBody::Signal(signal)),
            Command::Ack(ack) => Some(ClientBody::Ack(ack)),
            Command::Close => None,
        }
    }

    fn follow_state(&mut self) {
        let state = match self.subscriptions.all_live() {
            true => State::Live,
            false => State::CatchingUp,
        };
        self.become_state(state);
    }

    fn become_state(&mut self, state: State) {
        if self.state.as_ref() != Some(&state) {
            self.tell(Event::State(state.clone()));
            self.state = Some(state);
        }
    }

    fn tell(&mut self, event: Event) {
        self.deliver(event, Vec::new());
    }

    fn deliver(&mut self, event: Event, moves: Vec<(Channel, Cursor)>) {
        self.pending.push_back(Delivery {
            event: Some(event),
            moves,
        });
    }
}

/// Sends a frame whose reply is to be recognised.
async fn ask(session: &mut Session, request: Request, body: ClientBody) -> Result<(), Closed> {
    let req = session.connection.new_req();
    session.requests.insert(req, request);
    send(session, req, body).await
}

/// Sends a frame. A peer that takes nothing for two ping intervals is dead.
async fn send(session: &mut Session, req: u32, body: ClientBody) -> Result<(), Closed> {
    let frame = ClientFrame { req, body };
    let sending = session.connection.send(&frame);
    timeout(session.ping * 2, sending)
        .await
        .unwrap_or_else(|_| {
            Err(Closed::broken(
                "nothing could be sent for two ping intervals",
            ))
        })
}
