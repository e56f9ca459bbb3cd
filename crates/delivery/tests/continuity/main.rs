//! Contract points 5 to 8 under random interleavings of publishing, window
//! eviction, archiving, trimming, retention, outages, tail restarts, new
//! epochs, and readers that come, dawdle and go, against a plain model.
//!
//! The real window, reader, feed and catch-up run; only the two logs and the
//! tail are models.

mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use delivery::{DeliveryLimits, Feed, Hub, Output, Start, Tail, TailEvent};
use proptest::prelude::*;
use protocol::Cursor;
use tokio::sync::mpsc;
use world::{Archive, LiveStream, World, channel, channel_number, epoch_of, message};

const CHANNELS: usize = 3;
const READERS: usize = 3;
/// Small enough that a few messages overflow the window.
const WINDOW_BYTES: usize = 3_000;

#[derive(Debug, Clone)]
enum Op {
    Publish {
        channel: usize,
    },
    /// The tail hands the window this many messages.
    Tail {
        messages: usize,
    },
    /// The tail was interrupted, and goes on where it was or further on.
    TailRestart {
        skip: bool,
    },
    Archive {
        messages: u64,
    },
    TrimStream {
        messages: u64,
    },
    ExpireArchive {
        messages: u64,
    },
    NewEpoch {
        archived: bool,
    },
    SetStream {
        up: bool,
    },
    SetArchive {
        up: bool,
    },
    Subscribe {
        reader: usize,
        channel: usize,
        start: StartKind,
        max_catchup: Option<usize>,
    },
    Unsubscribe {
        reader: usize,
    },
    /// The client takes this many outputs.
    Take {
        reader: usize,
        outputs: usize,
    },
}

#[derive(Debug, Clone)]
enum StartKind {
    Tail,
    Earliest,
    Last(usize),
    /// A position in some life, possibly ahead of it.
    At {
        life: usize,
        seq: u64,
    },
    /// Where this reader's last subscription ended.
    Resume,
    UnknownEpoch,
}

fn start_kind() -> impl Strategy<Value = StartKind> {
    prop_oneof![
        1 => Just(StartKind::Tail),
        1 => Just(StartKind::Earliest),
        1 => (1..5usize).prop_map(StartKind::Last),
        4 => (0..3usize, 0..30u64).prop_map(|(life, seq)| StartKind::At { life, seq }),
        4 => Just(StartKind::Resume),
        1 => Just(StartKind::UnknownEpoch),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..CHANNELS).prop_map(|channel| Op::Publish { channel }),
        6 => (1..6usize).prop_map(|messages| Op::Tail { messages }),
        1 => any::<bool>().prop_map(|skip| Op::TailRestart { skip }),
        4 => (1..8u64).prop_map(|messages| Op::Archive { messages }),
        3 => (1..8u64).prop_map(|messages| Op::TrimStream { messages }),
        1 => (1..4u64).prop_map(|messages| Op::ExpireArchive { messages }),
        1 => any::<bool>().prop_map(|archived| Op::NewEpoch { archived }),
        1 => any::<bool>().prop_map(|up| Op::SetStream { up }),
        1 => any::<bool>().prop_map(|up| Op::SetArchive { up }),
        5 => (0..READERS, 0..CHANNELS, start_kind(), prop_oneof![3 => Just(None), 1 => (0..6usize).prop_map(Some)])
            .prop_map(|(reader, channel, start, max_catchup)| Op::Subscribe { reader, channel, start, max_catchup }),
        2 => (0..READERS).prop_map(|reader| Op::Unsubscribe { reader }),
        8 => (0..READERS, 1..6usize).prop_map(|(reader, outputs)| Op::Take { reader, outputs }),
    ]
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

/// One client: its feed, and what it must see next.
struct Client {
    feed: Feed,
    channel: usize,
    subscribed: bool,
    /// Everything up to here was delivered; `None` until the start is told.
    position: Option<Cursor>,
    live: bool,
    last_position: Option<Cursor>,
    resets: usize,
}

struct Run {
    world: Arc<Mutex<World>>,
    hub: Hub,
    tail: mpsc::UnboundedSender<TailEvent>,
    /// How far the tail has told the window.
    told: Cursor,
    clients: Vec<Client>,
}

