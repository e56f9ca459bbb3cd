//! The recovery rules of `docs/RECOVERY.md`, under simulated networks and clocks: real windows, readers and feeds of several
//! edges, the client's real state machine, and between them lines that break with frames in flight. Streams and archive are
//! models. Everything that happens follows from a seed.
//!
//! `REJOIN_SIM_SEEDS` is how many schedules run (default 1000), `REJOIN_SIM_SEED` runs a single one again.

#[path = "../../../delivery/tests/continuity/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use delivery::{DeliveryLimits, Feed, Hub, Output, Start, Tail, TailEvent};
use protocol::frame::{Message, Messages, Reset, ResetReason, Subscribe, Subscribed};
use protocol::{Channel, Cursor, From as StartFrom};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::subscriptions::Subscriptions;
use world::{Archive, LiveStream, World, channel, channel_number, epoch_of, message};

const CHANNELS: usize = 3;
const EDGES: usize = 2;
const APPS: usize = 3;
/// Channels of each application.
const LISTENS: usize = 2;

/// The tail that the simulation drives.
struct Script(mpsc::UnboundedReceiver<TailEvent>);

impl Tail for Script {
    async fn next(&mut self) -> TailEvent {
        match self.0.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

struct Edge {
    hub: Hub,
    tail: mpsc::UnboundedSender<TailEvent>,
    /// How far its window has heard.
    told: Cursor,
}

/// What is under way from an edge to a client.
enum Frame {
    Out(Output),
    Ping(BTreeMap<u16, Cursor>),
}

struct Link {
    edge: usize,
    feed: Feed,
    wire: VecDeque<Frame>,
}

/// What an application has of one channel: kept in memory, and stored in one transaction.
#[derive(Debug, Clone, Default)]
struct State {
    position: Option<Cursor>,
    /// The effects of messages.
    applied: Vec<Cursor>,
    live: bool,
}

struct App {
    subscriptions: Subscriptions,
    link: Option<Link>,
    channels: BTreeMap<Channel, State>,
    stored: BTreeMap<Channel, State>,
}

struct Run {
    random: StdRng,
    world: Arc<Mutex<World>>,
    edges: Vec<Edge>,
    apps: Vec<App>,
}

#[test]
fn every_effect_happens_once_and_in_order_whatever_breaks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let seeds = match number("REJOIN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REJOIN_SIM_SEEDS").unwrap_or(1_000),
    };
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap()
                .block_on(schedule(seed));
        }));
        if let Err(panic) = outcome {
            eprintln!("run this schedule again with REJOIN_SIM_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

async fn schedule(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let steps = random.random_range(20..250);
    let world = Arc::new(Mutex::new(World::new()));
    let mut run = Run {
        random,
        edges: (0..EDGES).map(|_| edge(&world)).collect(),
        apps: (0..APPS).map(app).collect(),
        world,
    };
    for _ in 0..steps {
        run.step().await;
        // Windows take what their tails have told.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    run.settle().await;
}

fn edge(world: &Arc<Mutex<World>>) -> Edge {
    let limits = DeliveryLimits {
        window_bytes: 3_000,
        subscriptions: 4,
        batch_messages: 4,
        batch_bytes: 1_000,
    };
    let archive = Arc::new(Archive(Arc::clone(world)));
    let stream = Arc::new(LiveStream(Arc::clone(world)));
    let hub = Hub::new(1, Some(archive), stream, limits);
    let (tail, events) = mpsc::unbounded_channel();
    let window = Arc::clone(&hub.windows()[0]);
    tokio::spawn(async move { delivery::window::fill(Script(events), &window).await });
    let told = world.lock().unwrap().head();
    tail.send(TailEvent::Started {
        after: told,
        last: told.seq,
    })
    .unwrap();
    Edge { hub, tail, told }
}

fn app(number: usize) -> App {
    let mut app = App {
        subscriptions: Subscriptions::default(),
        link: None,
        channels: BTreeMap::new(),
        stored: BTreeMap::new(),
    };
    for offset in 0..LISTENS {
        let channel = channel((number + offset) % CHANNELS);
        app.channels.insert(channel.clone(), State::default());
        app.stored.insert(channel, State::default());
    }
    app.restart();
    app
}

impl Run {
    async fn step(&mut self) {
        let app = self.random.random_range(0..APPS);
        let edge = self.random.random_range(0..EDGES);
        let few = self.random.random_range(1..6_usize);
        match self.random.random_range(0..1_000) {
            0..200 => self.publish(),
            200..380 => self.tail(edge, few),
            380..400 => self.tail_restarts(edge),
            400..430 => self.data(few as u64),
            430..445 => self.lives(),
            445..460 => self.outage(),
            460..560 => self.connect(app, edge),
            560..700 => {
                self.pump(app, few).await;
            }
            700..860 => self.read(app, few),
            860..910 => self.ping(app),
            910..940 => self.apps[app].cut(),
            940..960 => self.apps[app].store(),
            960..985 => self.apps[app].restart(),
            _ => self.edge_dies(edge),
        }
    }

    fn publish(&mut self) {
        let channel = self.random.random_range(0..CHANNELS);
        self.world.lock().unwrap().publish(channel);
    }

    /// An edge's window hears of the next messages.
    fn tail(&mut self, edge: usize, count: usize) {
        let mut world = self.world.lock().unwrap();
        let head = world.head();
        let edge = &mut self.edges[edge];
        if edge.told.epoch != head.epoch {
            edge.told = Cursor::new(head.epoch, world.current().trimmed);
            edge.tail
                .send(TailEvent::Started {
                    after: edge.told,
                    last: head.seq,
                })
                .unwrap();
        }
        let later = |it: &&(u64, usize)| it.0 > edge.told.seq;
        let next = world.current().messages.iter().filter(later).take(count);
        let messages: Vec<_> = next
            .map(|(seq, of)| message(Cursor::new(head.epoch, *seq), *of))
            .collect();
        edge.told.seq = messages.last().map_or(edge.told.seq, |last| last.seq());
        let event = TailEvent::Messages {
            messages,
            epoch: head.epoch,
            through: edge.told.seq,
        };
        edge.tail.send(event).unwrap();
    }

    /// A tail was interrupted, and goes on where it was or further on.
    fn tail_restarts(&mut self, edge: usize) {
        let mut world = self.world.lock().unwrap();
        let head = world.head();
        let edge = &mut self.edges[edge];
        let trimmed = world.current().trimmed;
        let skip = self.random.random_range(0..3);
        edge.told = match edge.told.epoch == head.epoch {
            true => Cursor::new(
                head.epoch,
                (edge.told.seq + skip).min(head.seq).max(trimmed),
            ),
            false => Cursor::new(head.epoch, trimmed),
        };
        edge.tail
            .send(TailEvent::Started {
                after: edge.told,
                last: head.seq,
            })
            .unwrap();
    }

    /// The archiver archives and trims, retention passes.
    fn data(&mut self, count: u64) {
        let mut world = self.world.lock().unwrap();
        let life = world.current();
        match self.random.random_range(0..8) {
            0..4 => life.archived = (life.archived + count).min(life.last),
            4..7 => life.trimmed = (life.trimmed + count).min(life.archived),
            _ => life.expired = (life.expired + count).min(life.trimmed),
        }
    }

    /// The stream is destroyed, and begins a new life.
    fn lives(&mut self) {
        let mut world = self.world.lock().unwrap();
        if world.lives.len() >= 4 {
            return;
        }
        if self.random.random_bool(0.7) {
            let life = world.current();
            life.archived = life.last;
        }
        world.lives.push(world::Life::default());
    }

    fn outage(&mut self) {
        let mut world = self.world.lock().unwrap();
        world.stream_up = self.random.random_bool(0.6);
        world.archive_up = self.random.random_bool(0.6);
    }

    fn edge_dies(&mut self, number: usize) {
        for app in &mut self.apps {
            if app.link.as_ref().is_some_and(|link| link.edge == number) {
                app.cut();
            }
        }
        self.edges[number] = edge(&self.world);
    }

    /// A client connects if it has to, and asks for what is due.
    fn connect(&mut self, app: usize, edge: usize) {
        let app = &mut self.apps[app];
        let link = app.link.get_or_insert_with(|| Link {
            edge,
            feed: self.edges[edge].hub.feed(None),
            wire: VecDeque::new(),
        });
        for asked in app.subscriptions.ask(Instant::now(), usize::MAX) {
            let start = match asked.from {
                StartFrom::Cursor(cursor) => Start::Cursor(cursor),
                _ => Start::Tail,
            };
            let begun = link.feed.subscribe(asked.channel, start, None, 0);
            begun.expect("nothing is asked for twice on one connection");
        }
    }

    /// The edge writes.
    async fn pump(&mut self, app: usize, count: usize) -> bool {
        let Some(link) = &mut self.apps[app].link else {
            return false;
        };
        for written in 0..count {
            match timeout(Duration::from_millis(1), link.feed.next()).await {
                Ok(output) => link.wire.push_back(Frame::Out(output)),
                Err(_) => return written > 0,
            }
        }
        true
    }

    fn ping(&mut self, app: usize) {
        if let Some(link) = &mut self.apps[app].link {
            let positions = link.feed.positions().into_iter().collect();
            link.wire.push_back(Frame::Ping(positions));
        }
    }

    /// The client reads.
    fn read(&mut self, app: usize, count: usize) {
        let world = self.world.lock().unwrap();
        let app = &mut self.apps[app];
        for _ in 0..count {
            let Some(link) = &mut app.link else { return };
            let Some(frame) = link.wire.pop_front() else {
                return;
            };
            app.take(frame, &world);
            if self.random.random_bool(0.1) {
                app.store();
            }
        }
    }

    /// Everything works again: every client ends live, with everything.
    async fn settle(&mut self) {
        {
            let mut world = self.world.lock().unwrap();
            world.stream_up = true;
            world.archive_up = true;
        }
        for edge in 0..EDGES {
            self.tail(edge, usize::MAX);
        }
        for app in 0..APPS {
            for _ in 0..400 {
                self.connect(app, app % EDGES);
                self.pump(app, 4).await;
                self.ping(app);
                self.read(app, usize::MAX);
                // Whatever waits to be asked again becomes due.
                tokio::time::sleep(Duration::from_millis(50)).await;
                if self.is_done(app) {
                    break;
                }
            }
            let states = &self.apps[app].channels;
            assert!(self.is_done(app), "application {app} stays at {states:?}");
        }
    }

    fn is_done(&self, app: usize) -> bool {
        let world = self.world.lock().unwrap();
        let done = |(channel, state): (&Channel, &State)| {
            let missing = |at| world.after(channel_number(channel), at);
            state.live && state.position.is_some_and(|at| missing(at).is_empty())
        };
        self.apps[app].channels.iter().all(done)
    }
}

impl App {
    /// The line breaks, with everything that was on it.
    fn cut(&mut self) {
        self.link = None;
        self.subscriptions.disconnected();
        for state in self.channels.values_mut() {
            state.live = false;
        }
    }

    fn store(&mut self) {
        self.stored = self.channels.clone();
    }

    /// The process ends, and another one goes on with what was stored.
    fn restart(&mut self) {
        self.cut();
        self.channels = self.stored.clone();
        self.subscriptions = Subscriptions::default();
        for (channel, state) in &mut self.channels {
            state.live = false;
            self.subscriptions.add(Subscribe {
                channel: channel.clone(),
                from: state.position.map_or(StartFrom::Tail, StartFrom::Cursor),
                max_catchup: 0,
            });
        }
    }

    fn take(&mut self, frame: Frame, world: &World) {
        match frame {
            Frame::Ping(positions) => {
                for (channel, cursor) in self.subscriptions.ping(&positions) {
                    self.moves(&channel, cursor, world);
                }
            }
            Frame::Out(output) => self.take_output(output, world),
        }
    }

    fn take_output(&mut self, output: Output, world: &World) {
        match output {
            Output::Subscribed {
                channel,
                shard,
                cursor,
                head,
                ..
            } => {
                self.subscriptions.subscribed(&Subscribed {
                    channel: channel.clone(),
                    shard,
                    cursor,
                    head,
                    replay: false,
                    unread: 0,
                });
                self.moves(&channel, cursor, world);
                // "Store the position of `subscribed` at once."
                let state = self.channels[&channel].clone();
                self.stored.insert(channel, state);
            }
            Output::Refused { channel, .. } => {
                let later = Instant::now() + Duration::from_millis(100);
                self.subscriptions.postpone(&channel, later);
            }
            Output::Messages {
                channel,
                epoch,
                entries,
                ..
            } => {
                let messages = entries.iter().map(|entry| wire(entry.message())).collect();
                let mut batch = Messages {
                    channel: channel.clone(),
                    epoch,
                    messages,
                };
                let taken = self.subscriptions.messages(&mut batch);
                taken.expect("no gap that the client sees");
                for message in batch.messages {
                    self.apply(&channel, Cursor::new(epoch, message.seq), world);
                }
            }
            Output::Live { channel, cursor } => {
                self.subscriptions.live(&channel, cursor);
                self.moves(&channel, cursor, world);
                self.state(&channel).live = true;
            }
            Output::Reset { channel, reset } => {
                let position = self.channels[&channel].position.expect("a position");
                let justified = world.justifies(reset.reason, position);
                assert!(justified, "{reset:?} without need at {position}: {world:?}");
                self.subscriptions.reset(&Reset {
                    channel: channel.clone(),
                    reason: ResetReason::Expired,
                    head: reset.head,
                    earliest: None,
                });
                let state = self.state(&channel);
                state.position = Some(reset.head);
                state.live = false;
            }
            Output::Delayed { .. } => {}
            Output::Signal(signal) => panic!("nobody sent {signal:?}"),
        }
    }

    fn state(&mut self, channel: &Channel) -> &mut State {
        self.channels.get_mut(channel).expect("a channel of ours")
    }

    /// A message has its effect: the next one, once.
    fn apply(&mut self, channel: &Channel, cursor: Cursor, world: &World) {
        let state = self.state(channel);
        let position = state.position.expect("a position");
        let next = world.after(channel_number(channel), position);
        assert_eq!(next.first(), Some(&cursor), "after {position}");
        let before: BTreeSet<_> = state.applied.iter().map(order).collect();
        assert!(!before.contains(&order(&cursor)), "{cursor} a second time");
        state.applied.push(cursor);
        state.position = Some(cursor);
    }

    /// The position moves without a message: forward, and over none.
    fn moves(&mut self, channel: &Channel, cursor: Cursor, world: &World) {
        let state = self.state(channel);
        if let Some(position) = state.position {
            let known = |at: Cursor| (0..world.lives.len()).any(|it| epoch_of(it) == at.epoch);
            if known(position) && known(cursor) {
                assert!(
                    order(&position) <= order(&cursor),
                    "from {position} back to {cursor}"
                );
            }
            let missed = world.after(channel_number(channel), position);
            let skipped = missed.iter().find(|it| order(it) <= order(&cursor));
            assert_eq!(skipped, None, "moved from {position} to {cursor}");
        }
        state.position = Some(cursor);
    }
}

/// The model numbers its epochs in order.
fn order(cursor: &Cursor) -> (u64, u64) {
    (cursor.epoch.0, cursor.seq)
}

fn wire(message: &delivery::Message) -> Message {
    Message {
        seq: message.seq(),
        prev: message.prev,
        id: None,
        kind: "".into(),
        sender: None,
        time_ms: 0,
        data: Bytes::new(),
        traceparent: None,
    }
}
