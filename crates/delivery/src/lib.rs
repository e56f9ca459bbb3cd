//! Everybody reads a log, and live is reading at the tail.
//!
//! - [`message`]: a stored message, encoded at most once per encoding;
//! - [`log`]: what delivery asks of the places that keep older messages;
//! - [`tail`]: what delivery asks of the source of new messages;
//! - [`publish`]: what the edge asks of the place that stores new messages;
//! - [`archive`]: moving a stream into the archive.

pub mod archive;
pub mod log;
pub mod message;
pub mod publish;
pub mod tail;

pub use log::{Log, Page, PageError, PageRequest, Stream};
pub use message::Message;
pub use tail::{Tail, TailEvent};
