//! Makes histories that keep the contract: a small, correct Rejoin in memory, and clients that come, go and forget.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::frame::ResetReason;
use protocol::{Channel, Cursor, Epoch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use torture::checker::{Stored, Truth};
use torture::history::{Event, Message, What};

const CHANNELS: usize = 2;
const CLIENTS: usize = 4;

/// What history to make.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    /// Whether streams are destroyed.
    pub(crate) epochs: bool,
    /// Whether retention takes messages.
    pub(crate) retention: bool,
}

/// A history and what is stored at its end.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) events: Vec<Event>,
    pub(crate) truth: Truth,
}

struct Life {
    epoch: Epoch,
    log: Vec<Stored>,
    last: u64,
    /// Where it was destroyed: `Some(complete)`.
    ended: Option<bool>,
    /// What the archive has.
    archived: u64,
}

struct Client {
    channel: Channel,
    position: Option<(usize, u64)>,
    persisted: Vec<(usize, u64)>,
    connected: bool,
    live: bool,
}

struct Maker {
    random: StdRng,
    events: Vec<Event>,
    lives: Vec<Life>,
    clients: Vec<Client>,
    /// Of the present life.
    forgotten: u64,
    messages: u64,
}

pub(crate) fn channel(number: usize) -> Channel {
    Channel::parse(&format!("room:{number}")).unwrap()
}

pub(crate) fn run(shape: &Shape) -> Run {
    let client = |number: usize| Client {
        channel: channel(number % CHANNELS),
        position: None,
        persisted: Vec::new(),
        connected: false,
        live: false,
    };
    let mut maker = Maker {
        random: StdRng::seed_from_u64(shape.seed),
        events: Vec::new(),
        lives: vec![life(0)],
        clients: (0..CLIENTS).map(client).collect(),
        forgotten: 0,
        messages: 0,
    };
    for _ in 0..shape.steps {
        maker.step(shape);
    }
    for number in 0..CLIENTS {
        maker.connect(number);
        while maker.deliver(number) {}
    }
    maker.finish()
}

fn life(number: u64) -> Life {
    Life {
        epoch: Epoch(100 + number),
        log: Vec::new(),
        last: 0,
        ended: None,
        archived: 0,
    }
}

impl Maker {
    fn step(&mut self, shape: &Shape) {
        let number = self.random.random_range(0..CLIENTS);
        match self.random.random_range(0..100) {
            0..45 => self.publish(),
            45..70 => {
                self.deliver(number);
            }
            70..78 => self.connect(number),
            78..84 => self.persist(number),
            84..90 => self.disconnect(number),
            90..94 => self.ping(number),
            94..97 if shape.epochs => self.end_life(),
            97..100 if shape.retention => self.forget(),
            _ => self.publish(),
        }
    }

    fn note(&mut self, what: What) {
        let at = Duration::from_millis(self.events.len() as u64);
        self.events.push(Event { at, what });
    }

    fn cursor(&self, (life, seq): (usize, u64)) -> Cursor {
        Cursor::new(self.lives[life].epoch, seq)
    }

    fn head(&self) -> (usize, u64) {
        (self.lives.len() - 1, self.lives.last().unwrap().last)
    }

    fn publish(&mut self) {
        self.messages += 1;
        let id: Arc<str> = format!("id-{}", self.messages).into();
        let content: Arc<str> = format!("content-{}", self.messages).into();
        let message = Message {
            channel: channel(self.random.random_range(0..CHANNELS)),
            id,
        };
        let mut stored: Option<Cursor> = None;
        for _ in 0..self.random.random_range(1..4) {
            self.note(What::Publish {
                message: message.clone(),
                content: content.clone(),
            });
            let outcome = self.random.random_range(0..10);
            if outcome == 0 && stored.is_none() {
                self.note(What::Refused {
                    message: message.clone(),
                });
                continue;
            }
            if outcome > 2 && stored.is_none() {
                let head = self.head();
                // Others use the numbers between.
                let seq = head.1 + self.random.random_range(1..3);
                let cursor = Cursor::new(self.lives[head.0].epoch, seq);
                let life = &mut self.lives[head.0];
                life.last = seq;
                life.log.push(Stored {
                    channel: message.channel.clone(),
                    cursor,
                    content: content.clone(),
                });
                stored = Some(cursor);
            }
            match stored {
                Some(cursor) if outcome > 4 => {
                    self.note(What::Acked {
                        message: message.clone(),
                        cursor,
                    });
                }
                _ => self.note(What::Unknown {
                    message: message.clone(),
                }),
            }
        }
    }

    fn connect(&mut self, number: usize) {
        let client = &self.clients[number];
        if client.connected {
            return;
        }
        // The newest stored position, or an older one that a backup brought back.
        let newest = client.persisted.len().saturating_sub(1);
        let back = self.random.random_range(0..3_usize);
        let from = client.persisted.get(newest.saturating_sub(back)).copied();
        let head = self.head();
        let client_id = number as u32;
        let channel = client.channel.clone();
        let start = from.unwrap_or(head);
        let client = &mut self.clients[number];
        client.connected = true;
        client.live = false;
        client.position = Some(start);
        if from.is_none() {
            // It stores where it starts at once.
            client.persisted.push(start);
        }
        let (from, cursor) = (from.map(|it| self.cursor(it)), self.cursor(start));
        self.note(What::Subscribe {
            client: client_id,
            channel,
            from,
        });
        self.note(What::Subscribed {
            client: client_id,
            cursor,
        });
    }