impl Run {
    fn new() -> Self {
        let world = Arc::new(Mutex::new(World::new()));
        let limits = DeliveryLimits {
            window_bytes: WINDOW_BYTES,
            subscriptions: 4,
            batch_messages: 4,
            batch_bytes: 1000,
        };
        let archive = Arc::new(Archive(Arc::clone(&world)));
        let hub = Hub::new(
            1,
            Some(archive),
            Arc::new(LiveStream(Arc::clone(&world))),
            limits,
        );
        let (tail, events) = mpsc::unbounded_channel();
        let window = Arc::clone(&hub.windows()[0]);
        tokio::spawn(async move { delivery::window::fill(Script(events), &window).await });
        let told = Cursor::new(epoch_of(0), 0);
        tail.send(TailEvent::Started {
            after: told,
            last: 0,
        })
        .unwrap();
        let client = |feed| Client {
            feed,
            channel: 0,
            subscribed: false,
            position: None,
            live: false,
            last_position: None,
            resets: 0,
        };
        let clients = (0..READERS).map(|_| client(hub.feed(None))).collect();
        Self {
            world,
            hub,
            tail,
            told,
            clients,
        }
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Take { reader, outputs } => {
                for _ in 0..outputs {
                    if !self.take(reader, Duration::from_millis(1)).await {
                        break;
                    }
                }
            }
            op => self.change(op),
        }
        // Let the window's task run.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }

    fn change(&mut self, op: Op) {
        let mut world = self.world.lock().unwrap();
        match op {
            Op::Publish { channel } => world.publish(channel),
            Op::Archive { messages } => {
                let life = world.current();
                life.archived = (life.archived + messages).min(life.last);
            }
            Op::TrimStream { messages } => {
                let life = world.current();
                life.trimmed = (life.trimmed + messages).min(life.archived);
            }
            Op::ExpireArchive { messages } => {
                let life = world.current();
                // Retention passes what left the stream, never the hot part.
                life.expired = (life.expired + messages).min(life.trimmed);
            }
            Op::NewEpoch { archived } => {
                if world.lives.len() < 4 {
                    if archived {
                        world.current().archived = world.current().last;
                    }
                    world.lives.push(world::Life::default());
                }
            }
            Op::SetStream { up } => world.stream_up = up,
            Op::SetArchive { up } => world.archive_up = up,
            Op::Tail { messages } => {
                drop(world);
                self.run_tail(messages);
            }
            Op::TailRestart { skip } => {
                let mut after = self.told;
                let head = world.head();
                if after.epoch != head.epoch {
                    after = Cursor::new(head.epoch, 0);
                } else if skip {
                    after.seq = (after.seq + 2).min(head.seq).max(world.current().trimmed);
                }
                self.told = after;
                self.tail
                    .send(TailEvent::Started {
                        after,
                        last: head.seq,
                    })
                    .unwrap();
            }
            Op::Subscribe {
                reader,
                channel: number,
                start,
                max_catchup,
            } => {
                drop(world);
                self.subscribe(reader, number, start, max_catchup);
            }
            Op::Unsubscribe { reader } => {
                drop(world);
                self.unsubscribe(reader);
            }
            Op::Take { .. } => unreachable!("taken care of by apply"),
        }
    }

    fn run_tail(&mut self, count: usize) {
        let mut world = self.world.lock().unwrap();
        let head = world.head();
        if self.told.epoch != head.epoch {
            self.told = Cursor::new(head.epoch, world.current().trimmed);
            self.tail
                .send(TailEvent::Started {
                    after: self.told,
                    last: head.seq,
                })
                .unwrap();
        }
        let next = world
            .current()
            .messages
            .iter()
            .filter(|(seq, _)| *seq > self.told.seq)
            .take(count);
        let messages: Vec<_> = next
            .map(|(seq, of)| message(Cursor::new(head.epoch, *seq), *of))
            .collect();
        let through = messages.last().map_or(self.told.seq, |last| last.seq());
        self.told.seq = through;
        self.tail
            .send(TailEvent::Messages {
                messages,
                epoch: head.epoch,
                through,
            })
            .unwrap();
    }

    fn subscribe(
        &mut self,
        reader: usize,
        number: usize,
        kind: StartKind,
        max_catchup: Option<usize>,
    ) {
        let client = &mut self.clients[reader];
        if client.subscribed {
            return;
        }
        let resume = client.last_position.filter(|_| client.channel == number);
        let start = match kind {
            StartKind::Tail => Start::Tail,
            StartKind::Earliest => Start::Earliest,
            StartKind::Last(count) => Start::Last(count),
            StartKind::At { life, seq } => Start::Cursor(Cursor::new(epoch_of(life), seq)),
            StartKind::Resume => resume.map_or(Start::Tail, Start::Cursor),
            StartKind::UnknownEpoch => Start::Cursor(Cursor::new(epoch_of(77), 1)),
        };
        client
            .feed
            .subscribe(channel(number), start, max_catchup, 7)
            .unwrap();
        client.channel = number;
        client.subscribed = true;
        client.position = None;
        client.live = false;
    }

