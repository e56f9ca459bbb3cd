//! A payload in JSON: `data` if it is JSON itself, else `data_base64`.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::is_default;
use super::message::{MessageRef, encode_message};
use crate::Encoding;
use crate::limits::JSON_DEPTH_MAX;
use crate::v1;

/// The payload as JSON text on one line, if it is JSON that any client can
/// read as part of a frame: a strict parser takes it (no lone surrogates, no
/// number beyond a double) and it is not nested deeper than
/// [`JSON_DEPTH_MAX`]. A publisher must not be able to make a frame that its
/// subscribers choke on.
pub(super) fn embeddable(data: &[u8]) -> Option<Cow<'_, str>> {
    let mut json = serde_json::Deserializer::from_slice(data);
    Strict {
        depth: JSON_DEPTH_MAX,
    }
    .deserialize(&mut json)
    .and_then(|()| json.end())
    .ok()?;
    let text = std::str::from_utf8(data.trim_ascii()).ok()?;
    let is_break = |c: char| c == '\n' || c == '\r';
    if text.contains(is_break) {
        // In JSON a raw line break stands between tokens only, and no two
        // tokens that need a space between them are neighbours.
        return Some(Cow::Owned(text.replace(is_break, "")));
    }
    Some(Cow::Borrowed(text))
}

/// As [`embeddable`], but only if a reader gets the same bytes back.
fn embeddable_exactly(data: &[u8]) -> Option<Cow<'_, str>> {
    embeddable(data).filter(|text| text.len() == data.len())
}

pub(super) fn to_base64(data: &[u8]) -> String {
    BASE64.encode(data)
}

/// Reads any JSON value and forgets it, up to a depth.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let item = self.deeper()?;
        while seq.next_element_seed(item)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let item = self.deeper()?;
        while map.next_key_seed(item)?.is_some() {
            map.next_value_seed(item)?;
        }
        Ok(())
    }
}

/// The two keys of a payload, of which one is there at most.
struct Written {
    data: Option<Box<RawValue>>,
    data_base64: Option<String>,
}

impl Written {
    fn new<E: ser::Error>(data: &[u8], text: Option<Cow<'_, str>>) -> Result<Self, E> {
        let raw = text.map(|text| RawValue::from_string(text.into_owned()));
        let raw = raw.transpose().map_err(E::custom)?;
        Ok(Self {
            data_base64: (raw.is_none() && !data.is_empty()).then(|| to_base64(data)),
            data: raw,
        })
    }
}

/// The bytes of a payload, from the two keys.
fn read<E: de::Error>(data: Option<&RawValue>, data_base64: Option<&str>) -> Result<Bytes, E> {
    match (data, data_base64) {
        (Some(_), Some(_)) => Err(E::custom("data and data_base64 exclude each other")),
        (Some(raw), None) => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
        (None, Some(text)) => BASE64.decode(text).map(Bytes::from).map_err(|_| {
            E::custom("data_base64: expected base64 of the standard alphabet, with padding")
        }),
        (None, None) => Ok(Bytes::new()),
    }
}

/// `"data": null` is the payload `null`, not a payload that is left out.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a generated type by way of its JSON form.
macro_rules! read_as {
    ($target:ty, $json:ident, $it:ident => $value:expr) => {
        impl<'de> Deserialize<'de> for $target {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let $it = $json::deserialize(deserializer)?;
                let data = read($it.data, $it.data_base64.as_deref())?;
                Ok($value(data))
            }
        }
    };
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct PublishJson<'a> {
    id: String,
    channel: String,
    r#type: String,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    traceparent: String,
}

read_as!(v1::Publish, PublishJson, it => |data| v1::Publish {
    id: it.id,
    channel: it.channel,
    r#type: it.r#type,
    data,
    traceparent: it.traceparent,
});

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct SendSignalJson<'a> {
    channel: String,
    r#type: String,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

read_as!(v1::SendSignal, SendSignalJson, it => |data| v1::SendSignal {
    channel: it.channel,
    r#type: it.r#type,
    data,
});

#[derive(Deserialize, Default)]
#[serde(default)]
struct SignalJson<'a> {
    channel: String,
    r#type: String,
    sender: String,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

read_as!(v1::Signal, SignalJson, it => |data| v1::Signal {
    channel: it.channel,
    r#type: it.r#type,
    sender: it.sender,
    data,
});

#[derive(Deserialize, Default)]
#[serde(default)]
struct MessageJson<'a> {
    seq: u64,
    prev: u64,
    id: String,
    r#type: String,
    sender: String,
    time: i64,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    traceparent: String,
}

read_as!(v1::Message, MessageJson, it => |data| v1::Message {
    seq: it.seq,
    prev: it.prev,
    id: it.id,
    r#type: it.r#type,
    sender: it.sender,
    time: it.time,
    data,
    traceparent: it.traceparent,
});

/// The JSON form of the frames that carry a payload, except messages.
#[derive(Serialize)]
struct PayloadJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    id: &'a str,
    channel: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    r#type: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    traceparent: &'a str,
}

impl Serialize for v1::Publish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written::new(&self.data, embeddable_exactly(&self.data))?;
        PayloadJson {
            id: &self.id,
            channel: &self.channel,
            r#type: &self.r#type,
            sender: "",
            data: written.data,
            data_base64: written.data_base64,
            traceparent: &self.traceparent,
        }
        .serialize(serializer)
    }
}

impl Serialize for v1::SendSignal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written::new(&self.data, embeddable_exactly(&self.data))?;
        PayloadJson {
            id: "",
            channel: &self.channel,
            r#type: &self.r#type,
            sender: "",
            data: written.data,
            data_base64: written.data_base64,
            traceparent: "",
        }
        .serialize(serializer)
    }
}

impl Serialize for v1::Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written::new(&self.data, embeddable(&self.data))?;
        PayloadJson {
            id: "",
            channel: &self.channel,
            r#type: &self.r#type,
            sender: &self.sender,
            data: written.data,
            data_base64: written.data_base64,
            traceparent: "",
        }
        .serialize(serializer)
    }
}

/// A message has one form, whoever writes it.
impl Serialize for v1::Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn some(text: &str) -> Option<&str> {
            (!text.is_empty()).then_some(text)
        }
        let fragment = encode_message(
            Encoding::Json,
            &MessageRef {
                seq: self.seq,
                prev: self.prev,
                id: some(&self.id),
                kind: &self.r#type,
                sender: some(&self.sender),
                time_ms: self.time,
                data: &self.data,
                traceparent: some(&self.traceparent),
            },
        );
        let raw: &RawValue = serde_json::from_slice(&fragment).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}
