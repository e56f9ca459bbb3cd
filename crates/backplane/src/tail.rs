//! New messages as they are stored: one ephemeral consumer per shard, read in
//! order and replaced whenever it is in doubt.

mod open;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use delivery::{Message, Tail, TailEvent};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Cursor, Epoch};
use tokio::sync::watch;

use crate::api::ApiError;
use crate::connect::Inner;
use crate::direct::{self, Wanted};
use crate::pull::{Broken, Delivered, Heard, Pull};
use crate::shard::{Shard, StreamState};

use open::{OpenError, Opened, Opening};

/// Most messages of one event, so that the first of a burst is not kept
/// waiting for the last.
const EVENT_MAX_MESSAGES: usize = 256;

/// And most payload bytes.
const EVENT_MAX_BYTES: usize = 1 << 20;

/// Where a tail begins when nothing ties it to a position: at first, and
/// whenever the stream has become another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailStart {
    /// With what is stored from now on.
    Head,
    /// Far enough back to fill a window.
    Fill {
        /// About this many bytes as the stream counts them.
        budget_bytes: u64,
        /// And nothing older than this.
        max_age: Option<Duration>,
    },
}

/// The feed of one shard. It repairs itself for ever: after an interruption it
/// goes on after the last message it reported, and says so.
pub struct StreamTail {
    inner: Arc<Inner>,
    shard: u16,
    start: TailStart,
    /// Everything up to here has been reported.
    position: Option<Cursor>,
    /// The newest message reported: its sequence and time.
    witness: Option<(u64, i64)>,
    /// Replacements in a row that brought nothing new.
    fruitless: u32,
    state: State,
    queued: VecDeque<TailEvent>,
}

enum State {
    /// Kept between calls, so that a caller who often drops the future of
    /// [`Tail::next`] does not start over each time.
    Opening(BoxFuture<'static, Result<Opened, OpenError>>),
    Reading(Box<Session>),
}

/// A consumer being read.
struct Session {
    pull: Pull,
    consumer: String,
    epoch: Epoch,
    /// Everything up to here has been reported, or is in `held`.
    through: u64,
    states: watch::Receiver<Option<StreamState>>,
    disturbances: watch::Receiver<u64>,
    /// Messages that wait for `check`.
    held: Vec<Message>,
    check: Option<BoxFuture<'static, Result<Verdict, Broken>>>,
    /// Whether the last idle check found a message that should have come.
    overdue: bool,
}

/// What a question to the stream's leader has shown.
enum Verdict {
    /// What lies between the messages was removed on purpose.
    Whole,
    /// There is nothing more up to here.
    NothingUpTo(u64),
    /// There is a message that has not come yet.
    Overdue,
}

impl StreamTail {
    pub(crate) fn new(inner: Arc<Inner>, shard: u16, start: TailStart) -> Self {
        let mut tail = Self {
            inner,
            shard,
            start,
            position: None,
            witness: None,
            fruitless: 0,
            state: State::Opening(std::future::pending().boxed()),
            queued: VecDeque::new(),
        };
        tail.state = tail.opening(None);
        tail
    }

    /// Begins to make a consumer in place of the one that was.
    fn opening(&self, replaced: Option<String>) -> State {
        let opening = Opening {
            inner: self.inner.clone(),
            shard: self.shard,
            start: self.start,
            position: self.position,
            witness: self.witness,
            fruitless: self.fruitless,
            replaced,
        };
        State::Opening(opening.open().boxed())
    }

    fn replace(&mut self, why: &Broken, replaced: Option<String>) {
        let stream = &self.inner.shard(self.shard).stream;
        tracing::info!(stream, %why, "replacing the tail's consumer");
        self.inner.counters.tail_restarts.increment();
        self.fruitless = self.fruitless.saturating_add(1);
        self.state = self.opening(replaced);
    }

    /// Notes and queues what a new consumer starts with.
    fn opened(&mut self, opened: Opened) {
        let Opened {
            session,
            after,
            last,
            first,
        } = opened;
        let epoch = after.epoch;
        if self.position.is_none_or(|position| position != after) {
            // What was reported before may be another copy's.
            self.witness = None;
        }
        tracing::debug!(%after, last, session.consumer, "the tail starts");
        self.queued.push_back(TailEvent::Started { after, last });
        let through = session.through;
        if let Some(first) = first {
            self.fruitless = 0;
            self.queued.push_back(TailEvent::Messages {
                messages: first.into_iter().collect(),
                epoch,
                through,
            });
        }
        self.position = Some(Cursor::new(epoch, through));
        self.state = State::Reading(session);
    }
}

impl Tail for StreamTail {
    async fn next(&mut self) -> TailEvent {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return event;
            }
            match &mut self.state {
                State::Opening(opening) => match opening.await {
                    Ok(opened) => self.opened(opened),
                    Err(error) => {
                        let stream = &self.inner.shard(self.shard).stream;
                        tracing::info!(stream, %error, "the tail is not back yet");
                        self.fruitless = self.fruitless.saturating_add(1);
                        self.state = self.opening(error.abandoned);
                    }
                },
                State::Reading(session) => {
                    let read = session.next(&self.inner, self.shard).await;
                    match read {
                        Ok((messages, through)) => {
                            let epoch = session.epoch;
                            self.position = Some(Cursor::new(epoch, through));
                            if let Some(last) = messages.last() {
                                self.fruitless = 0;
                                self.witness = Some((last.seq(), last.time_ms));
                            }
                            return TailEvent::Messages {
                                messages,
                                epoch,
                                through,
                            };
                        }
                        Err(why) => {
                            let replaced = std::mem::take(&mut session.consumer);
                            self.replace(&why, Some(replaced));
                        }
                    }
                }
            }
        }
    }
}

