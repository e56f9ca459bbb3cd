//! Between a stored NATS message and [`delivery::Message`].

use std::fmt::Write;

use async_nats::header::{HeaderName, HeaderValue, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use delivery::Message;
use delivery::archive::SourceMessage;
use delivery::publish::{Publication, Publisher};
use protocol::{Channel, Cursor, Epoch, MessageId, NameError, UserId};

use crate::names::Names;

pub(crate) const KIND: HeaderName = HeaderName::from_static("Rejoin-Type");
pub(crate) const SENDER: HeaderName = HeaderName::from_static("Rejoin-Sender");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest application type, service name and trace context, in bytes.
const HEADER_VALUE_MAX_BYTES: usize = 256;

/// The headers of a message on its way into a stream, or what is wrong with
/// one of its parts. Checked here because the client library panics on a line
/// break in a value.
pub(crate) fn headers(publication: &Publication) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, stream_id(publication)?);
    if !publication.kind.is_empty() {
        check("the type", &publication.kind)?;
        headers.insert(KIND, &*publication.kind);
    }
    if let Some(sender) = &publication.sender {
        headers.insert(SENDER, sender.as_str());
    }
    if let Some(traceparent) = &publication.traceparent {
        check("the trace context", traceparent)?;
        headers.insert(TRACEPARENT, &**traceparent);
    }
    Ok(headers)
}

/// The id under which the stream knows a message: the client's, scoped to
/// its publisher and channel.
fn stream_id(publication: &Publication) -> Result<String, String> {
    let (scope, name) = match &publication.publisher {
        Publisher::User(user) => ("u", user.as_str()),
        Publisher::Service(name) => ("s", &**name),
    };
    check("the publisher", name)?;
    if name.contains('/') {
        // It would make two scopes read alike.
        return Err("the publisher must not contain a slash".into());
    }
    let mut id = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        id,
        "{scope}.{name}/{}/{}",
        publication.channel, publication.id
    );
    Ok(id)
}

fn check(what: &str, value: &str) -> Result<(), String> {
    if value.len() > HEADER_VALUE_MAX_BYTES {
        return Err(format!(
            "{what} is longer than {HEADER_VALUE_MAX_BYTES} bytes"
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(format!("{what} must not contain control characters"));
    }
    Ok(())
}

/// A stream's message id taken apart: whose id it is (only where an edge
/// wrote it), and the client's part. Ids of foreign publishers are read as
/// far as they can be.
fn client_id<'a>(
    stream_id: &'a str,
    channel: &Channel,
) -> (Option<&'a str>, Result<MessageId, NameError>) {
    let mut parts = stream_id.splitn(3, '/');
    if let (Some(scope), Some(named), Some(id)) = (parts.next(), parts.next(), parts.next())
        && (scope.starts_with("u.") || scope.starts_with("s."))
        && named == channel.as_str()
    {
        return (Some(scope), MessageId::parse(id));
    }
    let last = stream_id.rsplit('/').next().unwrap_or_default();
    (None, MessageId::parse(last))
}

/// A message as it is stored, before its channel is known to be valid.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: Subject,
    pub(crate) seq: u64,
    pub(crate) time_ms: i64,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) data: Bytes,
}

impl Stored {
    /// The message; `None` where its subject is no channel's, which only
    /// foreign publishers can bring about.
    pub(crate) fn decode(self, names: &Names, epoch: Epoch) -> Option<Message> {
        Some(self.decode_with_scope(names, epoch)?.message)
    }

    /// The message and whose id it has.
    pub(crate) fn decode_with_scope(self, names: &Names, epoch: Epoch) -> Option<SourceMessage> {
        let channel = names.channel(&self.subject)?;
        let value = |name: HeaderName| Some(self.headers.as_ref()?.get_last(name)?.as_str());
        let (scope, id) = match value(NATS_MESSAGE_ID) {
            Some(text) => {
                let (scope, id) = client_id(text, &channel);
                (scope.map(Into::into), id.ok())
            }
            None => (None, None),
        };
        let message = Message {
            position: Cursor::new(epoch, self.seq),
            prev: 0,
            id,
            kind: value(KIND).unwrap_or_default().into(),
            sender: value(SENDER).and_then(|sender| UserId::parse(sender).ok()),
            time_ms: self.time_ms,
            traceparent: value(TRACEPARENT).map(Into::into),
            data: self.data,
            channel,
        };
        Some(SourceMessage { message, scope })
    }
}

