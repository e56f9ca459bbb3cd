//! The hot path: a message is written once per encoding, however many
//! connections it goes to, and a connection joins what is ready.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::Encoding;
use super::payload::{embeddable, to_base64};
use crate::frame::{Message, Messages};
use crate::{Channel, Epoch, MessageId, UserId};

/// One stored message, borrowed from wherever it is kept.
#[derive(Debug, Clone, Copy)]
pub struct MessageRef<'a> {
    /// Its sequence, at least 1.
    pub seq: u64,
    /// The sequence of the channel's message before it; 0: not known.
    pub prev: u64,
    /// The publisher's id for it.
    pub id: Option<&'a str>,
    /// The application's type of it, possibly empty.
    pub kind: &'a str,
    /// The user who published it; `None` for services.
    pub sender: Option<&'a str>,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The payload.
    pub data: &'a Bytes,
    /// W3C trace context of the publisher.
    pub traceparent: Option<&'a str>,
}

impl<'a> std::convert::From<&'a Message> for MessageRef<'a> {
    fn from(it: &'a Message) -> Self {
        Self {
            seq: it.seq,
            prev: it.prev,
            id: it.id.as_ref().map(MessageId::as_str),
            kind: &it.kind,
            sender: it.sender.as_ref().map(UserId::as_str),
            time_ms: it.time_ms,
            data: &it.data,
            traceparent: it.traceparent.as_deref(),
        }
    }
}

/// Writes one message as a fragment for [`encode_messages`]. In JSON, that is
/// the message's object, on one line; in protobuf, one item of
/// `Messages.messages` with its key and length.
pub fn encode_message(encoding: Encoding, message: &MessageRef<'_>) -> Bytes {
    match encoding {
        Encoding::Json => json_message(message),
        Encoding::Proto => proto_message(message),
    }
}

/// Joins fragments of messages, which are of one channel and epoch and in
/// increasing sequence, into a `messages` frame: the same bytes that
/// [`encode_server`](super::encode_server) would write.
pub fn encode_messages<'a>(
    encoding: Encoding,
    channel: &Channel,
    epoch: Epoch,
    fragments: impl Iterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    join(encoding, 0, channel, epoch, fragments)
}

/// A `messages` frame from the messages themselves.
pub(super) fn encode_batch(encoding: Encoding, req: u32, batch: &Messages) -> Bytes {
    let fragments: Vec<Bytes> = batch
        .messages
        .iter()
        .map(|message| encode_message(encoding, &message.into()))
        .collect();
    join(encoding, req, &batch.channel, batch.epoch, fragments.iter())
}

fn join<'a>(
    encoding: Encoding,
    req: u32,
    channel: &Channel,
    epoch: Epoch,
    fragments: impl Iterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    match encoding {
        Encoding::Json => json_join(req, channel, epoch, fragments),
        Encoding::Proto => proto_join(req, channel, epoch, fragments),
    }
}

/// Room for the numbers, keys and names of a message in either encoding; the
/// buffer grows if a foreign publisher's type is longer.
const AROUND_DATA_BYTES: usize = 256;

fn json_message(message: &MessageRef<'_>) -> Bytes {
    let mut out = Vec::with_capacity(AROUND_DATA_BYTES + message.data.len());
    out.extend_from_slice(b"{\"seq\":");
    json_number(&mut out, message.seq);
    if message.prev != 0 {
        out.extend_from_slice(b",\"prev\":");
        json_number(&mut out, message.prev);
    }
    json_text(&mut out, ",\"id\":", message.id.unwrap_or_default());
    json_text(&mut out, ",\"type\":", message.kind);
    json_text(&mut out, ",\"sender\":", message.sender.unwrap_or_default());
    out.extend_from_slice(b",\"time\":");
    json_number(&mut out, message.time_ms);
    if let Some(text) = embeddable(message.data) {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(text.as_bytes());
    } else if !message.data.is_empty() {
        out.extend_from_slice(b",\"data_base64\":\"");
        out.extend_from_slice(to_base64(message.data).as_bytes());
        out.push(b'"');
    }
    let traceparent = message.traceparent.unwrap_or_default();
    json_text(&mut out, ",\"traceparent\":", traceparent);
    out.push(b'}');
    out.into()
}

fn json_number(out: &mut Vec<u8>, number: impl serde::Serialize) {
    serde_json::to_writer(out, &number).expect("a number is written to memory");
}

/// A key with its text; nothing at all if that is empty.
fn json_text(out: &mut Vec<u8>, key: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    out.extend_from_slice(key.as_bytes());
    serde_json::to_writer(out, text).expect("a text is written to memory");
}

fn json_join<'a>(
    req: u32,
    channel: &Channel,
    epoch: Epoch,
    fragments: impl Iterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    let head = if req == 0 {
        "{".to_owned()
    } else {
        format!("{{\"req\":{req},")
    };
    // A channel and an epoch have no character that JSON escapes.
    let head = format!(
        "{head}\"messages\":{{\"channel\":\"{channel}\",\"epoch\":\"{epoch}\",\"messages\":["
    );
    const TAIL: &[u8] = b"]}}";
    let body: usize = fragments.clone().map(|fragment| fragment.len() + 1).sum();
    let mut out = Vec::with_capacity(head.len() + body + TAIL.len());
    out.extend_from_slice(head.as_bytes());
    for (index, fragment) in fragments.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(fragment);
    }
    out.extend_from_slice(TAIL);
    out.into()
}

