//! The state machine of a window: no lock, no clock, no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use protocol::{Channel, Cursor, Epoch, UserId};
use slab::Slab;

use crate::message::{Entries, Entry, Message};

/// What the window says about the messages of a channel after a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowRead {
    /// Messages were handed out.
    Messages {
        /// The reader stands at this sequence now.
        through: u64,
        /// Whether there are more.
        more: bool,
    },
    /// Nothing newer: the reader stands at the head, this sequence.
    AtHead(u64),
    /// The position is below the floor: the log has to be read.
    Below,
    /// The position is above the head.
    Ahead,
    /// The position is of another epoch.
    OtherEpoch,
}

/// How much one read may hand out.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// Messages, at least 1.
    pub messages: usize,
    /// Payload bytes; a first message that is larger on its own passes.
    pub bytes: usize,
}

/// The newest part of one shard's stream: every message after `floor` and up
/// to `head`, indexed by channel, bounded in bytes. `W` wakes a reader.
#[derive(Debug)]
pub struct WindowState<W> {
    epoch: Epoch,
    floor: u64,
    head: u64,
    bytes: usize,
    max_bytes: usize,
    order: VecDeque<Arc<Entry>>,
    channels: HashMap<Channel, ChannelLog<W>>,
    /// In all channels together.
    readers: usize,
    head_waiters: Vec<(u64, W)>,
}

/// The messages of one channel inside the window, and who reads it. Exists
/// while it has either.
#[derive(Debug)]
struct ChannelLog<W> {
    entries: VecDeque<Arc<Entry>>,
    /// The channel's newest sequence where that is known, also after it was
    /// evicted; else 0.
    last_seq: u64,
    readers: Slab<W>,
}

impl<W> Default for ChannelLog<W> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            last_seq: 0,
            readers: Slab::new(),
        }
    }
}

/// A reader's place in a channel's list, to be given back on leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration(usize);

impl<W> WindowState<W> {
    /// An empty window after a position, which keeps at most `max_bytes`
    /// (and always the newest message).
    pub fn new(after: Cursor, max_bytes: usize) -> Self {
        Self {
            epoch: after.epoch,
            floor: after.seq,
            head: after.seq,
            bytes: 0,
            max_bytes,
            order: VecDeque::new(),
            channels: HashMap::new(),
            readers: 0,
            head_waiters: Vec::new(),
        }
    }

    /// Epoch and newest sequence.
    pub fn head(&self) -> Cursor {
        Cursor::new(self.epoch, self.head)
    }

    /// The window holds every message after this sequence.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// What the held messages are charged at.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages are held.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no message is held.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// When the oldest held message was stored, in milliseconds since the
    /// Unix epoch.
    pub fn oldest_time_ms(&self) -> Option<i64> {
        self.order.front().map(|entry| entry.message().time_ms)
    }

    /// How many channels have a place in the window.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// How many readers there are in all channels together.
    pub fn reader_count(&self) -> usize {
        self.readers
    }

    /// How many readers a channel has.
    pub fn reader_count_of(&self, channel: &Channel) -> usize {
        self.channels
            .get(channel)
            .map_or(0, |log| log.readers.len())
    }

    /// Adds the next messages, moves the head to `through` and evicts what
    /// no longer fits. Messages at or below the head were seen before and
    /// are skipped. `wake` is called for each reader of each channel that
    /// got a message, and for nobody else.
    pub fn append(&mut self, messages: Vec<Message>, through: u64, mut wake: impl FnMut(&W)) {
        for mut message in messages {
            let seq = message.seq();
            if seq <= self.head {
                continue;
            }
            // A lookup by reference first: the common case clones no name.
            let log = match self.channels.get_mut(&message.channel) {
                Some(log) => log,
                None => self.channels.entry(message.channel.clone()).or_default(),
            };
            message.prev = log.last_seq;
            let entry = Arc::new(Entry::new(message));
            self.bytes += entry.charged_bytes();
            log.last_seq = seq;
            log.entries.push_back(Arc::clone(&entry));
            for (_, reader) in &log.readers {
                wake(reader);
            }
            self.order.push_back(entry);
            self.head = seq;
        }
        self.head = self.head.max(through);
        self.evict();
        self.wake_head_waiters(wake);
    }

    /// Begins anew after a position that does not continue this window:
    /// forgets every message, keeps the readers and wakes them all.
    pub fn restart(&mut self, after: Cursor, mut wake: impl FnMut(&W)) {
        self.epoch = after.epoch;
        self.floor = after.seq;
        self.head = after.seq;
        self.bytes = 0;
        self.order.clear();
        self.channels.retain(|_, log| {
            log.entries.clear();
            log.last_seq = 0;
            for (_, reader) in &log.readers {
                wake(reader);
            }
            !log.readers.is_empty()
        });
        for (_, waiter) in self.head_waiters.drain(..) {
            wake(&waiter);
        }
    }

    /// Copies the channel's messages after `after` into `out`.
    pub fn read(
        &self,
        channel: &Channel,
        after: Cursor,
        limit: ReadLimit,
        out: &mut Entries,
    ) -> WindowRead {
        if after.epoch != self.epoch {
            return WindowRead::OtherEpoch;
        }
        if after.seq < self.floor {
            return WindowRead::Below;
        }
        if after.seq > self.head {
            return WindowRead::Ahead;
        }
        let Some(log) = self.channels.get(channel) else {
            return WindowRead::AtHead(self.head);
        };
        let start = log
            .entries
            .partition_point(|entry| entry.seq() <= after.seq);
        // At once, and not piece by piece; one needs no room.
        let most = limit.messages.clamp(1, log.entries.len().max(1));
        out.reserve((log.entries.len() - start).min(most));
        let mut bytes = 0;
        let mut taken = 0;
        for entry in log.entries.range(start..) {
            bytes += entry.message().data.len();
            if taken == limit.messages.max(1) || (taken > 0 && bytes > limit.bytes) {
                let through = out.last().map_or(after.seq, |last| last.seq());
                return WindowRead::Messages {
                    through,
                    more: true,
                };
            }
            out.push(Arc::clone(entry));
            taken += 1;
        }
        if taken == 0 {
            WindowRead::AtHead(self.head)
        } else {
            WindowRead::Messages {
                through: self.head,
                more: false,
            }
        }
    }