impl Session {
    /// The next messages and the position that they reach. Dropping the
    /// future loses nothing.
    async fn next(
        &mut self,
        inner: &Arc<Inner>,
        shard: u16,
    ) -> Result<(Vec<Message>, u64), Broken> {
        loop {
            if let Some(check) = &mut self.check {
                let verdict = check.await;
                self.check = None;
                match verdict? {
                    Verdict::Whole => return Ok((std::mem::take(&mut self.held), self.through)),
                    Verdict::NothingUpTo(seq) if seq > self.through => {
                        self.through = seq;
                        return Ok((Vec::new(), seq));
                    }
                    Verdict::NothingUpTo(_) => self.overdue = false,
                    Verdict::Overdue if std::mem::replace(&mut self.overdue, true) => {
                        return Err(Broken::OutOfOrder);
                    }
                    Verdict::Overdue => {}
                }
            }
            let heard = tokio::select! {
                biased;
                // First, so that nothing is reported under an epoch that is
                // known to have ended.
                why = changed(&mut self.states, &mut self.disturbances, self.epoch) => {
                    return Err(why);
                }
                heard = self.pull.next() => heard?,
            };
            match heard {
                Heard::Quiet => self.check_idle(inner, shard),
                Heard::Message(first) => {
                    let from = self.through;
                    let hole = self.drain(inner, first)?;
                    let shard_of = inner.shard(shard);
                    shard_of.saw(self.through);
                    if !shard_of.tell(Cursor::new(self.epoch, self.through)) {
                        return Err(Broken::Ended("the stream is another one".into()));
                    }
                    match hole {
                        None => return Ok((std::mem::take(&mut self.held), self.through)),
                        Some(_) => self.check_hole(inner, shard, from),
                    }
                }
            }
        }
    }

    /// Takes a message and all that have arrived behind it. Returns whether
    /// sequences are missing between them.
    fn drain(&mut self, inner: &Inner, first: Delivered) -> Result<Option<()>, Broken> {
        let mut hole = None;
        let mut bytes = 0;
        let mut taken = 0;
        let mut next = Some(first);
        while let Some(delivered) = next.take() {
            let stored = delivered.stored;
            if stored.seq <= self.through {
                return Err(Broken::OutOfOrder);
            }
            if stored.seq > self.through + 1 {
                hole = Some(());
            }
            self.through = stored.seq;
            taken += 1;
            bytes += stored.data.len();
            self.held.extend(stored.decode(&inner.names, self.epoch));
            if taken >= EVENT_MAX_MESSAGES || bytes >= EVENT_MAX_BYTES {
                break;
            }
            if let Some(Heard::Message(delivered)) = self.pull.ready() {
                next = Some(delivered);
            }
        }
        inner.counters.tail_messages.add(taken as u64);
        self.overdue = false;
        Ok(hole)
    }

    /// Sequences are missing after `from`: removed from inside the stream, or
    /// trimmed away before this tail had seen them?
    fn check_hole(&mut self, inner: &Arc<Inner>, shard: u16, from: u64) {
        let (inner, epoch) = (inner.clone(), self.epoch);
        self.check = Some(
            async move {
                let state = ask(&inner, inner.shard(shard), epoch).await?;
                if state.first > from + 1 {
                    return Err(Broken::Ended("it fell behind what the stream keeps".into()));
                }
                Ok(Verdict::Whole)
            }
            .boxed(),
        );
    }

    /// Nothing comes, although the stream is known to reach further: either
    /// the rest was removed, or it should have come.
    fn check_idle(&mut self, inner: &Arc<Inner>, shard: u16) {
        let known = inner.shard(shard).known();
        if known.is_none_or(|state| state.last <= self.through) {
            return;
        }
        let (inner, epoch, through) = (inner.clone(), self.epoch, self.through);
        self.check = Some(
            async move {
                let shard = inner.shard(shard);
                let state = ask(&inner, shard, epoch).await?;
                let captured = inner.names.captured(shard.number);
                let wanted = Wanted::NextOf(&captured, through + 1);
                let next = direct::leader_get(&inner, shard, wanted).await;
                Ok(match next.map_err(unanswered)? {
                    // The leader has nothing between here and the last
                    // sequence that it had named before.
                    None => Verdict::NothingUpTo(state.last),
                    Some(_) => Verdict::Overdue,
                })
            }
            .boxed(),
        );
    }
}

async fn ask(inner: &Inner, shard: &Shard, epoch: Epoch) -> Result<StreamState, Broken> {
    let state = inner.fresh(shard).await.map_err(unanswered)?;
    if state.epoch != epoch {
        return Err(Broken::Ended("the stream is another one".into()));
    }
    Ok(state)
}

fn unanswered(error: ApiError) -> Broken {
    Broken::Ended(error.to_string())
}

/// Resolves when the consumer is in doubt although it may go on delivering.
async fn changed(
    states: &mut watch::Receiver<Option<StreamState>>,
    disturbances: &mut watch::Receiver<u64>,
    epoch: Epoch,
) -> Broken {
    let other = |state: &Option<StreamState>| state.is_some_and(|state| state.epoch != epoch);
    tokio::select! {
        Ok(_) = states.wait_for(other) => Broken::Ended("the stream is another one".into()),
        Ok(()) = disturbances.changed() => Broken::Ended("the stream has a new leader".into()),
        else => Broken::ConnectionLost,
    }
}
