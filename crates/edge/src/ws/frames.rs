//! What a feed puts out, as frames.

use bytes::Bytes;
use delivery::{Output, PageError, Reset, ResetReason, encode_batch};
use protocol::frame::{self, ErrorBody, ServerBody, ServerFrame};
use protocol::{Channel, Encoding, ErrorCode, encode_server};

/// The frame of an output. `unread` is told in `subscribed`.
pub fn encode_output(encoding: Encoding, output: Output, unread: u64) -> Bytes {
    let frame = match output {
        Output::Messages { entries, .. } => return encode_batch(encoding, &entries),
        Output::Subscribed {
            channel,
            tag,
            shard,
            cursor,
            head,
        } => {
            let replay = cursor != head;
            let body = frame::Subscribed {
                channel,
                shard,
                cursor,
                head,
                replay,
                unread,
            };
            ServerFrame::reply(tag, ServerBody::Subscribed(body))
        }
        Output::Refused {
            channel,
            tag,
            error,
        } => ServerFrame::reply(tag, ServerBody::Error(refusal(channel, &error))),
        Output::Live { channel, cursor } => ServerFrame::new(ServerBody::Live { channel, cursor }),
        Output::Reset { channel, reset } => {
            ServerFrame::new(ServerBody::Reset(reset_body(channel, reset)))
        }
        Output::Delayed {
            channel,
            retry_after,
        } => {
            let error = PageError::Unavailable {
                retry_after,
                reason: String::new(),
            };
            ServerFrame::new(ServerBody::Error(refusal(channel, &error)))
        }
        Output::Signal(signal) => ServerFrame::new(ServerBody::Signal(frame::Signal {
            channel: signal.channel.clone(),
            kind: signal.kind.clone(),
            sender: signal.sender.clone(),
            data: signal.data.clone(),
        })),
    };
    encode_server(encoding, &frame)
}

fn reset_body(channel: Channel, reset: Reset) -> frame::Reset {
    let reason = match reset.reason {
        ResetReason::Expired => frame::ResetReason::Expired,
        ResetReason::Epoch => frame::ResetReason::Epoch,
        ResetReason::Ahead => frame::ResetReason::Ahead,
        ResetReason::TooFarBehind => frame::ResetReason::TooFarBehind,
    };
    frame::Reset {
        channel,
        reason,
        head: reset.head,
        earliest: reset.earliest,
    }
}

fn refusal(channel: Channel, error: &PageError) -> ErrorBody {
    let (code, message, retry_after_ms) = match error {
        PageError::Unavailable { retry_after, .. } => {
            let wait = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            (
                ErrorCode::Unavailable,
                "older messages cannot be read at the moment",
                wait,
            )
        }
        PageError::Expired { .. } | PageError::UnknownEpoch => (
            ErrorCode::Unavailable,
            "the start cannot be looked up at the moment",
            1_000,
        ),
    };
    ErrorBody {
        code,
        message: message.into(),
        retry_after_ms,
        channel: Some(channel),
    }
}
