//! Edges' frames: from the generated types to valid ones and back.

use super::client::text;
use super::error::DecodeError;
use super::field::{self, FieldError};
use crate::MessageId;
use crate::codes::ErrorCode;
use crate::frame::{
    Connected, ErrorBody, Goaway, GoawayReason, Limits, Message, Messages, Presence, Published,
    Receipt, Reset, ResetReason, Retry, ServerBody, ServerFrame, Signal, Subscribed,
    UnsubscribeReason, Unsubscribed,
};
use crate::v1;
use crate::v1::server_frame::Body;

pub(super) fn from_wire(frame: v1::ServerFrame) -> Result<ServerFrame, DecodeError> {
    let req = frame.req;
    let body = frame.body.ok_or_else(|| {
        let message = "a frame without a body that is known here";
        DecodeError::new(ErrorCode::Unsupported, req, message)
    })?;
    let body =
        body_from_wire(body).map_err(|error| DecodeError::new(error.code, req, error.message))?;
    Ok(ServerFrame { req, body })
}

fn body_from_wire(body: Body) -> Result<ServerBody, FieldError> {
    Ok(match body {
        Body::Connected(it) => ServerBody::Connected(connected(it)?),
        Body::Subscribed(it) => ServerBody::Subscribed(subscribed(it)?),
        Body::Unsubscribed(it) => ServerBody::Unsubscribed(Unsubscribed {
            channel: field::channel("unsubscribed.channel", &it.channel)?,
            reason: UnsubscribeReason::parse(&it.code)
                .ok_or_else(|| unknown("unsubscribed.code", &it.code))?,
            message: it.message.into(),
        }),
        Body::Messages(it) => ServerBody::Messages(messages(it)?),
        Body::Live(it) => ServerBody::Live {
            channel: field::channel("live.channel", &it.channel)?,
            cursor: field::cursor("live.cursor", &it.cursor)?,
        },
        Body::Reset(it) => ServerBody::Reset(Reset {
            channel: field::channel("reset.channel", &it.channel)?,
            reason: ResetReason::parse(&it.reason)
                .ok_or_else(|| unknown("reset.reason", &it.reason))?,
            head: field::cursor("reset.head", &it.head)?,
            earliest: field::optional_cursor("reset.earliest", &it.earliest)?,
        }),
        Body::Published(it) => ServerBody::Published(Published {
            id: field::message_id("published.id", &it.id)?,
            channel: field::channel("published.channel", &it.channel)?,
            cursor: field::cursor("published.cursor", &it.cursor)?,
            duplicate: it.duplicate,
        }),
        Body::Error(it) => ServerBody::Error(error(it)?),
        Body::Signal(it) => ServerBody::Signal(Signal {
            channel: field::channel("signal.channel", &it.channel)?,
            kind: it.r#type.into(),
            sender: field::optional_user("signal.sender", &it.sender)?,
            data: it.data,
        }),
        Body::Presence(it) => ServerBody::Presence(Presence {
            channel: field::channel("presence.channel", &it.channel)?,
            users: it
                .users
                .iter()
                .map(|user| field::user("presence.users", user))
                .collect::<Result<_, _>>()?,
            partial: it.partial,
        }),
        Body::Receipt(it) => ServerBody::Receipt(Receipt {
            channel: field::channel("receipt.channel", &it.channel)?,
            device: field::optional_device("receipt.device", &it.device)?,
            delivered: field::optional_cursor("receipt.delivered", &it.delivered)?,
            read: field::optional_cursor("receipt.read", &it.read)?,
            unread: it.unread,
        }),
        Body::Refreshed(it) => ServerBody::Refreshed {
            expires_ms: it.expires_ms,
        },
        Body::TokenExpiring(it) => ServerBody::TokenExpiring {
            expires_in_ms: it.expires_in_ms,
        },
        Body::Goaway(it) => ServerBody::Goaway(Goaway {
            reason: GoawayReason::parse(&it.reason)
                .ok_or_else(|| unknown("goaway.reason", &it.reason))?,
            retry_after_ms: it.retry_after_ms,
        }),
        Body::Ping(it) => ServerBody::Ping {
            positions: it
                .positions
                .into_iter()
                .map(|(shard, cursor)| {
                    let shard = field::shard("ping.positions", shard)?;
                    Ok((shard, field::cursor("ping.positions", &cursor)?))
                })
                .collect::<Result<_, FieldError>>()?,
        },
    })
}

