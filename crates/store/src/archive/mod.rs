//! The message archive.
//!
//! - [`ArchiveLog`]: reading it by channel and position ([`log`]);
//! - [`Sink`]: writing it ([`sink`]);
//! - [`check`]: comparing it with what it should hold.
//!
//! A page is one ordered walk over the time partitions: `bucket`, a
//! partition's first hour, never decreases with the sequence, so
//! `(bucket, seq)` is the stream's order, the index of a partition
//! (channel, epoch, bucket, seq) gives a channel's messages in it, and the
//! walk starts at the cursor's partition and stops at its limit.

pub mod check;
pub mod log;
pub mod sink;

mod copy;
pub(crate) mod epochs;
mod ids;
mod lookup;
mod page;
mod partitions;
mod past;
mod rows;

pub use log::ArchiveLog;
pub use sink::Sink;

pub(crate) use lookup::{IdLookup, IdQuestion, find};
