//! A plain model of a stream with several lives and an archive behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use delivery::{Log, Message, Page, PageError, PageRequest, Stream};
use futures_util::future::{BoxFuture, FutureExt, ready};
use protocol::{Channel, Cursor, Epoch};

/// One life of the stream.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// Sequence and channel number, ascending.
    pub(crate) messages: Vec<(u64, usize)>,
    pub(crate) last: u64,
    /// Everything up to here is in the archive.
    pub(crate) archived: u64,
    /// The archive forgot everything up to here.
    pub(crate) expired: u64,
    /// The stream holds everything after this.
    pub(crate) trimmed: u64,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) lives: Vec<Life>,
    pub(crate) stream_up: bool,
    pub(crate) archive_up: bool,
    pub(crate) page_size: usize,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            lives: vec![Life::default()],
            stream_up: true,
            archive_up: true,
            page_size: 3,
        }
    }

    pub(crate) fn current(&mut self) -> &mut Life {
        self.lives.last_mut().unwrap()
    }

    pub(crate) fn head(&self) -> Cursor {
        let life = self.lives.last().unwrap();
        Cursor::new(epoch_of(self.lives.len() - 1), life.last)
    }

    pub(crate) fn publish(&mut self, channel: usize) {
        let life = self.current();
        life.last += 1;
        life.messages.push((life.last, channel));
    }

    fn life_of(&self, epoch: Epoch) -> Option<usize> {
        (0..self.lives.len()).find(|index| epoch_of(*index) == epoch)
    }

    /// Whether the archive holds a closed life to its end.
    fn is_complete(&self, life: usize) -> bool {
        self.lives[life].archived == self.lives[life].last
    }

    /// The truth: the channel's messages after a position, to the end.
    pub(crate) fn after(&self, channel: usize, position: Cursor) -> Vec<Cursor> {
        let Some(first) = self.life_of(position.epoch) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (index, life) in self.lives.iter().enumerate().skip(first) {
            let from = if index == first { position.seq } else { 0 };
            let wanted = life
                .messages
                .iter()
                .filter(|(seq, of)| *seq > from && *of == channel);
            found.extend(wanted.map(|(seq, _)| Cursor::new(epoch_of(index), *seq)));
        }
        found
    }

    /// Whether a reset of this reason is justified at this position.
    pub(crate) fn justifies(&self, reason: delivery::ResetReason, position: Cursor) -> bool {
        // The reader may have moved on through closed lives without a word.
        let ahead = |index: usize| {
            let own = if epoch_of(index) == position.epoch {
                position.seq
            } else {
                0
            };
            (&self.lives[index], own, index + 1 < self.lives.len())
        };
        let first = self.life_of(position.epoch);
        let rest = first.unwrap_or(0)..self.lives.len();
        match reason {
            delivery::ResetReason::Expired => {
                first.is_some() && rest.map(ahead).any(|(life, from, _)| from < life.expired)
            }
            delivery::ResetReason::Epoch => {
                let incomplete = |(life, from, closed): (&Life, u64, bool)| {
                    closed && (life.archived < life.last || from > life.last)
                };
                first.is_none() || rest.map(ahead).any(incomplete)
            }
            delivery::ResetReason::Ahead => self
                .life_of(position.epoch)
                .is_none_or(|index| position.seq > self.lives[index].last),
            delivery::ResetReason::TooFarBehind => true,
        }
    }

    fn page(&self, life: usize, from: u64, through: u64, request: &PageRequest) -> Page {
        let limit = self.page_size.min(request.max_messages);
        let channel = channel_number(&request.channel);
        let mut page = Page {
            messages: Vec::new(),
            through,
            next_epoch: None,
        };
        for (seq, of) in &self.lives[life].messages {
            if *of == channel && *seq > from && *seq <= through {
                if page.messages.len() == limit {
                    page.through = page.messages.last().unwrap().seq();
                    break;
                }
                page.messages
                    .push(message(Cursor::new(epoch_of(life), *seq), *of));
            }
        }
        page
    }

    fn archive_page(&self, request: &PageRequest) -> Result<Page, PageError> {
        if !self.archive_up {
            return Err(unavailable());
        }
        let index = self
            .life_of(request.after.epoch)
            .ok_or(PageError::UnknownEpoch)?;
        let life = &self.lives[index];
        let from = request.after.seq;
        if from < life.expired {
            return Err(PageError::Expired {
                earliest: Cursor::new(request.after.epoch, life.expired),
            });
        }
        let closed = index + 1 < self.lives.len();
        if closed && (!self.is_complete(index) || from > life.last) {
            return Err(PageError::UnknownEpoch);
        }
        let mut page = self.page(index, from, life.archived.max(from), request);
        if closed && page.through == life.last {
            page.next_epoch = Some(epoch_of(index + 1));
        }
        Ok(page)
    }

    fn stream_page(&self, request: &PageRequest) -> Result<Page, PageError> {
        if !self.stream_up {
            return Err(unavailable());
        }
        let head = self.head();
        if request.after.epoch != head.epoch {
            return Err(PageError::UnknownEpoch);
        }
        let life = self.lives.last().unwrap();
        if request.after.seq < life.trimmed {
            return Err(PageError::Expired {
                earliest: Cursor::new(head.epoch, life.trimmed),
            });
        }
        Ok(self.page(self.lives.len() - 1, request.after.seq, life.last, request))
    }

    /// The position before the newest `count` at or before `through`, within
    /// the current life.
    fn before_last(&self, channel: &Channel, through: Cursor, count: usize) -> Cursor {
        let life = self.lives.last().unwrap();
        let number = channel_number(channel);
        let of_channel = life
            .messages
            .iter()
            .filter(|(seq, of)| *of == number && *seq <= through.seq);
        let seqs: Vec<u64> = of_channel.map(|(seq, _)| *seq).collect();
        let epoch = self.head().epoch;
        match count {
            0 => Cursor::new(epoch, through.seq),
            _ => match seqs.len().checked_sub(count) {
                Some(index) => Cursor::new(epoch, seqs[index] - 1),
                None => Cursor::new(epoch, life.expired),
            },
        }
    }
}

