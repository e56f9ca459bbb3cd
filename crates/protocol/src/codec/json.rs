//! Frames as JSON: an object with an optional `req` and one body.
//!
//! The frame is read in two steps. The first finds `req` and the body's text,
//! so that an error in the body can be answered to its request; the second
//! reads the body into its generated type.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::DecodeError;
use crate::codes::ErrorCode;
use crate::v1;

/// Defines which keys are bodies, and reads the body of a key.
macro_rules! bodies {
    ($known:ident, $read:ident, $module:ident, { $($key:literal => $variant:ident),+ $(,)? }) => {
        const $known: &[&str] = &[$($key),+];

        fn $read(req: u32, key: &str, text: &str) -> Result<v1::$module::Body, DecodeError> {
            match key {
                $($key => read_body(req, $key, text).map(v1::$module::Body::$variant),)+
                other => Err(unknown_body(req, other)),
            }
        }
    };
}

bodies!(CLIENT_BODIES, read_client_body, client_frame, {
    "connect" => Connect,
    "subscribe" => Subscribe,
    "unsubscribe" => Unsubscribe,
    "publish" => Publish,
    "signal" => Signal,
    "ack" => Ack,
    "presence" => Presence,
    "refresh" => Refresh,
    "pong" => Pong,
});

bodies!(SERVER_BODIES, read_server_body, server_frame, {
    "connected" => Connected,
    "subscribed" => Subscribed,
    "unsubscribed" => Unsubscribed,
    "messages" => Messages,
    "live" => Live,
    "reset" => Reset,
    "published" => Published,
    "error" => Error,
    "signal" => Signal,
    "presence" => Presence,
    "receipt" => Receipt,
    "refreshed" => Refreshed,
    "token_expiring" => TokenExpiring,
    "goaway" => Goaway,
    "ping" => Ping,
});

pub(super) fn decode_client(bytes: &[u8]) -> Result<v1::ClientFrame, DecodeError> {
    let envelope = Envelope::read(bytes, CLIENT_BODIES)?;
    let req = envelope.req;
    if let Some(key) = envelope.unknown {
        return Err(unknown_body(req, &key));
    }
    let Some((key, text)) = envelope.body else {
        return Err(bad_frame(req, "a frame has one body, and this has none"));
    };
    let body = Some(read_client_body(req, key, text)?);
    Ok(v1::ClientFrame { req, body })
}

/// Unlike a client's frame, an edge's may have keys that are not known here:
/// `body` is `None` if there are only those.
pub(super) fn decode_server(bytes: &[u8]) -> Result<v1::ServerFrame, DecodeError> {
    let envelope = Envelope::read(bytes, SERVER_BODIES)?;
    let req = envelope.req;
    let body = match envelope.body {
        Some((key, text)) => Some(read_server_body(req, key, text)?),
        None => None,
    };
    Ok(v1::ServerFrame { req, body })
}

pub(super) fn encode<B: Serialize>(req: u32, body: Option<&B>) -> Bytes {
    #[derive(Serialize)]
    struct Frame<'a, B> {
        #[serde(skip_serializing_if = "is_default")]
        req: u32,
        #[serde(flatten)]
        body: Option<&'a B>,
    }
    serde_json::to_vec(&Frame { req, body })
        .expect("a frame has text or numbers as keys, and no value that fails to serialise")
        .into()
}

/// For `skip_serializing_if`: empty means the same as left out.
pub(crate) fn is_default<T: Default + PartialEq>(it: &T) -> bool {
    *it == T::default()
}

fn bad_frame(req: u32, message: &str) -> DecodeError {
    DecodeError::new(ErrorCode::BadFrame, req, message)
}

fn unknown_body(req: u32, key: &str) -> DecodeError {
    bad_frame(req, &format!("{key:?} is not a frame"))
}

fn read_body<'a, T: Deserialize<'a>>(req: u32, key: &str, text: &'a str) -> Result<T, DecodeError> {
    let mut json = serde_json::Deserializer::from_str(text);
    T::deserialize(ObjectOnly(&mut json)).map_err(|_| explain::<T>(req, key, text))
}

/// Reads a body that is known to be wrong once more, to tell which field it
/// is: following the path is too dear for bodies that are right.
fn explain<'a, T: Deserialize<'a>>(req: u32, key: &str, text: &'a str) -> DecodeError {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let why = match T::deserialize(ObjectOnly(tracked)) {
        Ok(_) => "not valid".to_owned(),
        Err(error) => describe(&error),
    };
    let path = track.path();
    let message = match path.iter().len() {
        0 => format!("{key}: {why}"),
        _ => format!("{key}.{path}: {why}"),
    };
    DecodeError::new(ErrorCode::BadRequest, req, message)
}

/// An error of serde_json without the value, which may be a secret, and
/// without a position, which counts from the start of the body.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let expected = text
        .rfind("expected ")
        .filter(|_| text.starts_with("invalid "));
    text[expected.unwrap_or(0)..].to_owned()
}

/// A frame whose body has not been read.
struct Envelope<'a> {
    req: u32,
    body: Option<(&'static str, &'a str)>,
    /// The first key that is neither `req` nor a known body.
    unknown: Option<String>,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8], known: &'static [&'static str]) -> Result<Self, DecodeError> {
        let mut envelope = Self {
            req: 0,
            body: None,
            unknown: None,
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(bad_frame(0, "a JSON frame is UTF-8"));
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let seed = EnvelopeSeed {
            envelope: &mut envelope,
            known,
        };
        let read = seed.deserialize(&mut json).and_then(|()| json.end());
        match read {
            Ok(()) => Ok(envelope),
            Err(error) => Err(bad_frame(envelope.req, &describe(&error))),
        }
    }
}

/// Fills an envelope key by key, so that `req` is there if a later key fails.
struct EnvelopeSeed<'e, 'a> {
    envelope: &'e mut Envelope<'a>,
    known: &'static [&'static str],
}

impl<'a> DeserializeSeed<'a> for EnvelopeSeed<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for EnvelopeSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame, which is an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_req = false;
        while let Some(Key(key)) = map.next_key()? {
            if key == "req" {
                if has_req {
                    return Err(de::Error::custom("req is there twice"));
                }
                has_req = true;
                let text = map.next_value::<&RawValue>()?.get();
                self.envelope.req = text.parse().map_err(|_| {
                    de::Error::custom("req: expected a whole number from 0 to 4294967295")
                })?;
                continue;
            }
            let text = map.next_value::<&RawValue>()?.get();
            match self.known.iter().find(|known| **known == key) {
                Some(known) if self.envelope.body.is_none() => {
                    self.envelope.body = Some((known, text));
                }
                Some(known) => {
                    let message = format!("a frame has one body, and {known} is a second");
                    return Err(de::Error::custom(message));
                }
                None => {
                    self.envelope
                        .unknown
                        .get_or_insert_with(|| key.into_owned());
                }
            }
        }
        Ok(())
    }
}

/// A key, borrowed from the text unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Key<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'a> Visitor<'a> for KeyVisitor {
            type Value = Key<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'a str) -> Result<Key<'a>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key<'a>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Reads structs from objects only: derived code would also take an array of
/// the fields in order, which is not part of the protocol.
struct ObjectOnly<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// For `deserialize_with`: a list whose items are objects.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Object<T>(T);
    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            T::deserialize(ObjectOnly(deserializer)).map(Object)
        }
    }
    struct List<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of objects")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(Object(item)) = seq.next_element()? {
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(List(std::marker::PhantomData))
}
