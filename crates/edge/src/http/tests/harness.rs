//! An edge whose stream the test writes. Window, feed and catch-up are real;
//! the log below the window, the tail and the rooms are plain models in
//! memory, because these tests are about the HTTP API. The real ones are
//! tested in their own crates and in `tests/`.

use std::collections::{BTreeMap, BTreeSet};

use delivery::fleet::Fleet;
use delivery::members::{Listing, MemberEvent, MemberWatch, Members, StoreFailure};
use delivery::receipts::{Ack, Acked, Receipts, Unread};
use delivery::signal::{Incoming, Signal, SignalError, Signals};
use protocol::Device;
use tokio::sync::mpsc;

use super::*;

/// What the stream has stored.
#[derive(Clone, Default)]
pub(super) struct Stored(Arc<Mutex<Vec<Message>>>);

impl Stored {
    fn of(&self, channel: &Channel, after: u64) -> Vec<Message> {
        let stored = self.0.lock();
        let of = |message: &&Message| message.channel == *channel && message.seq() > after;
        stored.iter().filter(of).cloned().collect()
    }

    fn head(&self) -> u64 {
        self.0.lock().len() as u64
    }
}

impl Log for Stored {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        async move {
            if request.after.epoch != EPOCH {
                return Err(PageError::UnknownEpoch);
            }
            let mut messages = self.of(&request.channel, request.after.seq);
            let all = messages.len() <= request.max_messages;
            messages.truncate(request.max_messages);
            let through = match (all, messages.last()) {
                (false, Some(last)) => last.seq(),
                (true, _) | (false, None) => self.head(),
            };
            Ok(Page {
                messages,
                through,
                next_epoch: None,
            })
        }
        .boxed()
    }

    fn earliest(&self, _: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, 0)) }.boxed()
    }

    fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async move {
            if through.epoch != EPOCH {
                return Err(PageError::UnknownEpoch);
            }
            let mut messages = self.of(&channel, 0);
            messages.retain(|message| message.seq() <= through.seq);
            let seq = match messages.len().checked_sub(count) {
                Some(index) => messages[index].seq() - 1,
                None => 0,
            };
            Ok(Cursor::new(EPOCH, seq))
        }
        .boxed()
    }
}

impl Stream for Stored {
    fn head(&self, _: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        async { Ok(Cursor::new(EPOCH, self.head())) }.boxed()
    }
}

/// The tail that the test drives.
struct Script(mpsc::UnboundedReceiver<TailEvent>);

impl Tail for Script {
    async fn next(&mut self) -> TailEvent {
        match self.0.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

/// Rooms in memory. `away` stands for a store that does not answer.
#[derive(Default)]
pub(super) struct Rooms {
    members: Mutex<BTreeSet<(Channel, UserId)>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<MemberEvent>>>,
    pub(super) away: std::sync::atomic::AtomicBool,
}

struct Watch(mpsc::UnboundedReceiver<MemberEvent>);

impl MemberWatch for Watch {
    fn next(&mut self) -> BoxFuture<'_, MemberEvent> {
        async {
            match self.0.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}

impl Rooms {
    fn answer<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&mut BTreeSet<(Channel, UserId)>) -> T,
    ) -> BoxFuture<'_, Result<T, StoreFailure>> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            let failure = StoreFailure::Unavailable {
                retry_after: Duration::from_millis(2_500),
                reason: "secret detail".to_owned(),
            };
            return async { Err(failure) }.boxed();
        }
        let answer = answer(&mut self.members.lock());
        async { Ok(answer) }.boxed()
    }

    fn tell(&self, event: impl Fn(UserId) -> MemberEvent, users: &[UserId]) {
        for user in users {
            for watcher in self.watchers.lock().iter() {
                let _ = watcher.send(event(user.clone()));
            }
        }
    }
}

/// Part of an ascending list.
fn listing<T: Ord>(all: impl Iterator<Item = T>, after: Option<T>, limit: usize) -> Listing<T> {
    let mut rest = all.filter(|item| after.as_ref().is_none_or(|after| item > after));
    let items = rest.by_ref().take(limit).collect();
    Listing {
        items,
        more: rest.next().is_some(),
    }
}

