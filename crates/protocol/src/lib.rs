//! The vocabulary of Rejoin: names, positions and frames, without any I/O.
//!
//! - [`Channel`], [`UserId`], [`MessageId`]: validated names ([`names`]);
//! - [`Epoch`], [`Cursor`]: positions in a channel's log ([`cursor`]).

pub mod cursor;
pub mod names;

pub use cursor::{Cursor, CursorError, Epoch};
pub use names::{Channel, MessageId, NameError, UserId};
