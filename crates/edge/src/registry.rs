//! The live connections of an edge by user, and how to reach into them.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use delivery::Place;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::frame::Receipt;
use protocol::{Channel, CloseCode, Device, UserId};
use tokio::sync::mpsc;

use crate::auth::unix_now_ms;

/// What somebody outside wants of a connection.
#[derive(Debug, Clone)]
pub enum Command {
    /// Close it with this code.
    Close(CloseCode),
    /// The user is no longer a member of this room: end the subscription
    /// unless the token grants it.
    Removed(Channel),
    /// Memberships may have changed unseen: ask again.
    Recheck,
    /// Tokens were revoked, perhaps this one's: close it with `revoked` then.
    CheckToken,
    /// Another device of the user acknowledged something.
    Receipt(Box<Receipt>),
    /// Tell an operator where the subscriptions stand.
    Describe(Describe),
}

/// Where a connection tells where its subscriptions stand.
#[derive(Debug, Clone)]
pub struct Describe(mpsc::Sender<(u64, Vec<Place>)>);

impl Describe {
    /// For at most `connections` connections.
    pub(crate) fn new(connections: usize) -> (Self, mpsc::Receiver<(u64, Vec<Place>)>) {
        let (sender, receiver) = mpsc::channel(connections.max(1));
        (Self(sender), receiver)
    }

    pub(crate) fn tell(&self, connection: u64, places: Vec<Place>) {
        // Each connection tells once, for which there is room; whoever asked
        // may have stopped waiting.
        let _ = self.0.try_send((connection, places));
    }
}

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over WebSocket.
    WebSocket,
    /// By server-sent events.
    EventStream,
    /// By long-poll, for as long as one request lasts.
    Poll,
}

impl Transport {
    /// Every transport.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::EventStream, Self::Poll];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::EventStream => "sse",
            Self::Poll => "poll",
        }
    }
}

/// Commands that wait for a connection. More than this come only when its
/// task does not run; then it is closed and comes back with its rights
/// checked anew.
const COMMANDS_MAX: usize = 64;

/// One live connection, as others see it.
#[derive(Debug)]
pub struct ConnectionHandle {
    id: u64,
    user: UserId,
    device: Option<Device>,
    transport: Transport,
    /// The hash of its token's id, 0 without one: enough to find it by.
    token: AtomicU64,
    since_ms: u64,
    /// Since when its client takes nothing, in milliseconds since the Unix
    /// epoch; 0 while it does.
    stalled_ms: AtomicU64,
    commands: Mutex<Vec<Command>>,
    waker: AtomicWaker,
}

impl ConnectionHandle {
    /// Its number on this edge.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whose it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The name that the client gave its device.
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// How it is connected.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Tells under which token (`jti`) it lives now. Whoever calls this asks
    /// afterwards whether that token was revoked: a revocation before the
    /// call does not find it.
    pub(crate) fn set_token(&self, id: Option<&str>) {
        self.token.store(id.map_or(0, token_hash), Ordering::SeqCst);
    }

    /// When it was let in, in milliseconds since the Unix epoch.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Since when its client takes nothing of what is written, in
    /// milliseconds since the Unix epoch.
    pub fn stalled_since_ms(&self) -> Option<u64> {
        Some(self.stalled_ms.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    pub(crate) fn note_stalled(&self, stalled: bool) {
        let since = if stalled { unix_now_ms() } else { 0 };
        self.stalled_ms.store(since, Ordering::Relaxed);
    }

    /// Leaves a command and wakes the connection's task.
    pub fn send(&self, command: Command) {
        {
            let mut commands = self.commands.lock();
            if commands.len() < COMMANDS_MAX {
                commands.push(command);
            } else {
                *commands = vec![Command::Close(CloseCode::Disconnected)];
            }
        }
        self.waker.wake();
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.commands.lock())
    }
}

/// A cheap handle to the live connections of an edge.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next_id: AtomicU64,
    by_user: Mutex<HashMap<UserId, Vec<Arc<ConnectionHandle>>>>,
    /// By transport, in the order of [`Transport::ALL`].
    connections: [AtomicUsize; Transport::ALL.len()],
}

/// Counts a connection; dropping it ends that.
#[derive(Debug)]
pub struct Counted {
    registry: Registry,
    transport: Transport,
}

