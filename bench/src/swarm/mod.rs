//! Tens of thousands of clients in one thread: an epoll loop, one shared read buffer, frames built by hand.
//!
//! A client costs one read(2) and a search per wake-up, so that the load generator is not what is measured. Latency
//! is counted from when a message was **due**, not from when the generator got around to sending it, which corrects
//! for coordinated omission.

mod client;
mod dialect;
mod frame;
mod payload;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

pub(crate) use client::Spec;
use client::{Client, Heard, Phase};
pub(crate) use dialect::Dialect;
use dialect::Meaning;
use payload::{Payloads, payload};

/// Clients that are connecting at the same time: fewer than a listener's usual backlog, or the kernel drops attempts
/// and the client's next one is a second later.
const DIALING_MAX: usize = 512;

/// How often clients whose connection was ended before they were ready connect again.
const REDIAL: Duration = Duration::from_secs(5);

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Events taken at once.
const EVENTS_MAX: usize = 1024;

/// Slow clients read this much, this often: 1 kB/s.
const SLOW_BYTES: usize = 100;
const SLOW_TICK: Duration = Duration::from_millis(100);

/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

/// What has happened since the last [`Swarm::reset`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Clients that became ready.
    pub(crate) ready: usize,
    /// Messages received, by all clients together.
    pub(crate) deliveries: u64,
    /// Publishes acknowledged.
    pub(crate) acknowledged: u64,
    /// Refusals.
    pub(crate) refused: u64,
    /// Connections that ended although nobody here cut them.
    pub(crate) gone: usize,
    /// Of the newest refusal or end.
    pub(crate) complaint: Option<String>,
}

/// All clients of one measurement.
pub(crate) struct Swarm {
    dialect: Dialect,
    epoll: OwnedFd,
    clients: Vec<Client>,
    dialing: VecDeque<usize>,
    upgrading: usize,
    slow: Vec<usize>,
    slow_next: Instant,
    /// Sockets that stay open and are never read: to their servers, clients in a tunnel.
    abandoned: Vec<std::net::TcpStream>,
    buffer: Box<[u8]>,
    payloads: Payloads,
    begin: Instant,
    requests: u32,
    keep_numbers: bool,
    latency: Option<Histogram<u64>>,
    pub(crate) tally: Tally,
}

impl Swarm {
    pub(crate) fn new(dialect: Dialect) -> anyhow::Result<Self> {
        Ok(Self {
            dialect,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            dialing: VecDeque::new(),
            upgrading: 0,
            slow: Vec::new(),
            slow_next: Instant::now(),
            abandoned: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            payloads: Payloads::new(),
            begin: Instant::now(),
            requests: 1,
            keep_numbers: false,
            latency: None,
            tally: Tally::default(),
        })
    }

    /// Nanoseconds since the swarm was made; what messages are stamped with.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds a client that is away.
    pub(crate) fn add(&mut self, spec: Spec) -> usize {
        self.clients.push(Client::new(spec));
        self.clients.len() - 1
    }

    /// Sends a client to another server for its next connection.
    pub(crate) fn redirect(&mut self, index: usize, server: std::net::SocketAddr) {
        self.clients[index].spec.server = server;
    }

    /// Lets a client connect as soon as fewer than [`DIALING_MAX`] are at it.
    pub(crate) fn dial(&mut self, index: usize) {
        self.dialing.push_back(index);
    }

    /// From the moment it is ready the client reads 1 kB/s.
    pub(crate) fn make_slow(&mut self, index: usize) {
        self.clients[index].slow = true;
    }

    /// Cuts a client's connection.
    pub(crate) fn cut(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.stream = None;
        client.phase = Phase::Away;
    }

    /// Lets a client vanish without a word: its socket stays open and nobody answers there any more.
    pub(crate) fn vanish(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        client.phase = Phase::Away;
        if let Some(stream) = client.stream.take() {
            epoll::delete(&self.epoll, &stream)?;
            self.abandoned.push(stream);
        }
        Ok(())
    }

