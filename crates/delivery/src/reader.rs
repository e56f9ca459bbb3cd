//! The state machine of a reader: a position in a channel's log.
//!
//! A reader inside the window walks it; at the head it waits; below the
//! floor it asks for pages of the log until it is inside. The caller does
//! what a [`Step`] says and feeds the answer back. No lock, no clock, no I/O.

use std::sync::Arc;

use protocol::{Channel, Cursor};

use crate::log::{Page, PageError, PageRequest};
use crate::message::{Entries, Entry};
use crate::window::{ReadLimit, WindowRead, WindowState};

/// Why continuity could not be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// Messages after the cursor may have left every log.
    Expired,
    /// The cursor is of an epoch whose rest is not known.
    Epoch,
    /// The cursor is ahead of what the stream ever held.
    Ahead,
    /// More messages were missed than the client wants replayed.
    TooFarBehind,
}

/// An explicit break of continuity; the reader goes on at `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: ResetReason,
    /// Where the reader goes on.
    pub head: Cursor,
    /// The oldest position that could still be replayed, where known.
    pub earliest: Option<Cursor>,
}

/// What to do next for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Messages were put out.
    Deliver {
        /// Whether to step again; else the window wakes the reader when there
        /// is more.
        again: bool,
    },
    /// The reader reached the head for the first time, at this position.
    Live(Cursor),
    /// Nothing to do until the window wakes the channel's readers.
    Wait,
    /// Ask the log for this page, then call [`Reader::on_page`] or
    /// [`Reader::on_page_error`].
    ReadLog(PageRequest),
    /// The position is ahead of the window. Ask the stream for its head,
    /// then call [`Reader::on_head`].
    ConfirmHead,
}

/// What became of a log's refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Continuity is broken; the reader stands at the reset's head.
    Reset(Reset),
    /// Ask again later.
    Retry,
}

/// What became of the stream's answer about its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadVerdict {
    /// The window will get there: wait until its head reaches this sequence.
    WaitFor(u64),
    /// The stream never held the position.
    Reset(Reset),
}

/// Where a subscription stands in its channel's log.
#[derive(Debug, Clone)]
pub struct Reader {
    position: Cursor,
    live: bool,
}

impl Reader {
    /// A reader that has seen everything up to `position`.
    pub fn new(position: Cursor) -> Self {
        Self {
            position,
            live: false,
        }
    }

    /// Everything up to here has been put out.
    pub fn position(&self) -> Cursor {
        self.position
    }

    /// Whether the live marker has been put out.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// One step against the window. Messages go to `out`.
    pub fn step<W>(
        &mut self,
        channel: &Channel,
        window: &WindowState<W>,
        limit: ReadLimit,
        out: &mut Entries,
    ) -> Step {
        match window.read(channel, self.position, limit, out) {
            WindowRead::Messages { through, more } => {
                self.position.seq = through;
                let again = more || !self.live;
                Step::Deliver { again }
            }
            WindowRead::AtHead(seq) => {
                self.position.seq = seq;
                if self.live {
                    return Step::Wait;
                }
                self.live = true;
                Step::Live(self.position)
            }
            WindowRead::Below | WindowRead::OtherEpoch => Step::ReadLog(PageRequest {
                channel: channel.clone(),
                after: self.position,
                max_messages: limit.messages,
                max_bytes: limit.bytes,
            }),
            WindowRead::Ahead => Step::ConfirmHead,
        }
    }

    /// Takes a page of the log. `head` is the window's: what the log holds
    /// beyond it is left for the window to deliver, so that a reader never
    /// overtakes the edge. Returns whether the position moved; where it did
    /// not, the log has nothing yet and is to be asked again later.
    pub fn on_page(&mut self, page: Page, head: Cursor, out: &mut Entries) -> bool {
        let before = self.position;
        let reach = if self.position.epoch == head.epoch {
            head.seq
        } else {
            u64::MAX
        };
        for message in page.messages {
            if message.position.epoch != before.epoch || message.seq() <= self.position.seq {
                continue;
            }
            if message.seq() > reach {
                break;
            }
            self.position.seq = message.seq();
            out.push(Arc::new(Entry::new(message)));
        }
        self.position.seq = self.position.seq.max(page.through.min(reach));
        // Where the window still stands in the closed epoch, the page's end may
        // be beyond it; then the rest comes with a later page.
        if let Some(next) = page.next_epoch.filter(|_| page.through <= reach) {
            self.position = Cursor::new(next, 0);
        }
        self.position != before
    }

    /// Takes a log's refusal.
    pub fn on_page_error(&mut self, error: &PageError, head: Cursor) -> Verdict {
        match error {
            PageError::Unavailable { .. } => Verdict::Retry,
            PageError::Expired { earliest } => {
                Verdict::Reset(self.reset(ResetReason::Expired, head, Some(*earliest)))
            }
            // The stream was recreated and this edge's window is about to
            // hear of it: its head would be the old one.
            PageError::UnknownEpoch if self.position.epoch == head.epoch => Verdict::Retry,
            PageError::UnknownEpoch => Verdict::Reset(self.reset(ResetReason::Epoch, head, None)),
        }
    }

    /// Takes the stream's head, confirmed by its leader.
    pub fn on_head(&mut self, confirmed: Cursor, head: Cursor) -> HeadVerdict {
        let never_held =
            confirmed.epoch == self.position.epoch && confirmed.seq < self.position.seq;
        if never_held {
            return HeadVerdict::Reset(self.reset(ResetReason::Ahead, head, None));
        }
        HeadVerdict::WaitFor(self.position.seq)
    }

    /// Breaks continuity: the reader goes on at `head`, and tells again when
    /// it is live there.
    pub fn reset(&mut self, reason: ResetReason, head: Cursor, earliest: Option<Cursor>) -> Reset {
        self.position = head;
        self.live = false;
        Reset {
            reason,
            head,
            earliest,
        }
    }
}