/// Field numbers of `frames.proto`. They are written by hand here, because
/// prost would copy every text of a message to write it; a test compares.
mod tag {
    pub(super) const FRAME_REQ: u32 = 1;
    pub(super) const FRAME_MESSAGES: u32 = 5;
    pub(super) const MESSAGES_CHANNEL: u32 = 1;
    pub(super) const MESSAGES_EPOCH: u32 = 2;
    pub(super) const MESSAGES_MESSAGES: u32 = 3;
    pub(super) const SEQ: u32 = 1;
    pub(super) const PREV: u32 = 2;
    pub(super) const ID: u32 = 3;
    pub(super) const TYPE: u32 = 4;
    pub(super) const SENDER: u32 = 5;
    pub(super) const TIME: u32 = 6;
    pub(super) const DATA: u32 = 7;
    pub(super) const TRACEPARENT: u32 = 8;
}

fn proto_message(message: &MessageRef<'_>) -> Bytes {
    let mut body = BytesMut::with_capacity(AROUND_DATA_BYTES + message.data.len());
    proto_number(&mut body, tag::SEQ, message.seq);
    proto_number(&mut body, tag::PREV, message.prev);
    proto_bytes(
        &mut body,
        tag::ID,
        message.id.unwrap_or_default().as_bytes(),
    );
    proto_bytes(&mut body, tag::TYPE, message.kind.as_bytes());
    let sender = message.sender.unwrap_or_default();
    proto_bytes(&mut body, tag::SENDER, sender.as_bytes());
    // An int64 is the varint of its two's complement.
    proto_number(&mut body, tag::TIME, message.time_ms.cast_unsigned());
    proto_bytes(&mut body, tag::DATA, message.data);
    let traceparent = message.traceparent.unwrap_or_default();
    proto_bytes(&mut body, tag::TRACEPARENT, traceparent.as_bytes());

    let mut out = BytesMut::with_capacity(bytes_field_len(tag::MESSAGES_MESSAGES, body.len()));
    proto_head(&mut out, tag::MESSAGES_MESSAGES, body.len());
    out.put_slice(&body);
    out.freeze()
}

fn proto_join<'a>(
    req: u32,
    channel: &Channel,
    epoch: Epoch,
    fragments: impl Iterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    let epoch = epoch.to_string();
    let body = bytes_field_len(tag::MESSAGES_CHANNEL, channel.as_str().len())
        + bytes_field_len(tag::MESSAGES_EPOCH, epoch.len())
        + fragments.clone().map(Bytes::len).sum::<usize>();
    // A req takes a key and a varint of at most 5 bytes.
    let capacity = 6 + bytes_field_len(tag::FRAME_MESSAGES, body);
    let mut out = BytesMut::with_capacity(capacity);
    proto_number(&mut out, tag::FRAME_REQ, req.into());
    proto_head(&mut out, tag::FRAME_MESSAGES, body);
    proto_bytes(&mut out, tag::MESSAGES_CHANNEL, channel.as_str().as_bytes());
    proto_bytes(&mut out, tag::MESSAGES_EPOCH, epoch.as_bytes());
    for fragment in fragments {
        out.put_slice(fragment);
    }
    out.freeze()
}

/// A number; proto3 leaves out a zero.
fn proto_number(out: &mut BytesMut, tag: u32, number: u64) {
    if number != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(number, out);
    }
}

/// A string or bytes; proto3 leaves out an empty one.
fn proto_bytes(out: &mut BytesMut, tag: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        proto_head(out, tag, bytes.len());
        out.put_slice(bytes);
    }
}

/// Key and length of a string, bytes or message.
fn proto_head(out: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// What a string, bytes or message of `len` takes with its key and length.
fn bytes_field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::codec::{json, server};
    use crate::frame::{ServerBody, ServerFrame};

    fn message() -> impl Strategy<Value = Message> {
        let numbers = prop_oneof![Just((1, 0, 0)), any::<(u64, u64, i64)>()];
        let data = prop_oneof![
            Just(Bytes::new()),
            Just(Bytes::from_static(b"{\"a\": [1,\n 2]}")),
            proptest::collection::vec(any::<u8>(), 0..400).prop_map(Bytes::from),
        ];
        let id = proptest::option::of("[a-z0-9-]{1,40}");
        let sender = proptest::option::of("[a-z0-9-]{1,40}");
        let trace = proptest::option::of("[a-z0-9-]{55}");
        (numbers, id, ".{0,200}", sender, data, trace).prop_map(
            |((seq, prev, time_ms), id, kind, sender, data, traceparent)| Message {
                seq,
                prev,
                id: id.map(|id| MessageId::parse(&id).unwrap()),
                kind: kind.into(),
                sender: sender.map(|sender| UserId::parse(&sender).unwrap()),
                time_ms,
                data,
                traceparent: traceparent.map(Into::into),
            },
        )
    }

    proptest! {
        /// The frame that is joined by hand is the one that prost and serde
        /// write from `frames.proto`.
        #[test]
        fn the_hot_path_writes_what_the_generated_code_writes(
            req in prop_oneof![Just(0), any::<u32>()],
            epoch: u64,
            messages in proptest::collection::vec(message(), 0..4),
        ) {
            let batch = Messages {
                channel: Channel::parse("room:1").unwrap(),
                epoch: Epoch(epoch),
                messages,
            };
            let frame = ServerFrame { req, body: ServerBody::Messages(batch.clone()) };
            let wire = server::to_wire(&frame);
            prop_assert_eq!(
                encode_batch(Encoding::Proto, req, &batch),
                wire.encode_to_vec()
            );
            prop_assert_eq!(
                encode_batch(Encoding::Json, req, &batch),
                json::encode(req, wire.body.as_ref())
            );
        }
    }
}