    fn unsubscribe(&mut self, reader: usize) {
        let client = &mut self.clients[reader];
        if client.subscribed {
            assert!(client.feed.unsubscribe(&channel(client.channel)));
            client.subscribed = false;
            client.last_position = client.position;
        }
    }

    /// Takes one output and checks it. Returns whether there was one.
    async fn take(&mut self, reader: usize, patience: Duration) -> bool {
        let client = &mut self.clients[reader];
        let Ok(output) = tokio::time::timeout(patience, client.feed.next()).await else {
            return false;
        };
        let world = self.world.lock().unwrap();
        assert!(client.subscribed, "an output after unsubscribe: {output:?}");
        assert_eq!(channel_number(output.channel()), client.channel);
        match output {
            Output::Subscribed { cursor, tag, .. } => {
                assert_eq!(tag, 7);
                assert!(client.position.is_none(), "subscribed twice");
                client.position = Some(cursor);
            }
            Output::Refused { .. } => {
                assert!(client.position.is_none(), "refused after it was subscribed");
                client.subscribed = false;
            }
            Output::Messages { entries, epoch, .. } => {
                let position = client.position.expect("messages before subscribed");
                let truth = world.after(client.channel, position);
                let got: Vec<Cursor> = entries
                    .iter()
                    .map(|entry| entry.message().position)
                    .collect();
                assert!(got.iter().all(|cursor| cursor.epoch == epoch));
                assert_eq!(
                    got,
                    truth[..got.len().min(truth.len())],
                    "not the next messages after {position}"
                );
                for pair in entries.windows(2) {
                    let prev = pair[1].message().prev;
                    assert!(prev == 0 || prev == pair[0].seq(), "prev skips a message");
                }
                let prev = entries[0].message().prev;
                assert!(
                    epoch != position.epoch || prev <= position.seq,
                    "prev would look like a gap"
                );
                client.position = got.last().copied();
            }
            Output::Live { cursor, .. } => {
                let position = client.position.expect("live before subscribed");
                assert!(!client.live, "live twice");
                let missed = world.after(client.channel, position);
                // The model numbers its epochs in order.
                let before_live =
                    |seen: &&Cursor| (seen.epoch, seen.seq) <= (cursor.epoch, cursor.seq);
                let skipped: Vec<_> = missed.iter().take_while(before_live).collect();
                assert!(
                    skipped.is_empty(),
                    "live at {cursor}, but {skipped:?} were not delivered"
                );
                client.live = true;
                client.position = Some(cursor);
            }
            Output::Reset { reset, .. } => {
                let position = client.position.expect("reset before subscribed");
                let justified = world.justifies(reset.reason, position);
                assert!(
                    justified,
                    "a reset without need: {reset:?} at {position} in {world:?}"
                );
                client.resets += 1;
                client.live = false;
                client.position = Some(reset.head);
            }
            Output::Delayed { .. } => {}
            Output::Signal(signal) => panic!("nobody sent {signal:?}"),
        }
        for (_, reached) in client.feed.positions() {
            let position = client.position.expect("a live subscription was told");
            if client.live && reached.epoch == position.epoch {
                let undelivered = world.after(client.channel, position);
                let passed = undelivered
                    .iter()
                    .any(|seen| seen.epoch == reached.epoch && seen.seq <= reached.seq);
                assert!(!passed, "the ping's position passes an undelivered message");
                client.position = Some(Cursor::new(position.epoch, position.seq.max(reached.seq)));
            }
        }
        true
    }

    /// Everything works again: every reader ends live, with everything seen.
    async fn settle(&mut self) {
        {
            let mut world = self.world.lock().unwrap();
            world.stream_up = true;
            world.archive_up = true;
        }
        self.run_tail(usize::MAX);
        for reader in 0..READERS {
            while self.take(reader, Duration::from_secs(10)).await {}
            let client = &self.clients[reader];
            if client.subscribed {
                let world = self.world.lock().unwrap();
                let position = client.position.expect("never subscribed");
                let missing = world.after(client.channel, position);
                assert!(missing.is_empty(), "lost: {missing:?} after {position}");
                assert!(client.live, "never live at {position}");
            }
        }
        self.clients.clear();
        let stats = self.hub.windows()[0].stats();
        assert!(
            stats.channels <= stats.messages,
            "a channel without readers or messages stayed behind"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_sees_everything_once_in_order(ops in prop::collection::vec(op(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            tokio::task::yield_now().await;
            for op in ops {
                run.apply(op).await;
            }
            run.settle().await;
        });
    }
}
