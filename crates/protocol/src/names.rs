//! Names that arrive from outside and are valid once constructed.
//!
//! A channel's two parts become two tokens of a backplane subject, so the
//! alphabet leaves out everything that has a meaning there (`.`, `*`, `>`,
//! white space) and everything that could end a header line (CR, LF, NUL).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest part of a channel name, and longest user id, in bytes.
pub const NAME_PART_MAX_BYTES: usize = 64;

/// Longest message id, in bytes: a UUID takes 36, foreign ids get some room.
pub const MESSAGE_ID_MAX_BYTES: usize = 128;

/// The namespace that holds one inbox channel per user.
pub const INBOX_NAMESPACE: &str = "user";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A channel without the `:` between namespace and id.
    #[error("a channel is written namespace:id")]
    MissingSeparator,
    /// A part is empty.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// A part is longer than its limit.
    #[error("{part} is longer than {max_bytes} bytes")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// The limit.
        max_bytes: usize,
    },
    /// A part has a character outside the alphabet.
    #[error("{0} may hold only A-Z a-z 0-9 _ -")]
    BadCharacter(&'static str),
    /// An id or type has a character outside its larger alphabet.
    #[error("{0} may hold only A-Z a-z 0-9 _ - . :")]
    BadIdCharacter(&'static str),
    /// Not a W3C trace context.
    #[error(
        "a traceparent is written 00-<32 digits>-<16 digits>-<2 digits>, in lower-case hexadecimal"
    )]
    BadTraceparent,
}

fn check_part(part: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(part));
    }
    if text.len() > NAME_PART_MAX_BYTES {
        return Err(NameError::TooLong {
            part,
            max_bytes: NAME_PART_MAX_BYTES,
        });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !text.bytes().all(allowed) {
        return Err(NameError::BadCharacter(part));
    }
    Ok(())
}

/// A channel, `namespace:id`; each part is `[A-Za-z0-9_-]{1,64}`.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    text: Arc<str>,
}

impl Channel {
    /// Parses `namespace:id`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (namespace, id) = text.split_once(':').ok_or(NameError::MissingSeparator)?;
        Self::check(namespace, id)?;
        Ok(Self { text: text.into() })
    }

    /// Builds a channel from its two parts.
    pub fn from_parts(namespace: &str, id: &str) -> Result<Self, NameError> {
        Self::check(namespace, id)?;
        Ok(Self {
            text: format!("{namespace}:{id}").into(),
        })
    }

    fn check(namespace: &str, id: &str) -> Result<(), NameError> {
        check_part("a channel's namespace", namespace)?;
        check_part("a channel's id", id)
    }

    /// The inbox of a user, `user:<id>`.
    pub fn inbox(user: &UserId) -> Self {
        Self {
            text: format!("{INBOX_NAMESPACE}:{user}").into(),
        }
    }

    /// The part before the colon.
    pub fn namespace(&self) -> &str {
        self.text
            .split_once(':')
            .map_or("", |(namespace, _)| namespace)
    }

    /// The part after the colon.
    pub fn id(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, id)| id)
    }

    /// The whole name, `namespace:id`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The shard of this channel among `shards` (at least 1): FNV-1a 32 over
    /// both parts without the colon, modulo `shards`. nats-server's
    /// `{{partition(P,1,2)}}` subject mapping computes the same number.
    pub fn shard(&self, shards: u16) -> u16 {
        const OFFSET_BASIS: u32 = 0x811c_9dc5;
        const PRIME: u32 = 0x0100_0193;
        let mut hash = OFFSET_BASIS;
        for byte in self.text.bytes().filter(|b| *b != b':') {
            hash = (hash ^ u32::from(byte)).wrapping_mul(PRIME);
        }
        // The remainder of a division by a u16 fits a u16.
        (hash % u32::from(shards.max(1))) as u16
    }
}

/// Whose connection, inbox or message it is: `[A-Za-z0-9_-]{1,64}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Parses a user id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_part("a user id", text)?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One of a user's devices, as its client names it: `[A-Za-z0-9_-]{1,64}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device(Arc<str>);

