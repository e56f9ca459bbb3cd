//! Everybody reads a log, and live is reading at the tail.
//!
//! - [`message`]: a stored message, encoded at most once per encoding;
//! - [`window`]: the newest part of a shard's stream in memory;
//! - [`reader`]: a position in a channel's log, as a pure state machine;
//! - [`feed`]: the readers of one connection and the loop that drives them;
//! - [`hub`]: the windows of an edge and the logs below them;
//! - [`catch_up`]: which log gives what the window no longer holds;
//!
//! and what delivery asks of others:
//!
//! - [`log`]: of the places that keep older messages;
//! - [`tail`]: of the source of new messages;
//! - [`publish`]: of the place that stores new messages;
//! - [`archive`]: of both sides of moving a stream into the archive, and
//!   [`archiver`], the loop between them;
//! - [`members`], [`receipts`]: of the place that knows rooms and read state;
//! - [`access`]: of the place that knows which tokens were revoked;
//! - [`signal`]: of the transport of what is never stored;
//! - [`fleet`]: of the transport between edges.

pub mod access;
pub mod archive;
pub mod archiver;
pub mod catch_up;
pub mod feed;
pub mod fleet;
pub mod hub;
pub mod log;
pub mod members;
pub mod message;
pub mod publish;
pub mod reader;
pub mod receipts;
pub mod signal;
pub mod stats;
pub mod tail;
pub mod window;

pub use feed::{Feed, Output, Place, Start, SubscribeError};
pub use hub::{Audience, DeliveryLimits, Hub};
pub use log::{Log, Page, PageError, PageRequest, Stream};
pub use message::{Entries, Entry, Message, encode_batch};
pub use reader::{Reset, ResetReason};
pub use tail::{Tail, TailEvent};
