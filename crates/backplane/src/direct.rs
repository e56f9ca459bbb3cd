//! Reads of single messages and of one channel's messages, outside any
//! consumer: batched direct get (ADR-31), and the stream's leader.
//!
//! A direct get creates no state on the server, but any replica may answer
//! it, and a replica may be behind.

use async_nats::header::{HeaderMap, HeaderName};
use async_nats::{Request, StatusCode, Subject};
use base64::Engine;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::api::{self, ApiError, code};
use crate::connect::Inner;
use crate::message::{Stored, lenient_headers};
use crate::shard::Shard;

/// Most messages of one read: it holds the stream's lock against writers.
pub(crate) const BATCH_MAX: usize = 256;

/// Most bytes of one read.
pub(crate) const BATCH_MAX_BYTES: usize = 1 << 20;

const NATS_SUBJECT: HeaderName = HeaderName::from_static("Nats-Subject");
const NATS_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Sequence");
const NATS_TIME_STAMP: HeaderName = HeaderName::from_static("Nats-Time-Stamp");
const NATS_NUM_PENDING: HeaderName = HeaderName::from_static("Nats-Num-Pending");
const NATS_LAST_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Last-Sequence");

/// A stretch of a subject's messages.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Ascending, none left out in between.
    pub(crate) messages: Vec<Stored>,
    /// How many more the answering replica held behind them; `None` where
    /// the answer broke off.
    pub(crate) pending: Option<u64>,
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadError {
    /// The connection broke while the answer was on its way. Either NATS went
    /// away, or the answer is one that the client library cannot read.
    #[error("the connection was lost")]
    Lost,
    /// Anything else.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// The messages of `subject` from `seq` on, at most `max_messages` and, but
/// for the last one, `max_bytes`.
pub(crate) async fn batch(
    inner: &Inner,
    shard: &Shard,
    subject: &str,
    seq: u64,
    max_messages: usize,
    max_bytes: usize,
) -> Result<Batch, ReadError> {
    let link = &inner.catchup;
    let timeout = std::time::Duration::from_millis(inner.config.catchup_timeout_ms);
    let deadline = Instant::now() + timeout;
    let life = link.life();
    let not_sent = |error: String| ReadError::Api(ApiError::NotSent(error));
    if !link.is_up() {
        return Err(not_sent("not connected".into()));
    }
    inner.counters.direct_gets.increment();
    let inbox = link.client.new_inbox();
    let ask = async {
        let answers = link
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| not_sent(error.to_string()))?;
        let body = json!({
            "seq": seq,
            "next_by_subj": subject,
            "batch": max_messages.clamp(1, BATCH_MAX),
            "max_bytes": max_bytes.clamp(1, BATCH_MAX_BYTES),
        });
        let method = format!("$JS.API.DIRECT.GET.{}", shard.stream);
        link.client
            .publish_with_reply(method, inbox, body.to_string().into())
            .await
            .map_err(|error| not_sent(error.to_string()))?;
        Ok::<_, ReadError>(answers)
    };
    let timed_out = |_elapsed| ReadError::Api(ApiError::Timeout(timeout));
    let mut answers = tokio::time::timeout_at(deadline, ask)
        .await
        .map_err(timed_out)??;

    let mut batch = Batch::default();
    loop {
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout_at(deadline, answers.next()) => answer,
            () = link.lost_since(life) => Ok(None),
        };
        match answer {
            Ok(Some(message)) => match read_answer(message)? {
                Answer::Message { stored, previous } => {
                    let expected = batch.messages.last().map_or(0, |last| last.seq);
                    if previous != expected {
                        // An answer between these two was dropped.
                        return Ok(batch);
                    }
                    batch.messages.push(stored);
                }
                Answer::End { pending } => {
                    batch.pending = Some(pending);
                    return Ok(batch);
                }
            },
            // What has arrived is whole as far as it goes.
            _ if !batch.messages.is_empty() => return Ok(batch),
            Ok(None) => return Err(ReadError::Lost),
            Err(elapsed) => return Err(timed_out(elapsed)),
        }
    }
}

enum Answer {
    Message { stored: Stored, previous: u64 },
    End { pending: u64 },
}

