//! A stored message, and its form on the wire.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use protocol::{
    Channel, Cursor, Encoding, MessageId, MessageRef, UserId, encode_message, encode_messages,
};
use smallvec::SmallVec;

/// A message as the stream holds it. Immutable once it has a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel it was published to.
    pub channel: Channel,
    /// Where it stands: epoch and stream sequence.
    pub position: Cursor,
    /// The sequence of the channel's message before this one where that is
    /// known, else 0.
    pub prev: u64,
    /// The publisher's id for it; `None` where a publisher gave none.
    pub id: Option<MessageId>,
    /// The application's type of the message, possibly empty.
    pub kind: Box<str>,
    /// The user who published it; `None` for services.
    pub sender: Option<UserId>,
    /// When the stream stored it, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The payload as it was published.
    pub data: Bytes,
    /// The W3C `traceparent` that the publisher sent.
    pub traceparent: Option<Box<str>>,
}

impl Message {
    /// The stream sequence.
    pub fn seq(&self) -> u64 {
        self.position.seq
    }
}

/// A message in a log, shared by everybody who reads it. It is encoded at
/// most once per encoding, when the first reader wants it.
#[derive(Debug)]
pub struct Entry {
    message: Message,
    /// As an element of a batch, by encoding.
    elements: [OnceLock<Bytes>; 2],
    /// As a whole frame of its own, by encoding: what live delivery sends
    /// nearly always, so it is shared by a whole fan-out.
    frames: [OnceLock<Bytes>; 2],
}

/// Charged for an entry on top of its texts: the entry itself, its places in
/// the window's two indexes and the allocator's share of each.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>() + 64;

impl Entry {
    /// An entry that nobody has encoded yet.
    pub fn new(message: Message) -> Self {
        Self {
            message,
            elements: Default::default(),
            frames: Default::default(),
        }
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The stream sequence.
    pub fn seq(&self) -> u64 {
        self.message.seq()
    }

    /// What a window charges for it: as if it had been encoded once as an
    /// element and once as a frame, so that the bound holds under delivery.
    pub fn charged_bytes(&self) -> usize {
        let message = &self.message;
        let id = message.id.as_ref().map_or(0, |id| id.as_str().len());
        let texts = message.data.len() + message.kind.len() + id;
        ENTRY_OVERHEAD_BYTES + 3 * texts
    }

    /// The message as an element of a `messages` frame.
    pub fn element(&self, encoding: Encoding) -> &Bytes {
        self.elements[encoding as usize].get_or_init(|| encode_message(encoding, &self.as_wire()))
    }

    /// The message as a `messages` frame of its own.
    pub fn frame(&self, encoding: Encoding) -> &Bytes {
        self.frames[encoding as usize].get_or_init(|| {
            let element = encode_message(encoding, &self.as_wire());
            encode_messages(
                encoding,
                &self.message.channel,
                self.message.position.epoch,
                std::iter::once(&element),
            )
        })
    }

    fn as_wire(&self) -> MessageRef<'_> {
        let message = &self.message;
        MessageRef {
            seq: message.seq(),
            prev: message.prev,
            id: message.id.as_ref().map(MessageId::as_str),
            kind: &message.kind,
            sender: message.sender.as_ref().map(UserId::as_str),
            time_ms: message.time_ms,
            data: &message.data,
            traceparent: message.traceparent.as_deref(),
        }
    }
}

/// Entries on their way to a connection. Live delivery hands out one at a
/// time, which needs no memory of its own.
pub type Entries = SmallVec<[Arc<Entry>; 1]>;

/// One `messages` frame of several entries of a channel, or the shared frame
/// of a single one. A batch that several connections get one after the other
/// is joined once: readers that are woken together find the same messages.
pub fn encode_batch(encoding: Encoding, entries: &[Arc<Entry>]) -> Bytes {
    match entries {
        [] => Bytes::new(),
        [entry] => entry.frame(encoding).clone(),
        [first, .., last] => {
            let batch = Batch {
                encoding,
                first: Arc::clone(first),
                last: Arc::clone(last),
                count: entries.len(),
            };
            RECENT.with_borrow_mut(|recent| recent.get_or_join(batch, entries))
        }
    }
}

/// Batches that each thread remembers: those of a few rooms that are busy at
/// the same time.
const RECENT_MAX: usize = 4;

/// Longer batches are pages of one client's replay: not worth their memory.
const RECENT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::default();
}

/// The batches that were joined last, newest first.
#[derive(Default)]
struct Recent(Vec<(Batch, Bytes)>);

/// Names a batch: the very entries, in one encoding.
struct Batch {
    encoding: Encoding,
    first: Arc<Entry>,
    last: Arc<Entry>,
    count: usize,
}

impl Batch {
    /// Between two entries of a channel lie always the same ones.
    fn is(&self, other: &Self) -> bool {
        self.encoding == other.encoding
            && self.count == other.count
            && Arc::ptr_eq(&self.first, &other.first)
            && Arc::ptr_eq(&self.last, &other.last)
    }
}

impl Recent {
    fn get_or_join(&mut self, batch: Batch, entries: &[Arc<Entry>]) -> Bytes {
        if let Some((_, frame)) = self.0.iter().find(|(known, _)| known.is(&batch)) {
            return frame.clone();
        }
        let message = batch.first.message();
        let (channel, epoch) = (&message.channel, message.position.epoch);
        let elements = entries.iter().map(|entry| entry.element(batch.encoding));
        let frame = encode_messages(batch.encoding, channel, epoch, elements);
        if frame.len() <= RECENT_BYTES_MAX {
            self.0.truncate(RECENT_MAX - 1);
            self.0.insert(0, (batch, frame.clone()));
        }
        frame
    }
}
