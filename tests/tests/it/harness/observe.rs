//! What a subscriber saw, and whether that is what the contract says.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use client::{Closed, Connection};
use protocol::frame::{Message, Reset};
use protocol::{Channel, Cursor, ErrorCode, ServerBody, ServerFrame};
use tokio::time::timeout;

use super::SOON;

/// Reads frames of one connection and keeps what it saw of one channel.
pub(crate) struct Watch {
    channel: Channel,
    /// The position, kept as a client should.
    pub(crate) position: Option<Cursor>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) live: bool,
    pub(crate) resets: Vec<Reset>,
    /// Messages that came twice, out of order, or behind a hole that `prev` shows.
    pub(crate) defects: Vec<String>,
}

/// A message as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) cursor: Cursor,
    pub(crate) data: Bytes,
    pub(crate) id: Option<String>,
    pub(crate) prev: u64,
    /// Whether it came before `live`.
    pub(crate) replayed: bool,
}

impl fmt::Debug for Watch {
    /// Short: thousands of messages tell less than the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("position", &self.position)
            .field("live", &self.live)
            .field("seen", &self.seen.len())
            .field("last", &self.seen.last())
            .field("resets", &self.resets)
            .field("defects", &self.defects)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(channel: &Channel) -> Self {
        Self {
            channel: channel.clone(),
            position: None,
            seen: Vec::new(),
            live: false,
            resets: Vec::new(),
            defects: Vec::new(),
        }
    }

    /// The same subscriber, about to come back: its position stays, what it saw goes.
    pub(crate) fn away(&mut self) {
        self.seen.clear();
        self.live = false;
    }

    /// Reads until a condition holds.
    pub(crate) async fn until(
        &mut self,
        connection: &mut Connection,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) {
        let reading = async {
            while !holds(self) {
                match connection.next().await {
                    Ok(frame) => self.take(&frame),
                    Err(closed) => panic!("{closed} before {what}: {self:?}"),
                }
            }
        };
        if timeout(SOON, reading).await.is_err() {
            panic!("not in time: {what}: {self:?}");
        }
    }

    /// Reads until the channel is live.
    pub(crate) async fn until_live(&mut self, connection: &mut Connection) {
        self.until(connection, "live", |watch| watch.live).await;
    }

    /// Reads until so many messages were seen.
    pub(crate) async fn until_seen(&mut self, connection: &mut Connection, count: usize) {
        let what = format!("{count} messages");
        self.until(connection, &what, |watch| watch.seen.len() >= count)
            .await;
    }

    /// Reads until the edge closes the connection.
    pub(crate) async fn until_closed(&mut self, connection: &mut Connection) -> Closed {
        let reading = async {
            loop {
                match connection.next().await {
                    Ok(frame) => self.take(&frame),
                    Err(closed) => return closed,
                }
            }
        };
        timeout(SOON, reading).await.expect("the edge closes")
    }

    /// Reads for a while, to see that nothing comes.
    pub(crate) async fn quiet(&mut self, connection: &mut Connection, time: Duration) {
        let before = self.seen.len();
        let reading = async {
            loop {
                let frame = connection.next().await.expect("the connection stays");
                self.take(&frame);
            }
        };
        let _elapsed = timeout(time, reading).await;
        assert_eq!(
            self.seen.len(),
            before,
            "more came: {:?}",
            &self.seen[before..]
        );
    }

    /// Takes a frame.
    pub(crate) fn take(&mut self, frame: &ServerFrame) {
        match &frame.body {
            ServerBody::Subscribed(subscribed) if subscribed.channel == self.channel => {
                self.position = Some(subscribed.cursor);
            }
            ServerBody::Messages(batch) if batch.channel == self.channel => {
                for message in &batch.messages {
                    self.message(Cursor::new(batch.epoch, message.seq), message);
                }
            }
            ServerBody::Live { channel, cursor } if *channel == self.channel => {
                if self.live {
                    self.defects.push("a second live".to_owned());
                }
                let behind = self
                    .position
                    .filter(|it| it.epoch == cursor.epoch && it.seq > cursor.seq);
                if let Some(position) = behind {
                    self.defects
                        .push(format!("live at {cursor} behind {position}"));
                }
                self.live = true;
                self.position = Some(*cursor);
            }
            ServerBody::Reset(reset) if reset.channel == self.channel => {
                self.resets.push(reset.clone());
                self.position = Some(reset.head);
                self.live = false;
            }
            // A log is away for the moment, and the subscription waits for it.
            ServerBody::Error(error) if frame.req == 0 && error.code == ErrorCode::Unavailable => {}
            ServerBody::Error(error) => self.defects.push(format!("{error:?}")),
            _ => {}
        }
    }

    fn message(&mut self, cursor: Cursor, message: &Message) {
        match self.position {
            None => self.defects.push(format!("{cursor} before subscribed")),
            Some(position) if position.epoch == cursor.epoch => {
                if cursor.seq <= position.seq {
                    self.defects
                        .push(format!("{cursor} again, or late, after {position}"));
                }
                if message.prev > position.seq {
                    let prev = message.prev;
                    self.defects
                        .push(format!("{prev} is missing before {cursor}"));
                }
            }
            Some(_) => {}
        }
        self.position = Some(cursor);
        self.seen.push(Seen {
            cursor,
            data: message.data.clone(),
            id: message.id.as_ref().map(ToString::to_string),
            prev: message.prev,
            replayed: !self.live,
        });
    }

    /// The payloads that were seen, as text.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |seen: &Seen| {
            String::from_utf8_lossy(&seen.data)
                .trim_matches('"')
                .to_owned()
        };
        self.seen.iter().map(text).collect()
    }

    /// Fails the test unless exactly these texts came, in this order, with no defect and no reset.
    #[track_caller]
    pub(crate) fn assert_exactly(&self, expected: &[String]) {
        assert_eq!(self.defects, [""; 0], "of {} messages", self.seen.len());
        assert_eq!(self.resets, []);
        let texts = self.texts();
        if texts != expected {
            let missing: Vec<_> = expected
                .iter()
                .filter(|it| !texts.contains(it))
                .take(5)
                .collect();
            let extra: Vec<_> = texts
                .iter()
                .filter(|it| !expected.contains(it))
                .take(5)
                .collect();
            panic!(
                "{} came instead of {}; missing {missing:?}…, extra {extra:?}…",
                texts.len(),
                expected.len()
            );
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(SOON * 2, waiting).await.is_err() {
        panic!("not in time: {what}");
    }
}