fn connected(it: v1::Connected) -> Result<Connected, FieldError> {
    let limits = it.limits.ok_or(FieldError::missing("connected.limits"))?;
    let retry = it.retry.ok_or(FieldError::missing("connected.retry"))?;
    Ok(Connected {
        session: it.session.into(),
        user: field::user("connected.user", &it.user)?,
        edge: it.edge.into(),
        ping_ms: it.ping_ms,
        limits: Limits {
            message_bytes: limits.message_bytes,
            subscriptions: limits.subscriptions,
        },
        retry: Retry {
            min_ms: retry.min_ms,
            max_ms: retry.max_ms,
        },
        expires_ms: it.expires_ms,
    })
}

fn subscribed(it: v1::Subscribed) -> Result<Subscribed, FieldError> {
    let head = field::cursor("subscribed.head", &it.head)?;
    if field::epoch("subscribed.epoch", &it.epoch)? != head.epoch {
        let why = "differs from the epoch of subscribed.head";
        return Err(FieldError::new(
            ErrorCode::BadCursor,
            "subscribed.epoch",
            why,
        ));
    }
    Ok(Subscribed {
        channel: field::channel("subscribed.channel", &it.channel)?,
        shard: field::shard("subscribed.shard", it.shard)?,
        cursor: field::cursor("subscribed.cursor", &it.cursor)?,
        head,
        replay: it.replay,
        unread: it.unread,
    })
}

fn messages(it: v1::Messages) -> Result<Messages, FieldError> {
    Ok(Messages {
        channel: field::channel("messages.channel", &it.channel)?,
        epoch: field::epoch("messages.epoch", &it.epoch)?,
        messages: it
            .messages
            .into_iter()
            .map(message)
            .collect::<Result<_, _>>()?,
    })
}

fn message(it: v1::Message) -> Result<Message, FieldError> {
    Ok(Message {
        seq: it.seq,
        prev: it.prev,
        id: match it.id.as_str() {
            "" => None,
            id => Some(field::message_id("messages.id", id)?),
        },
        kind: it.r#type.into(),
        sender: field::optional_user("messages.sender", &it.sender)?,
        time_ms: it.time,
        data: it.data,
        traceparent: (!it.traceparent.is_empty()).then(|| it.traceparent.into()),
    })
}

/// The one list that may grow within version 1: a code that is not known here
/// keeps its verdict, as the most general code that has the same.
fn error(it: v1::Error) -> Result<ErrorBody, FieldError> {
    let stand_in = if it.retryable {
        ErrorCode::Unavailable
    } else {
        ErrorCode::BadRequest
    };
    Ok(ErrorBody {
        code: ErrorCode::parse(&it.code).unwrap_or(stand_in),
        message: it.message.into(),
        retry_after_ms: it.retry_after_ms,
        channel: field::optional_channel("error.channel", &it.channel)?,
    })
}

fn unknown(field: &str, text: &str) -> FieldError {
    FieldError::new(
        ErrorCode::BadRequest,
        field,
        format!("{text:?} is not known"),
    )
}