/// Reads a raw header block, leaving out every line that is none: the client
/// library would drop the connection over it.
pub(crate) fn lenient_headers(block: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = String::from_utf8_lossy(block);
    for line in text.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let name = name.parse::<HeaderName>();
        let value = value.trim().parse::<HeaderValue>();
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        Publication {
            channel: Channel::parse("room:1").unwrap(),
            id: MessageId::parse("a.b").unwrap(),
            publisher: Publisher::User(UserId::parse("42").unwrap()),
            kind: "chat".into(),
            sender: Some(UserId::parse("42").unwrap()),
            data: Bytes::from_static(b"{}"),
            traceparent: None,
        }
    }

    #[test]
    fn a_message_round_trips() {
        let publication = publication();
        let names = Names::new("rejoin", 4);
        let headers = headers(&publication).unwrap();
        let stored = Stored {
            subject: names.message(&publication.channel).into(),
            seq: 7,
            time_ms: 5,
            headers: Some(headers),
            data: publication.data.clone(),
        };
        let source = stored.decode_with_scope(&names, Epoch(1)).unwrap();
        assert_eq!(source.scope.as_deref(), Some("u.42"));
        let message = source.message;
        assert_eq!(message.channel, publication.channel);
        assert_eq!(message.id, Some(publication.id));
        assert_eq!(message.sender, publication.sender);
        assert_eq!(&*message.kind, "chat");
        assert_eq!(message.seq(), 7);
    }

    #[test]
    fn lines_that_are_no_headers_are_left_out() {
        let block = b"NATS/1.0\r\nRejoin-Type: a\r\nno colon\r\nbad name: x\r\n\xff\xfe: y\r\nRejoin-Sender: 4\xff2\r\n\r\n";
        let headers = lenient_headers(block);
        assert_eq!(headers.get(KIND).map(HeaderValue::as_str), Some("a"));
        let sender = headers.get(SENDER).map(HeaderValue::as_str);
        assert!(sender.is_none_or(|text| UserId::parse(text).is_err()));
    }

    #[test]
    fn no_part_can_break_out_of_its_header() {
        let hostile = ["a\r\nNats-Rollup: all", "a\nb", "a\0", &"a".repeat(257)];
        for text in hostile {
            let mut with_kind = publication();
            with_kind.kind = text.into();
            assert!(headers(&with_kind).is_err(), "{text:?}");
            let mut with_trace = publication();
            with_trace.traceparent = Some(text.into());
            assert!(headers(&with_trace).is_err(), "{text:?}");
            let mut with_publisher = publication();
            with_publisher.publisher = Publisher::Service(text.into());
            assert!(headers(&with_publisher).is_err(), "{text:?}");
        }
        let mut with_slash = publication();
        with_slash.publisher = Publisher::Service("a/room:1".into());
        assert!(headers(&with_slash).is_err());
    }

    #[test]
    fn foreign_ids_are_read_as_far_as_they_can_be() {
        let channel = Channel::parse("room:1").unwrap();
        let read = |id: &str| {
            client_id(id, &channel)
                .1
                .ok()
                .map(|id| id.as_str().to_owned())
        };
        assert_eq!(read("order-7").as_deref(), Some("order-7"));
        assert_eq!(read("x/y/order-7").as_deref(), Some("order-7"));
        assert_eq!(read("u.1/room:1/a:b").as_deref(), Some("a:b"));
        assert_eq!(read("u.1/room:2/a/b").as_deref(), Some("b"));
        assert_eq!(read("u.1/room:1/a/b"), None);
        assert_eq!(read("ends/"), None);
        assert_eq!(read("white space"), None);
    }
}
