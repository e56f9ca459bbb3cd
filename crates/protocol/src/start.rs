//! Where a subscription starts.

use std::fmt;
use std::str::FromStr;

use crate::{Cursor, CursorError};

/// Where a subscription starts, one string everywhere (JSON, protobuf, query):
/// `tail`, `earliest`, `acked`, `last:<n>` or a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum From {
    /// New messages only.
    #[default]
    Tail,
    /// The oldest message that is still kept.
    Earliest,
    /// After what this device acknowledged as delivered; the tail if it never
    /// acknowledged anything.
    Acked,
    /// With the channel's newest messages, at most so many (at least 1).
    Last(u32),
    /// After this position.
    Cursor(Cursor),
}

/// A text that is not a [`From`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected tail, earliest, acked, last:<1 or more> or a cursor (<16 hexadecimal digits>-<sequence>)"
)]
pub struct FromError;

impl From {
    /// Parses the one canonical text form.
    pub fn parse(text: &str) -> Result<Self, FromError> {
        match text {
            "tail" => Ok(Self::Tail),
            "earliest" => Ok(Self::Earliest),
            "acked" => Ok(Self::Acked),
            other => match other.strip_prefix("last:") {
                Some(count) => parse_count(count).map(Self::Last),
                None => Cursor::parse(other)
                    .map(Self::Cursor)
                    .map_err(|CursorError| FromError),
            },
        }
    }
}

/// A decimal number of at least 1, without sign or leading zeros.
fn parse_count(text: &str) -> Result<u32, FromError> {
    let canonical = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if !canonical {
        return Err(FromError);
    }
    text.parse().map_err(|_| FromError)
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tail => f.write_str("tail"),
            Self::Earliest => f.write_str("earliest"),
            Self::Acked => f.write_str("acked"),
            Self::Last(count) => write!(f, "last:{count}"),
            Self::Cursor(cursor) => fmt::Display::fmt(cursor, f),
        }
    }
}

impl FromStr for From {
    type Err = FromError;
    fn from_str(text: &str) -> Result<Self, FromError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn the_canonical_texts_parse_and_print() {
        let cursor = Cursor::new(Epoch(255), 12);
        let all = [
            ("tail", From::Tail),
            ("earliest", From::Earliest),
            ("acked", From::Acked),
            ("last:1", From::Last(1)),
            ("last:4294967295", From::Last(u32::MAX)),
            ("00000000000000ff-12", From::Cursor(cursor)),
        ];
        for (text, from) in all {
            assert_eq!(From::parse(text), Ok(from), "{text}");
            assert_eq!(from.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bad = [
            "",
            "Tail",
            "head",
            "last",
            "last:",
            "last:0",
            "last:01",
            "last:+1",
            "last:-1",
            "last: 1",
            "last:4294967296",
            "ff-1",
            "00000000000000ff-12 ",
        ];
        for text in bad {
            assert_eq!(From::parse(text), Err(FromError), "{text:?} was accepted");
        }
    }
}