/// Reads one answer. The server's headers stand after those of the message,
/// so the last value is the server's; a status counts only without them,
/// because a stored message may carry a status line of its publisher.
fn read_answer(message: async_nats::Message) -> Result<Answer, ReadError> {
    let headers = message.headers.unwrap_or_default();
    let value = |name: HeaderName| headers.get_last(name).map(|value| value.as_str());
    let number = |name: HeaderName| value(name).and_then(|text| text.parse::<u64>().ok());
    if let Some(subject) = value(NATS_SUBJECT) {
        let malformed = || ApiError::Malformed("a direct get without its headers".into());
        let subject = Subject::from(subject);
        let seq = number(NATS_SEQUENCE).ok_or_else(malformed)?;
        let time = value(NATS_TIME_STAMP).ok_or_else(malformed)?;
        let time_ms = parse_time_ms(time).ok_or_else(malformed)?;
        let previous = number(NATS_LAST_SEQUENCE).unwrap_or(0);
        return Ok(Answer::Message {
            stored: Stored {
                subject,
                seq,
                time_ms,
                headers: Some(headers),
                data: message.payload,
            },
            previous,
        });
    }
    match message.status.map(|status| status.as_u16()) {
        Some(204) => Ok(Answer::End {
            pending: number(NATS_NUM_PENDING).unwrap_or(0),
        }),
        // The stream holds no more of the subject.
        Some(404) => Ok(Answer::End { pending: 0 }),
        status => Err(ReadError::Api(match message.status {
            Some(StatusCode::NO_RESPONDERS) => ApiError::NoResponders,
            _ => ApiError::Server {
                code: u64::from(status.unwrap_or_default()),
                description: message.description.unwrap_or_default(),
            },
        })),
    }
}

#[derive(Deserialize)]
struct GetResponse {
    message: GetMessage,
}

#[derive(Deserialize)]
struct GetMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

/// Which message the leader is asked for.
pub(crate) enum Wanted<'a> {
    /// This one.
    At(u64),
    /// The first of a subject, which may have wildcards, from a sequence on.
    NextOf(&'a str, u64),
    /// The first of a subject that was stored at or after this time.
    Since(&'a str, OffsetDateTime),
}

/// One message by the stream's leader; `None` where it has none.
pub(crate) async fn leader_get(
    inner: &Inner,
    shard: &Shard,
    wanted: Wanted<'_>,
) -> Result<Option<Stored>, ApiError> {
    let malformed = |what: &str| ApiError::Malformed(format!("a stored message's {what}"));
    let body = match wanted {
        Wanted::At(seq) => json!({ "seq": seq }),
        Wanted::NextOf(subject, seq) => json!({ "seq": seq, "next_by_subj": subject }),
        Wanted::Since(subject, time) => {
            let time = time.format(&Rfc3339).map_err(|_| malformed("time"))?;
            json!({ "start_time": time, "next_by_subj": subject })
        }
    };
    inner.counters.leader_gets.increment();
    let answer = api::request(
        &inner.catchup.client,
        format!("$JS.API.STREAM.MSG.GET.{}", shard.stream),
        Request::new().payload(body.to_string().into()),
        inner.config.request_timeout(),
    )
    .await?;
    let message = match api::decode::<GetResponse>(&answer.payload) {
        Ok(response) => response.message,
        Err(error) if error.is(code::NO_MESSAGE_FOUND) => return Ok(None),
        Err(error) => return Err(error),
    };
    let base64 = base64::engine::general_purpose::STANDARD;
    let data = base64
        .decode(&message.data)
        .map_err(|_| malformed("data"))?;
    let headers: Option<HeaderMap> = if message.hdrs.is_empty() {
        None
    } else {
        let block = base64
            .decode(&message.hdrs)
            .map_err(|_| malformed("headers"))?;
        Some(lenient_headers(&block))
    };
    Ok(Some(Stored {
        subject: message.subject.into(),
        seq: message.seq,
        time_ms: parse_time_ms(&message.time).ok_or_else(|| malformed("time"))?,
        headers,
        data: Bytes::from(data),
    }))
}

/// Milliseconds since the Unix epoch of an RFC 3339 time.
fn parse_time_ms(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        assert_eq!(
            parse_time_ms("2022-02-22T19:22:22.123456789Z"),
            Some(1_645_557_742_123)
        );
        assert_eq!(parse_time_ms("yesterday"), None);
    }
}
