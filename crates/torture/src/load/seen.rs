//! What one subscriber saw, kept as `docs/PROTOCOL.md` says, and noted.

use std::sync::Arc;
use std::time::Duration;

use protocol::frame::Messages;
use protocol::{Channel, Cursor, From as StartFrom, ServerBody, ServerFrame};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use torture::history::{ClientId, Recorder, What};

use super::Scene;
use super::progress::Progress;

/// Stored positions that a client can fall back to.
const PERSISTED_MAX: usize = 16;
/// How far it falls back at most.
const BACK_MAX: usize = 4;

/// One subscriber over all of its connections.
pub(crate) struct Seen {
    pub(crate) client: ClientId,
    pub(crate) channel: Channel,
    recorder: Recorder,
    progress: Arc<Progress>,
    position: Option<Cursor>,
    persisted: Vec<Cursor>,
    shard: u16,
    open: bool,
    live: bool,
    /// Each request is a session of its own, and between them the client counts as live.
    polls: bool,
    random: StdRng,
}

/// What to do after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    /// The subscription was refused for now.
    ComeBack,
}

impl Seen {
    pub(crate) fn new(client: ClientId, channel: Channel, scene: &Scene, seed: u64) -> Self {
        scene.progress.register(client, channel.clone());
        Self {
            client,
            channel,
            recorder: scene.recorder.clone(),
            progress: Arc::clone(&scene.progress),
            position: None,
            persisted: Vec::new(),
            shard: 0,
            open: false,
            live: false,
            polls: false,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// A client of many short sessions.
    pub(crate) fn polling(mut self) -> Self {
        self.polls = true;
        self
    }

    pub(crate) fn position(&self) -> Option<Cursor> {
        self.position
    }

    /// A session begins; says where from.
    pub(crate) fn begin(&mut self) -> StartFrom {
        self.end();
        self.open = true;
        self.recorder.note(What::Subscribe {
            client: self.client,
            channel: self.channel.clone(),
            from: self.position,
        });
        self.position.map_or(StartFrom::Tail, StartFrom::Cursor)
    }

    /// The session is over.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            self.recorder.note(What::Disconnected {
                client: self.client,
            });
        }
        self.live &= self.polls;
        self.stands();
    }

    /// The application ends without a word and comes back with what it had stored, sometimes out of an older backup.
    pub(crate) fn crash(&mut self) {
        self.end();
        let newest = self.persisted.len().saturating_sub(1);
        let back = match self.random.random_bool(0.4) {
            true => self.random.random_range(1..=BACK_MAX),
            false => 0,
        };
        // A client that stored nothing had not begun to listen either.
        let kept = newest.saturating_sub(back);
        self.position = self.persisted.get(kept).copied();
        self.persisted.truncate(kept + 1);
        self.stands();
    }

    /// Takes a frame of the running session.
    pub(crate) fn frame(&mut self, frame: &ServerFrame) -> Next {
        match &frame.body {
            ServerBody::Subscribed(subscribed) if subscribed.channel == self.channel => {
                self.shard = subscribed.shard;
                self.subscribed(subscribed.cursor);
            }
            ServerBody::Messages(batch) if batch.channel == self.channel => self.messages(batch),
            ServerBody::Live { channel, cursor } if *channel == self.channel => self.live(*cursor),
            ServerBody::Reset(reset) if reset.channel == self.channel => self.reset(reset),
            ServerBody::Ping { positions } => {
                if let Some(cursor) = positions.get(&self.shard).filter(|_| self.live) {
                    self.moved(*cursor);
                }
            }
            ServerBody::Error(error) if error.channel.as_ref() == Some(&self.channel) => {
                if !error.code.is_retryable() {
                    self.progress
                        .defect(format!("client {} got {error:?}", self.client));
                }
                // Without a request it only says that a log is away for now.
                if frame.req != 0 {
                    return Next::ComeBack;
                }
            }
            _ => {}
        }
        self.stands();
        Next::GoOn
    }

    pub(crate) fn subscribed(&mut self, cursor: Cursor) {
        self.recorder.note(What::Subscribed {
            client: self.client,
            cursor,
        });
        self.position = Some(cursor);
        // "Store the position of `subscribed` at once."
        self.persist();
        self.stands();
    }

    pub(crate) fn messages(&mut self, batch: &Messages) {
        for message in &batch.messages {
            let cursor = Cursor::new(batch.epoch, message.seq);
            let content = String::from_utf8_lossy(&message.data);
            let now = self.recorder.elapsed();
            self.recorder.note(What::Received {
                client: self.client,
                cursor,
                prev: message.prev,
                id: message.id.as_ref().map(|it| it.as_str().into()),
                content: content.as_ref().into(),
            });
            self.position = Some(cursor);
            if let Some(published) = published_at(&content) {
                self.progress.got(self.client, published, now);
            }
            if self.random.random_bool(0.1) {
                self.persist();
            }
        }
        self.stands();
    }

    pub(crate) fn live(&mut self, cursor: Cursor) {
        self.recorder.note(What::Live {
            client: self.client,
            cursor,
        });
        self.live = true;
        self.position = Some(cursor);
        self.stands();
    }

    pub(crate) fn reset(&mut self, reset: &protocol::frame::Reset) {
        self.recorder.note(What::Reset {
            client: self.client,
            reason: reset.reason,
            head: reset.head,
        });
        self.live = false;
        self.position = Some(reset.head);
        self.persist();
        self.stands();
    }

    /// A ping, or the id of an event without messages, names a position.
    pub(crate) fn moved(&mut self, cursor: Cursor) {
        let ahead = |at: Cursor| at.epoch != cursor.epoch || at.seq < cursor.seq;
        if self.position.is_none_or(ahead) {
            self.recorder.note(What::Moved {
                client: self.client,
                cursor,
            });
            self.position = Some(cursor);
            if self.random.random_bool(0.5) {
                self.persist();
            }
            self.stands();
        }
    }

    fn persist(&mut self) {
        let Some(cursor) = self.position else { return };
        self.recorder.note(What::Persisted {
            client: self.client,
            cursor,
        });
        self.persisted.push(cursor);
        if self.persisted.len() > PERSISTED_MAX {
            self.persisted.remove(0);
        }
    }

    fn stands(&self) {
        self.progress.stands(
            self.client,
            self.position,
            self.live && (self.open || self.polls),
        );
    }
}

/// When a message was first published, on the history's clock: its content says so, see [`content`].
fn published_at(content: &str) -> Option<Duration> {
    let (_, micros) = content.trim_matches('"').split_once(' ')?;
    micros.parse().ok().map(Duration::from_micros)
}

/// A payload that no other message has: the id and the time of its first try.
pub(crate) fn content(id: &str, at: Duration) -> String {
    format!("\"{id} {}\"", at.as_micros())
}