fn unavailable() -> PageError {
    PageError::Unavailable {
        retry_after: Duration::from_millis(100),
        reason: "switched off".to_owned(),
    }
}

pub(crate) fn epoch_of(life: usize) -> Epoch {
    Epoch(1000 + life as u64)
}

pub(crate) fn channel(number: usize) -> Channel {
    Channel::parse(&format!("room:{number}")).unwrap()
}

pub(crate) fn channel_number(channel: &Channel) -> usize {
    channel.id().parse().unwrap()
}

pub(crate) fn message(position: Cursor, channel_number: usize) -> Message {
    Message {
        channel: channel(channel_number),
        position,
        prev: 0,
        id: None,
        kind: "".into(),
        sender: None,
        time_ms: 0,
        data: Bytes::from_static(b"1"),
        traceparent: None,
    }
}

/// The model's archive, as a log.
pub(crate) struct Archive(pub(crate) Arc<Mutex<World>>);
/// The model's stream, as a log.
pub(crate) struct LiveStream(pub(crate) Arc<Mutex<World>>);

impl Log for Archive {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        ready(self.0.lock().unwrap().archive_page(&request)).boxed()
    }
    fn earliest(&self, _channel: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        let world = self.0.lock().unwrap();
        let first = Cursor::new(world.head().epoch, world.lives.last().unwrap().expired);
        ready(if world.archive_up {
            Ok(first)
        } else {
            Err(unavailable())
        })
        .boxed()
    }
    fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        let world = self.0.lock().unwrap();
        let found = world.before_last(&channel, through, count);
        ready(if world.archive_up {
            Ok(found)
        } else {
            Err(unavailable())
        })
        .boxed()
    }
}

impl Log for LiveStream {
    fn page(&self, request: PageRequest) -> BoxFuture<'_, Result<Page, PageError>> {
        ready(self.0.lock().unwrap().stream_page(&request)).boxed()
    }
    fn earliest(&self, _channel: Channel) -> BoxFuture<'_, Result<Cursor, PageError>> {
        let world = self.0.lock().unwrap();
        ready(Ok(Cursor::new(
            world.head().epoch,
            world.lives.last().unwrap().trimmed,
        )))
        .boxed()
    }
    fn before_last(
        &self,
        channel: Channel,
        through: Cursor,
        count: usize,
    ) -> BoxFuture<'_, Result<Cursor, PageError>> {
        ready(Ok(self
            .0
            .lock()
            .unwrap()
            .before_last(&channel, through, count)))
        .boxed()
    }
}

impl Stream for LiveStream {
    fn head(&self, _shard: u16) -> BoxFuture<'_, Result<Cursor, PageError>> {
        let world = self.0.lock().unwrap();
        ready(if world.stream_up {
            Ok(world.head())
        } else {
            Err(unavailable())
        })
        .boxed()
    }
}