/// Keeps a connection in the registry; dropping it takes it out.
#[derive(Debug)]
pub struct Registered {
    counted: Counted,
    handle: Arc<ConnectionHandle>,
}

impl Registry {
    /// Adds a connection of a user.
    pub fn add(&self, user: UserId, device: Option<Device>, transport: Transport) -> Registered {
        let counted = self.count(transport);
        let handle = Arc::new(ConnectionHandle {
            id: self.shared.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            user: user.clone(),
            device,
            transport,
            token: AtomicU64::new(0),
            since_ms: unix_now_ms(),
            stalled_ms: AtomicU64::new(0),
            commands: Mutex::default(),
            waker: AtomicWaker::new(),
        });
        let mut by_user = self.shared.by_user.lock();
        let connections = by_user.entry(user).or_default();
        // Most users have one connection.
        connections.reserve_exact(1);
        connections.push(Arc::clone(&handle));
        Registered { counted, handle }
    }

    /// Counts a connection of a service, which is nobody's to look up.
    pub fn count(&self, transport: Transport) -> Counted {
        self.shared.connections[transport as usize].fetch_add(1, Ordering::Relaxed);
        Counted {
            registry: self.clone(),
            transport,
        }
    }

    /// The connections of a user.
    pub fn of(&self, user: &UserId) -> Vec<Arc<ConnectionHandle>> {
        self.shared
            .by_user
            .lock()
            .get(user)
            .cloned()
            .unwrap_or_default()
    }

    /// How many connections a user has.
    pub fn count_of(&self, user: &UserId) -> usize {
        self.shared.by_user.lock().get(user).map_or(0, Vec::len)
    }

    /// Every connection.
    pub fn all(&self) -> Vec<Arc<ConnectionHandle>> {
        self.shared
            .by_user
            .lock()
            .values()
            .flatten()
            .cloned()
            .collect()
    }

    /// The connections that live under the token with this id (`jti`), and
    /// perhaps a few others: ids are compared by their hashes.
    pub fn of_token(&self, id: &str) -> Vec<Arc<ConnectionHandle>> {
        let hash = token_hash(id);
        let lives_under = |it: &&Arc<ConnectionHandle>| it.token.load(Ordering::SeqCst) == hash;
        let by_user = self.shared.by_user.lock();
        by_user
            .values()
            .flatten()
            .filter(lives_under)
            .cloned()
            .collect()
    }

    /// The connection with this number.
    pub fn find(&self, id: u64) -> Option<Arc<ConnectionHandle>> {
        let by_user = self.shared.by_user.lock();
        by_user.values().flatten().find(|it| it.id == id).cloned()
    }

    /// Connections whose clients have taken nothing for longer than this.
    pub fn slow(&self, longer_than_ms: u64) -> Vec<Arc<ConnectionHandle>> {
        let before = unix_now_ms().saturating_sub(longer_than_ms);
        let by_user = self.shared.by_user.lock();
        let is_slow =
            |it: &&Arc<ConnectionHandle>| it.stalled_since_ms().is_some_and(|since| since < before);
        by_user
            .values()
            .flatten()
            .filter(is_slow)
            .cloned()
            .collect()
    }

    /// Wakes every connection's task, for what has changed for all of them.
    pub fn wake_all(&self) {
        for handle in self.all() {
            handle.waker.wake();
        }
    }

    /// How many connections of a transport there are.
    pub fn connections(&self, transport: Transport) -> usize {
        self.shared.connections[transport as usize].load(Ordering::Relaxed)
    }

    /// How many users are connected.
    pub fn users(&self) -> usize {
        self.shared.by_user.lock().len()
    }
}

/// Never 0, which stands for no token.
fn token_hash(id: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish() | 1
}

impl Registered {
    /// The connection.
    pub fn handle(&self) -> &Arc<ConnectionHandle> {
        &self.handle
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = &self.registry.shared.connections[self.transport as usize];
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut by_user = self.counted.registry.shared.by_user.lock();
        if let Some(connections) = by_user.get_mut(&self.handle.user) {
            connections.retain(|known| known.id != self.handle.id);
            if connections.is_empty() {
                by_user.remove(&self.handle.user);
            }
        }
    }
}
