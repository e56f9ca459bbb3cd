//! What delivery asks of the source of new messages.

use std::future::Future;

use protocol::{Cursor, Epoch};

use crate::message::Message;

/// What a tail reports.
#[derive(Debug)]
pub enum TailEvent {
    /// The tail begins, or goes on after an interruption. From here on
    /// messages follow without a gap after `after`. When `after` is not
    /// where the last event ended, messages in between were not seen.
    Started {
        /// The position after which messages follow.
        after: Cursor,
        /// The stream's last sequence when the tail started: once it is
        /// reached, the start has been caught up.
        last: u64,
    },
    /// The next messages, ascending.
    Messages {
        /// May be empty when only `through` moves.
        messages: Vec<Message>,
        /// The epoch of all of them.
        epoch: Epoch,
        /// Everything up to here has been reported; at least the last
        /// message's sequence.
        through: u64,
    },
}

/// An endless ordered feed of one shard's stream. It reconnects by itself.
pub trait Tail: Send {
    /// The next event; waits for as long as there is none. Dropping the
    /// future loses nothing.
    fn next(&mut self) -> impl Future<Output = TailEvent> + Send;
}