pub(super) fn to_wire(frame: &ServerFrame) -> v1::ServerFrame {
    let body = match &frame.body {
        ServerBody::Connected(it) => Body::Connected(connected_to_wire(it)),
        ServerBody::Subscribed(it) => Body::Subscribed(v1::Subscribed {
            channel: it.channel.to_string(),
            shard: it.shard.into(),
            epoch: it.head.epoch.to_string(),
            cursor: it.cursor.to_string(),
            head: it.head.to_string(),
            replay: it.replay,
            unread: it.unread,
        }),
        ServerBody::Unsubscribed(it) => Body::Unsubscribed(v1::Unsubscribed {
            channel: it.channel.to_string(),
            code: it.reason.as_str().to_owned(),
            message: it.message.to_string(),
        }),
        ServerBody::Messages(it) => Body::Messages(v1::Messages {
            channel: it.channel.to_string(),
            epoch: it.epoch.to_string(),
            messages: it.messages.iter().map(message_to_wire).collect(),
        }),
        ServerBody::Live { channel, cursor } => Body::Live(v1::Live {
            channel: channel.to_string(),
            cursor: cursor.to_string(),
        }),
        ServerBody::Reset(it) => Body::Reset(v1::Reset {
            channel: it.channel.to_string(),
            reason: it.reason.as_str().to_owned(),
            head: it.head.to_string(),
            earliest: text(&it.earliest),
        }),
        ServerBody::Published(it) => Body::Published(v1::Published {
            id: it.id.to_string(),
            channel: it.channel.to_string(),
            cursor: it.cursor.to_string(),
            duplicate: it.duplicate,
        }),
        ServerBody::Error(it) => Body::Error(v1::Error {
            code: it.code.as_str().to_owned(),
            message: it.message.to_string(),
            retryable: it.code.is_retryable(),
            retry_after_ms: it.retry_after_ms,
            channel: text(&it.channel),
        }),
        ServerBody::Signal(it) => Body::Signal(v1::Signal {
            channel: it.channel.to_string(),
            r#type: it.kind.to_string(),
            sender: text(&it.sender),
            data: it.data.clone(),
        }),
        ServerBody::Presence(it) => Body::Presence(v1::Presence {
            channel: it.channel.to_string(),
            users: it.users.iter().map(ToString::to_string).collect(),
            partial: it.partial,
        }),
        ServerBody::Receipt(it) => Body::Receipt(v1::Receipt {
            channel: it.channel.to_string(),
            device: text(&it.device),
            delivered: text(&it.delivered),
            read: text(&it.read),
            unread: it.unread,
        }),
        ServerBody::Refreshed { expires_ms } => Body::Refreshed(v1::Refreshed {
            expires_ms: *expires_ms,
        }),
        ServerBody::TokenExpiring { expires_in_ms } => Body::TokenExpiring(v1::TokenExpiring {
            expires_in_ms: *expires_in_ms,
        }),
        ServerBody::Goaway(it) => Body::Goaway(v1::Goaway {
            reason: it.reason.as_str().to_owned(),
            retry_after_ms: it.retry_after_ms,
        }),
        ServerBody::Ping { positions } => Body::Ping(v1::Ping {
            positions: positions
                .iter()
                .map(|(shard, cursor)| (u32::from(*shard), cursor.to_string()))
                .collect(),
        }),
    };
    v1::ServerFrame {
        req: frame.req,
        body: Some(body),
    }
}

fn connected_to_wire(it: &Connected) -> v1::Connected {
    v1::Connected {
        session: it.session.to_string(),
        user: it.user.to_string(),
        edge: it.edge.to_string(),
        ping_ms: it.ping_ms,
        limits: Some(v1::Limits {
            message_bytes: it.limits.message_bytes,
            subscriptions: it.limits.subscriptions,
        }),
        retry: Some(v1::Retry {
            min_ms: it.retry.min_ms,
            max_ms: it.retry.max_ms,
        }),
        expires_ms: it.expires_ms,
    }
}

fn message_to_wire(it: &Message) -> v1::Message {
    v1::Message {
        seq: it.seq,
        prev: it.prev,
        id: it.id.as_ref().map_or("", MessageId::as_str).to_owned(),
        r#type: it.kind.to_string(),
        sender: text(&it.sender),
        time: it.time_ms,
        data: it.data.clone(),
        traceparent: text(&it.traceparent),
    }
}
