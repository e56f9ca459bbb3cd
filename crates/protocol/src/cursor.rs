//! Positions in a log: an epoch and a sequence in it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One life of a stream. Within an epoch a sequence names one message for
/// ever; when a stream is recreated or restored from a backup, a new epoch
/// starts, so that a reused sequence is never mistaken for the old one.
///
/// Written as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A position in a channel's log: everything up to and including `seq` of
/// `epoch` has been seen. `seq` 0 is the start of the epoch.
///
/// Clients treat the text form, `<epoch>-<sequence>`, as opaque.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The life of the stream in which `seq` counts.
    pub epoch: Epoch,
    /// The last sequence seen.
    pub seq: u64,
}

/// A cursor that is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: expected <16 hexadecimal digits>-<decimal sequence>")]
pub struct CursorError;

impl Cursor {
    /// The position `seq` in `epoch`.
    pub fn new(epoch: Epoch, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Parses the one canonical text form; anything else is an error.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let (epoch, seq) = text.split_once('-').ok_or(CursorError)?;
        let canonical =
            seq == "0" || (seq.bytes().all(|b| b.is_ascii_digit()) && !seq.starts_with('0'));
        if !canonical {
            return Err(CursorError);
        }
        Ok(Self {
            epoch: Epoch::parse(epoch)?,
            seq: seq.parse().map_err(|_| CursorError)?,
        })
    }
}

impl Epoch {
    /// Parses 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(hex) {
            return Err(CursorError);
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| CursorError)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        Self::parse(text)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_form_parses() {
        let good = "00000000000000ff-12";
        assert_eq!(Cursor::parse(good).unwrap(), Cursor::new(Epoch(255), 12));
        let bad = [
            "",
            "-",
            "12",
            "ff-12",
            "00000000000000FF-12",
            "00000000000000ff-",
            "00000000000000ff-012",
            "00000000000000ff-+1",
            "00000000000000ff--1",
            "00000000000000ff-18446744073709551616",
            " 00000000000000ff-1",
        ];
        for text in bad {
            assert!(Cursor::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(epoch: u64, seq: u64) {
            let cursor = Cursor::new(Epoch(epoch), seq);
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,64}") {
            let _ = Cursor::parse(&text);
        }
    }
}