    /// Hands the next thing to a client; false if it has everything.
    fn deliver(&mut self, number: usize) -> bool {
        let client = &self.clients[number];
        let (Some(position), true) = (client.position, client.connected) else {
            return false;
        };
        let head = self.head();
        let present = position.0 == head.0;
        let broken = self.lives[position.0..]
            .iter()
            .any(|it| it.ended == Some(false));
        let reason = match () {
            () if broken => Some(ResetReason::Epoch),
            () if position.0 < head.0 && self.forgotten > 0 => Some(ResetReason::Expired),
            () if present && position.1 < self.forgotten => Some(ResetReason::Expired),
            () => None,
        };
        let client_id = number as u32;
        if let Some(reason) = reason {
            self.clients[number].position = Some(head);
            self.clients[number].persisted.push(head);
            self.clients[number].live = false;
            let head = self.cursor(head);
            self.note(What::Reset {
                client: client_id,
                reason,
                head,
            });
            return true;
        }
        let life = &self.lives[position.0];
        let mut of_channel = life.log.iter().filter(|it| it.channel == client.channel);
        let before = |it: &&Stored| it.cursor.seq <= position.1;
        let prev = of_channel.clone().take_while(before).last();
        let prev = prev.map_or(0, |it| it.cursor.seq);
        if let Some(next) = of_channel.find(|it| it.cursor.seq > position.1).cloned() {
            self.clients[number].position = Some((position.0, next.cursor.seq));
            let prev = if self.random.random() { prev } else { 0 };
            self.note(What::Received {
                client: client_id,
                cursor: next.cursor,
                prev,
                id: Some(next.content.replace("content", "id").into()),
                content: next.content,
            });
            return true;
        }
        if !present {
            self.clients[number].position = Some((position.0 + 1, 0));
            return true;
        }
        if self.clients[number].live {
            return false;
        }
        self.clients[number].live = true;
        self.clients[number].position = Some(head);
        let cursor = self.cursor(head);
        self.note(What::Live {
            client: client_id,
            cursor,
        });
        true
    }

    fn ping(&mut self, number: usize) {
        while self.deliver(number) {}
        let client = &self.clients[number];
        if !client.connected || !client.live {
            return;
        }
        let head = self.head();
        self.clients[number].position = Some(head);
        let cursor = self.cursor(head);
        self.note(What::Moved {
            client: number as u32,
            cursor,
        });
    }

    fn persist(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(position) = client.position.filter(|_| client.connected) else {
            return;
        };
        client.persisted.push(position);
        let cursor = self.cursor(position);
        self.note(What::Persisted {
            client: number as u32,
            cursor,
        });
    }

    fn disconnect(&mut self, number: usize) {
        if self.clients[number].connected {
            self.clients[number].connected = false;
            self.note(What::Disconnected {
                client: number as u32,
            });
        }
    }

    fn end_life(&mut self) {
        if self.lives.len() >= 4 || self.forgotten > 0 {
            return;
        }
        let archived: bool = self.random.random();
        let number = self.lives.len() as u64;
        let life = self.lives.last_mut().unwrap();
        life.ended = Some(archived);
        life.archived = match archived {
            true => life.last,
            false => self.random.random_range(0..=life.last),
        };
        let epoch = life.epoch;
        self.lives.push(self::life(number));
        self.note(What::EpochEnded { epoch, archived });
    }

    fn forget(&mut self) {
        let (life, last) = self.head();
        if last == 0 {
            return;
        }
        self.forgotten = self.random.random_range(self.forgotten..=last);
        let through = self.cursor((life, self.forgotten));
        self.note(What::Forgotten { through });
    }

    fn finish(self) -> Run {
        let mut truth = Truth {
            epochs: self.lives.iter().map(|it| it.epoch).collect(),
            stream: Vec::new(),
            stream_first: HashMap::new(),
            archive: None,
        };
        let mut archive = Vec::new();
        let present = self.lives.len() - 1;
        for (number, life) in self.lives.iter().enumerate() {
            let forgotten = if number == present { self.forgotten } else { 0 };
            if self.forgotten > 0 && number < present {
                continue;
            }
            let through = life.ended.map_or(u64::MAX, |_| life.archived);
            let kept = |it: &&Stored| it.cursor.seq > forgotten && it.cursor.seq <= through;
            archive.extend(life.log.iter().filter(kept).cloned());
        }
        let life = &self.lives[present];
        // Some of it was trimmed.
        let first = self.forgotten.max(life.last / 3) + 1;
        truth.stream_first.insert(life.epoch, first);
        let in_stream = |it: &&Stored| it.cursor.seq >= first;
        truth.stream = life.log.iter().filter(in_stream).cloned().collect();
        truth.archive = Some(archive);
        Run {
            events: self.events,
            truth,
        }
    }
}