impl Members for Rooms {
    fn add(&self, room: Channel, users: Vec<UserId>) -> BoxFuture<'_, Result<u64, StoreFailure>> {
        let added = |user| MemberEvent::Added {
            room: room.clone(),
            user,
        };
        self.tell(added, &users);
        self.answer(|members| {
            let new = |user: UserId| u64::from(members.insert((room.clone(), user)));
            users.into_iter().map(new).sum::<u64>()
        })
    }

    fn remove(
        &self,
        room: Channel,
        users: Vec<UserId>,
    ) -> BoxFuture<'_, Result<u64, StoreFailure>> {
        let was = self.answer(|members| {
            let was = |user: &UserId| u64::from(members.remove(&(room.clone(), user.clone())));
            users.iter().map(was).sum::<u64>()
        });
        let removed = |user| MemberEvent::Removed {
            room: room.clone(),
            user,
        };
        self.tell(removed, &users);
        was
    }

    fn contains(&self, room: Channel, user: UserId) -> BoxFuture<'_, Result<bool, StoreFailure>> {
        self.answer(|members| members.contains(&(room, user)))
    }

    fn members(
        &self,
        room: Channel,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing<UserId>, StoreFailure>> {
        self.answer(|members| {
            let of_room = members.iter().filter(|(of, _)| *of == room);
            listing(of_room.map(|(_, user)| user.clone()), after, limit)
        })
    }

    fn rooms(
        &self,
        user: UserId,
        after: Option<Channel>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing<Channel>, StoreFailure>> {
        self.answer(|members| {
            let of_user = members.iter().filter(|(_, of)| *of == user);
            listing(of_user.map(|(room, _)| room.clone()), after, limit)
        })
    }

    fn watch(&self) -> Box<dyn MemberWatch> {
        let (watcher, watch) = mpsc::unbounded_channel();
        self.watchers.lock().push(watcher);
        Box::new(Watch(watch))
    }
}

/// Positions in memory. It counts nothing itself: what is unread is counted
/// by the edge, from its window.
#[derive(Default)]
pub(super) struct ReadState {
    read: Mutex<BTreeMap<(UserId, Channel), Cursor>>,
    delivered: Mutex<BTreeMap<(UserId, Device, Channel), Cursor>>,
    /// A count takes this long.
    pub(super) pause: Mutex<Duration>,
}

impl Receipts for ReadState {
    fn ack(&self, ack: Ack) -> BoxFuture<'_, Result<Acked, StoreFailure>> {
        let place = (ack.user.clone(), ack.channel.clone());
        if let Some(delivered) = ack.delivered {
            let place = (ack.user.clone(), ack.device.clone(), ack.channel.clone());
            self.delivered.lock().insert(place, delivered);
        }
        let mut read = self.read.lock();
        let before = read.get(&place).copied();
        let now = ack.read.into_iter().chain(before).max_by_key(|at| at.seq);
        if let Some(now) = now {
            read.insert(place, now);
        }
        let acked = Acked {
            delivered: ack.delivered,
            read: now,
            read_moved: now != before,
            unread: (now != before).then(|| unread(ack.channel, now)),
        };
        async { Ok(acked) }.boxed()
    }

    fn position(
        &self,
        user: UserId,
        device: Device,
        channel: Channel,
    ) -> BoxFuture<'_, Result<Option<Cursor>, StoreFailure>> {
        let position = self.delivered.lock().get(&(user, device, channel)).copied();
        async move { Ok(position) }.boxed()
    }

    fn unread(
        &self,
        user: UserId,
        channel: Channel,
    ) -> BoxFuture<'_, Result<Unread, StoreFailure>> {
        let read = self.read.lock().get(&(user, channel.clone())).copied();
        let pause = *self.pause.lock();
        async move {
            tokio::time::sleep(pause).await;
            Ok(unread(channel, read))
        }
        .boxed()
    }

    fn inbox(&self, user: UserId) -> BoxFuture<'_, Result<Vec<Unread>, StoreFailure>> {
        let read = self.read.lock();
        let of_user = read.iter().filter(|((of, _), _)| *of == user);
        let inbox: Vec<Unread> = of_user
            .map(|((_, channel), read)| unread(channel.clone(), Some(*read)))
            .collect();
        async { Ok(inbox) }.boxed()
    }
}

fn unread(channel: Channel, read: Option<Cursor>) -> Unread {
    Unread {
        channel,
        read,
        unread: 0,
        counted_through: read,
    }
}

/// Signals that were sent.
#[derive(Default)]
pub(super) struct Sent(pub(super) Mutex<Vec<Signal>>);

impl Signals for Sent {
    fn send(&self, signal: Signal) -> BoxFuture<'_, Result<(), SignalError>> {
        self.0.lock().push(signal);
        async { Ok(()) }.boxed()
    }

    fn subscribe(&self) -> BoxFuture<'_, Result<Box<dyn Incoming<Signal>>, SignalError>> {
        let reason = "not in these tests".to_owned();
        async { Err(SignalError { reason }) }.boxed()
    }
}