impl Device {
    /// Parses a device name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_part("a device name", text)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks an application's type of a message or signal: up to
/// [`TYPE_BYTES_MAX`](crate::limits::TYPE_BYTES_MAX) bytes of `A-Z a-z 0-9
/// _ - . :`, possibly none. It becomes a header of the stored message.
pub fn check_type(text: &str) -> Result<(), NameError> {
    const PART: &str = "a type";
    let max_bytes = crate::limits::TYPE_BYTES_MAX;
    if text.len() > max_bytes {
        return Err(NameError::TooLong {
            part: PART,
            max_bytes,
        });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if !text.bytes().all(allowed) {
        return Err(NameError::BadIdCharacter(PART));
    }
    Ok(())
}

/// Checks a W3C `traceparent` (Trace Context, section 3.2): version 00, lower
/// case hexadecimal digits in four groups of 2, 32, 16 and 2.
pub fn check_traceparent(text: &str) -> Result<(), NameError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let groups: Vec<&str> = text.splitn(5, '-').collect();
    let lengths = groups.iter().map(|group| group.len());
    let well_formed = text.starts_with("00-")
        && lengths.eq([2, 32, 16, 2])
        && groups.iter().all(|group| group.bytes().all(hex));
    if well_formed {
        Ok(())
    } else {
        Err(NameError::BadTraceparent)
    }
}

/// The id under which a message was published: up to
/// [`MESSAGE_ID_MAX_BYTES`] bytes of `A-Z a-z 0-9 _ - . :`. Clients use a
/// UUIDv7. Without a `/`, which separates it from its publisher's scope on the
/// backplane.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Parses a message id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const PART: &str = "a message id";
        if text.is_empty() {
            return Err(NameError::Empty(PART));
        }
        if text.len() > MESSAGE_ID_MAX_BYTES {
            return Err(NameError::TooLong {
                part: PART,
                max_bytes: MESSAGE_ID_MAX_BYTES,
            });
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
        {
            return Err(NameError::BadIdCharacter(PART));
        }
        Ok(Self(text.into()))
    }

    /// A new UUIDv7.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }

    /// Milliseconds since the Unix epoch at which this id was made, if it is
    /// a UUIDv7 (RFC 9562).
    pub fn created_ms(&self) -> Option<u64> {
        let uuid = uuid::Uuid::try_parse(&self.0).ok()?;
        let (seconds, nanos) = uuid
            .get_timestamp()
            .filter(|_| uuid.get_version_num() == 7)?
            .to_unix();
        Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Display, parsing and serde as a plain string, for a name type with
/// `parse` and `as_str`.
macro_rules! name_traits {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_traits!(Channel);
name_traits!(UserId);
name_traits!(Device);
name_traits!(MessageId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_two_valid_parts() {
        let channel = Channel::parse("user:42").unwrap();
        assert_eq!((channel.namespace(), channel.id()), ("user", "42"));
        let longest = format!("{}:{}", "n".repeat(64), "i".repeat(64));
        assert!(Channel::parse(&longest).is_ok());
    }

    #[test]
    fn hostile_channels_are_refused() {
        let too_long = format!("user:{}", "i".repeat(65));
        let hostile = [
            "",
            ":",
            "user",
            "user:",
            ":42",
            "user:*",
            "user:>",
            "user:a.b",
            "user:a b",
            "user:4\r\n2",
            "user:\0",
            "user:é",
            "user:1:2",
            "us er:1",
            &too_long,
        ];
        for text in hostile {
            assert!(Channel::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn shard_is_fnv1a_32_of_the_parts() {
        // FNV-1a 32 of "foobar" is 0xbf9cf968 (the reference vectors of the
        // FNV authors).
        let channel = Channel::parse("foo:bar").unwrap();
        assert_eq!(u32::from(channel.shard(1000)), 0xbf9c_f968 % 1000);
        assert_eq!(channel.shard(1), 0);
    }

    #[test]
    fn a_uuidv7_tells_its_time() {
        let id = MessageId::parse("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        // The example of RFC 9562, appendix A.6: 2022-02-22T19:22:22Z.
        assert_eq!(id.created_ms(), Some(1_645_557_742_000));
        assert_eq!(MessageId::parse("order-7").unwrap().created_ms(), None);
    }
}