    /// How many messages of the channel follow a position, up to `limit`;
    /// `None` where the window does not reach back to it.
    pub fn count_after(&self, channel: &Channel, after: Cursor, limit: usize) -> Option<usize> {
        if after.epoch != self.epoch || after.seq < self.floor {
            return None;
        }
        let Some(log) = self.channels.get(channel) else {
            return Some(0);
        };
        let start = log
            .entries
            .partition_point(|entry| entry.seq() <= after.seq);
        Some((log.entries.len() - start).min(limit))
    }

    /// How many messages of the channel that others than `user` sent follow a
    /// position; `None` where the window does not reach back to it.
    pub fn count_of_others(
        &self,
        channel: &Channel,
        after: Cursor,
        user: &UserId,
    ) -> Option<usize> {
        if after.epoch != self.epoch || after.seq < self.floor {
            return None;
        }
        let Some(log) = self.channels.get(channel) else {
            return Some(0);
        };
        let start = log
            .entries
            .partition_point(|entry| entry.seq() <= after.seq);
        let of_others = |entry: &&Arc<Entry>| entry.message().sender.as_ref() != Some(user);
        Some(log.entries.range(start..).filter(of_others).count())
    }

    /// The position before the channel's `count` newest messages; `Err` with
    /// the number that the window holds where it holds fewer.
    pub fn before_last(&self, channel: &Channel, count: usize) -> Result<Cursor, usize> {
        let Some(index_from_end) = count.checked_sub(1) else {
            return Ok(self.head());
        };
        let Some(log) = self.channels.get(channel) else {
            return Err(0);
        };
        match log.entries.iter().nth_back(index_from_end) {
            Some(entry) => Ok(Cursor::new(self.epoch, entry.seq() - 1)),
            None => Err(log.entries.len()),
        }
    }

    /// The same for the newest messages at or before `through`; `None` where
    /// the window does not hold that position.
    pub fn before_last_through(
        &self,
        channel: &Channel,
        through: Cursor,
        count: usize,
    ) -> Option<Result<Cursor, usize>> {
        let held = self.floor..=self.head;
        if through.epoch != self.epoch || !held.contains(&through.seq) {
            return None;
        }
        let Some(index_from_end) = count.checked_sub(1) else {
            return Some(Ok(through));
        };
        let Some(log) = self.channels.get(channel) else {
            return Some(Err(0));
        };
        let end = log
            .entries
            .partition_point(|entry| entry.seq() <= through.seq);
        Some(match log.entries.range(..end).nth_back(index_from_end) {
            Some(entry) => Ok(Cursor::new(self.epoch, entry.seq() - 1)),
            None => Err(end),
        })
    }

    /// Adds a reader to a channel's list.
    pub fn register(&mut self, channel: &Channel, reader: W) -> Registration {
        let log = match self.channels.get_mut(channel) {
            Some(log) => log,
            None => self.channels.entry(channel.clone()).or_default(),
        };
        if log.readers.is_empty() {
            // Most channels have one reader: room for one, not for four.
            log.readers.reserve_exact(1);
        }
        self.readers += 1;
        Registration(log.readers.insert(reader))
    }

    /// Takes a reader off the list again.
    pub fn unregister(&mut self, channel: &Channel, registration: Registration) {
        let Some(log) = self.channels.get_mut(channel) else {
            return;
        };
        if log.readers.try_remove(registration.0).is_some() {
            self.readers -= 1;
        }
        if log.readers.is_empty() && log.entries.is_empty() {
            self.channels.remove(channel);
        } else if log.readers.is_empty() {
            log.readers = Slab::new();
        }
    }

    /// Who reads a channel.
    pub fn readers(&self, channel: &Channel) -> impl Iterator<Item = &W> {
        let readers = self.channels.get(channel).map(|log| &log.readers);
        readers.into_iter().flatten().map(|(_, reader)| reader)
    }

    /// Wakes `waiter` once the head reaches `seq`, or at a restart.
    pub fn wait_for_head(&mut self, seq: u64, waiter: W) {
        self.head_waiters.push((seq, waiter));
    }

    fn wake_head_waiters(&mut self, mut wake: impl FnMut(&W)) {
        let head = self.head;
        self.head_waiters.retain(|(seq, waiter)| {
            if *seq <= head {
                wake(waiter);
            }
            *seq > head
        });
    }

    fn evict(&mut self) {
        while self.bytes > self.max_bytes && self.order.len() > 1 {
            let Some(entry) = self.order.pop_front() else {
                return;
            };
            self.bytes -= entry.charged_bytes();
            self.floor = entry.seq();
            let channel = &entry.message().channel;
            let Some(log) = self.channels.get_mut(channel) else {
                continue;
            };
            log.entries.pop_front();
            if log.entries.is_empty() {
                if log.readers.is_empty() {
                    self.channels.remove(channel);
                } else {
                    log.entries = VecDeque::new();
                }
            }
        }
    }
}