/// Edges over one stream.
pub(super) struct Live {
    pub(super) stored: Stored,
    pub(super) rooms: Arc<Rooms>,
    pub(super) sent: Arc<Sent>,
    pub(super) read_state: Arc<ReadState>,
    tails: Mutex<Vec<(mpsc::UnboundedSender<TailEvent>, Arc<window::Window>)>>,
    configure: fn(&mut EdgeConfig),
    window_bytes: usize,
    pub(super) fleet: Option<Arc<dyn Fleet>>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self::with(|_| {}, 1 << 20)
    }

    pub(super) fn with(configure: fn(&mut EdgeConfig), window_bytes: usize) -> Self {
        Self {
            stored: Stored::default(),
            rooms: Arc::default(),
            sent: Arc::default(),
            read_state: Arc::default(),
            tails: Mutex::default(),
            configure,
            window_bytes,
            fleet: None,
        }
    }

    /// One more edge, ready, whose window begins at the head.
    pub(super) async fn edge(&self) -> Api {
        let mut config = EdgeConfig {
            name: "edge-1".to_owned(),
            auth: auth_config(),
            ..EdgeConfig::default()
        };
        (self.configure)(&mut config);
        let recorder = Arc::new(Recorder {
            verdict: |_| Ok(false),
            published: Mutex::default(),
        });
        let limits = DeliveryLimits {
            window_bytes: self.window_bytes,
            ..DeliveryLimits::default()
        };
        let edge = Edge::new(EdgeParts {
            auth: Authenticator::new(&config.auth).unwrap(),
            config,
            hub: Hub::new(1, None, Arc::new(self.stored.clone()), limits),
            publish: recorder.clone(),
            signals: Some(self.sent.clone()),
            controls: None,
            members: Some(self.rooms.clone()),
            receipts: Some(self.read_state.clone()),
            access: None,
            fleet: self.fleet.clone(),
            log: None,
        });
        let (tail, script) = mpsc::unbounded_channel();
        let window = Arc::clone(&edge.hub().windows()[0]);
        tokio::spawn({
            let window = Arc::clone(&window);
            async move { window::fill(Script(script), &window).await }
        });
        let head = self.stored.head();
        let started = TailEvent::Started {
            after: Cursor::new(EPOCH, head),
            last: head,
        };
        tail.send(started).unwrap();
        // What the tail reports first after it has started.
        let caught_up = TailEvent::Messages {
            messages: Vec::new(),
            epoch: EPOCH,
            through: head,
        };
        tail.send(caught_up).unwrap();
        window.wait_filled().await;
        self.tails.lock().push((tail, window));
        let members: Arc<dyn Members> = self.rooms.clone();
        tokio::spawn(crate::remote::watch_members(edge.clone(), members));
        while self.rooms.watchers.lock().len() < self.tails.lock().len() {
            tokio::task::yield_now().await;
        }
        let router = edge.router();
        Api {
            edge,
            router,
            recorder,
        }
    }

    /// Stores a message; it has reached every edge's window then.
    pub(super) async fn publish(&self, to: &str, n: u64) -> u64 {
        let message = self.store(to, n);
        let seq = message.seq();
        let tails = self.tails.lock().clone();
        for (tail, window) in tails {
            let event = TailEvent::Messages {
                messages: vec![message.clone()],
                epoch: EPOCH,
                through: seq,
            };
            tail.send(event).unwrap();
            while window.head().seq < seq {
                tokio::task::yield_now().await;
            }
        }
        seq
    }

    fn store(&self, to: &str, n: u64) -> Message {
        let mut stored = self.stored.0.lock();
        let message = Message {
            channel: channel(to),
            position: Cursor::new(EPOCH, stored.len() as u64 + 1),
            prev: 0,
            id: None,
            kind: "".into(),
            sender: None,
            time_ms: 1_700_000_000_000,
            data: n.to_string().into(),
            traceparent: None,
        };
        stored.push(message.clone());
        message
    }
}

/// The position after a sequence, as text.
pub(super) fn at(seq: u64) -> String {
    Cursor::new(EPOCH, seq).to_string()
}

/// The payloads in a `messages` frame.
pub(super) fn numbers(frame: &Value) -> Vec<u64> {
    let messages = frame["messages"]["messages"].as_array();
    let number = |message: &Value| message["data"].as_u64().unwrap();
    messages.map_or(Vec::new(), |messages| messages.iter().map(number).collect())
}