    /// Whether a client has no connection and makes none.
    pub(crate) fn is_away(&self, index: usize) -> bool {
        self.clients[index].phase == Phase::Away
    }

    /// How many of a client's own publishes were answered, one way or the other.
    pub(crate) fn answered_of(&self, index: usize) -> u64 {
        self.clients[index].answered
    }

    /// Begins to keep the numbers of messages, by client; forgets earlier ones.
    pub(crate) fn keep_numbers(&mut self) {
        self.keep_numbers = true;
        for client in &mut self.clients {
            client.numbers.clear();
        }
    }

    /// The numbers that a client got since.
    pub(crate) fn numbers_of(&self, index: usize) -> &[u32] {
        &self.clients[index].numbers
    }

    /// Begins a new count.
    pub(crate) fn reset(&mut self) {
        self.tally = Tally::default();
    }

    /// Begins to record latencies.
    pub(crate) fn record_latency(&mut self) -> anyhow::Result<()> {
        self.latency = Some(Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3)?);
        Ok(())
    }

    /// The latencies recorded since, in nanoseconds; ends the record.
    pub(crate) fn take_latency(&mut self) -> anyhow::Result<Histogram<u64>> {
        self.latency.take().context("no latency was recorded")
    }

    /// Publishes message `number` to a room through a client. Its latency counts from `due_ns`.
    pub(crate) fn publish(
        &mut self,
        index: usize,
        room: &str,
        number: u32,
        due_ns: u64,
    ) -> anyhow::Result<()> {
        self.requests += 1;
        let text = self
            .dialect
            .publish(self.requests, room, &payload(number, due_ns));
        let client = &mut self.clients[index];
        client.say(text.as_bytes());
        let waits = client.flush().context("the publisher's connection")?;
        if waits {
            self.watch(index, true)?;
        }
        Ok(())
    }

    /// Runs until `done`, at most for `timeout`. Whether it was done.
    pub(crate) fn run_until(
        &mut self,
        timeout: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            if done(self) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(Duration::from_millis(100)))?;
        }
    }

    /// Runs for some time.
    pub(crate) fn run_for(&mut self, duration: Duration) -> anyhow::Result<()> {
        self.run_until(duration, |_| false).map(|_| ())
    }

    /// Connects every client that is away and waits until all are ready.
    pub(crate) fn dial_all(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let away: Vec<usize> = (0..self.clients.len())
            .filter(|index| self.is_away(*index))
            .collect();
        let target = self.tally.ready + away.len();
        away.iter().for_each(|index| self.dial(*index));
        let end = Instant::now() + timeout;
        while !self.run_until(REDIAL, |swarm| swarm.tally.ready >= target)? {
            if Instant::now() >= end {
                let Tally {
                    ready, complaint, ..
                } = &self.tally;
                bail!(
                    "{ready} of {target} clients became ready in {timeout:?}; last complaint: {complaint:?}"
                );
            }
            // A server that was busy for too long has closed it; a client comes back.
            let again: Vec<usize> = away
                .iter()
                .copied()
                .filter(|index| self.is_away(*index) && !self.dialing.contains(index))
                .collect();
            again.into_iter().for_each(|index| self.dial(index));
        }
        Ok(())
    }

    /// Waits for events once and handles them.
    pub(crate) fn turn(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.dial_some()?;
        let mut patience = patience;
        if !self.slow.is_empty() {
            self.read_slowly();
            patience = patience.min(self.slow_next.saturating_duration_since(Instant::now()));
        }
        let timeout = Timespec::try_from(patience)?;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        ) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let index = usize::try_from(event.data.u64())?;
            // One that was cut while this batch was taken.
            if self.clients[index].stream.is_none() {
                continue;
            }
            let flags = event.flags;
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.read(index);
            }
            self.write(index, flags.contains(epoll::EventFlags::OUT))?;
        }
        Ok(())
    }

    fn dial_some(&mut self) -> anyhow::Result<()> {
        while self.upgrading < DIALING_MAX
            && let Some(index) = self.dialing.pop_front()
        {
            let client = &mut self.clients[index];
            if client.phase != Phase::Away {
                continue;
            }
            client.dial(index, self.dialect).context("connecting")?;
            self.upgrading += 1;
            let waits = client.flush().unwrap_or(true);
            if let Some(stream) = &client.stream {
                epoll::add(
                    &self.epoll,
                    stream,
                    epoll::EventData::new_u64(index as u64),
                    interest(waits),
                )?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while self.read_once(index, &mut buffer) {}
        self.buffer = buffer;
    }

    fn read_once(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let Self {
            dialect,
            clients,
            payloads,
            begin,
            keep_numbers,
            latency,
            tally,
            upgrading,
            slow,
            ..
        } = self;
        let client = &mut clients[index];
        let was_upgrading = matches!(client.phase, Phase::Upgrading | Phase::Introducing);
        let more = client.read(*dialect, buffer, |client, heard, text| match heard {
            Heard::Ready => {
                tally.ready += 1;
                if client.slow {
                    slow.push(index);
                }
            }
            Heard::Text(Meaning::Acknowledged) => {
                tally.acknowledged += 1;
                client.answered += 1;
            }
            Heard::Text(Meaning::Messages) => {
                let now =
                    (latency.is_some() && !client.slow).then(|| begin.elapsed().as_nanos() as u64);
                let count = payloads.each(text, |number, due_ns| {
                    if let (Some(histogram), Some(now)) = (latency.as_mut(), now) {
                        histogram.saturating_record(now.saturating_sub(due_ns));
                    }
                    if *keep_numbers {
                        client.numbers.push(number);
                    }
                });
                tally.deliveries += count as u64;
            }
            Heard::Text(_) => {
                tally.refused += 1;
                client.answered += 1;
                tally.complaint = Some(String::from_utf8_lossy(text).into_owned());
            }
            Heard::Gone(why) => {
                client.stream = None;
                client.phase = Phase::Away;
                tally.gone += 1;
                tally.complaint = Some(why);
            }
        });
        if was_upgrading && matches!(client.phase, Phase::Ready | Phase::Away) {
            *upgrading = upgrading.saturating_sub(1);
        }
        if client.slow
            && client.phase == Phase::Ready
            && let Some(stream) = &client.stream
        {
            // From now on it is read by the clock. Removing what was removed before is harmless.
            let _ = epoll::delete(&self.epoll, stream);
        }
        more && client.stream.is_some()
    }

    /// Writes what reading has brought about, and what waited.
    fn write(&mut self, index: usize, was_watched: bool) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        match client.flush() {
            Ok(waits) if waits != was_watched => self.watch(index, waits),
            Ok(_) => Ok(()),
            Err(error) => {
                client.stream = None;
                client.phase = Phase::Away;
                self.tally.gone += 1;
                self.tally.complaint = Some(error.to_string());
                Ok(())
            }
        }
    }

    fn watch(&mut self, index: usize, writable: bool) -> anyhow::Result<()> {
        let client = &self.clients[index];
        if let Some(stream) = client.stream.as_ref().filter(|_| !client.slow) {
            epoll::modify(
                &self.epoll,
                stream,
                epoll::EventData::new_u64(index as u64),
                interest(writable),
            )?;
        }
        Ok(())
    }

    fn read_slowly(&mut self) {
        if Instant::now() < self.slow_next {
            return;
        }
        self.slow_next += SLOW_TICK;
        let mut bytes = [0; SLOW_BYTES];
        for index in self.slow.clone() {
            self.read_once(index, &mut bytes);
        }
    }
}

fn interest(writable: bool) -> epoll::EventFlags {
    match writable {
        true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        false => epoll::EventFlags::IN,
    }
}
