//! Clients' frames: from the generated types to valid ones and back.

use super::error::DecodeError;
use super::field::{self, FieldError};
use crate::codes::ErrorCode;
use crate::frame::{Ack, ClientBody, ClientFrame, Connect, Publish, SendSignal, Subscribe, Token};
use crate::limits::SUBSCRIPTIONS_MAX;
use crate::start::From;
use crate::v1;
use crate::v1::client_frame::Body;

pub(super) fn from_wire(frame: v1::ClientFrame) -> Result<ClientFrame, DecodeError> {
    let req = frame.req;
    let body = frame.body.ok_or_else(|| {
        let message = "a frame has one body, and this has none that is known here";
        DecodeError::new(ErrorCode::BadFrame, req, message)
    })?;
    let body =
        body_from_wire(body).map_err(|error| DecodeError::new(error.code, req, error.message))?;
    Ok(ClientFrame { req, body })
}

fn body_from_wire(body: Body) -> Result<ClientBody, FieldError> {
    Ok(match body {
        Body::Connect(it) => ClientBody::Connect(connect(it)?),
        Body::Subscribe(it) => {
            ClientBody::Subscribe(subscribe(it).map_err(|error| error.within("subscribe"))?)
        }
        Body::Unsubscribe(it) => ClientBody::Unsubscribe {
            channel: field::channel("unsubscribe.channel", &it.channel)?,
        },
        Body::Publish(it) => ClientBody::Publish(publish(it)?),
        Body::Signal(it) => ClientBody::Signal(SendSignal {
            channel: field::channel("signal.channel", &it.channel)?,
            kind: field::kind("signal.type", it.r#type)?,
            data: field::data("signal.data", it.data)?,
        }),
        Body::Ack(it) => ClientBody::Ack(ack(it)?),
        Body::Presence(it) => ClientBody::Presence {
            channel: field::channel("presence.channel", &it.channel)?,
        },
        Body::Refresh(it) => {
            if it.token.is_empty() {
                return Err(FieldError::missing("refresh.token"));
            }
            ClientBody::Refresh {
                token: token("refresh.token", &it.token)?,
            }
        }
        Body::Pong(v1::Pong {}) => ClientBody::Pong,
    })
}

fn connect(it: v1::Connect) -> Result<Connect, FieldError> {
    if it.subscriptions.len() > SUBSCRIPTIONS_MAX {
        let why = format!("at most {SUBSCRIPTIONS_MAX} are allowed");
        let code = ErrorCode::TooManySubscriptions;
        return Err(FieldError::new(code, "connect.subscriptions", why));
    }
    let subscriptions = it.subscriptions.into_iter().enumerate();
    Ok(Connect {
        token: match it.token.as_str() {
            "" => None,
            text => Some(token("connect.token", text)?),
        },
        device: field::optional_device("connect.device", &it.device)?,
        subscriptions: subscriptions
            .map(|(index, it)| {
                subscribe(it)
                    .map_err(|error| error.within(&format!("connect.subscriptions[{index}]")))
            })
            .collect::<Result<_, _>>()?,
        inbox: it.inbox,
        rooms: it.rooms,
    })
}

fn subscribe(it: v1::Subscribe) -> Result<Subscribe, FieldError> {
    Ok(Subscribe {
        channel: field::channel("channel", &it.channel)?,
        from: field::from("from", &it.from)?,
        max_catchup: it.max_catchup,
    })
}

fn publish(it: v1::Publish) -> Result<Publish, FieldError> {
    Ok(Publish {
        id: field::message_id("publish.id", &it.id)?,
        channel: field::channel("publish.channel", &it.channel)?,
        kind: field::kind("publish.type", it.r#type)?,
        data: field::data("publish.data", it.data)?,
        traceparent: field::traceparent("publish.traceparent", &it.traceparent)?,
    })
}

fn ack(it: v1::Ack) -> Result<Ack, FieldError> {
    let ack = Ack {
        channel: field::channel("ack.channel", &it.channel)?,
        delivered: field::optional_cursor("ack.delivered", &it.delivered)?,
        read: field::optional_cursor("ack.read", &it.read)?,
    };
    if ack.delivered.is_none() && ack.read.is_none() {
        return Err(FieldError::missing("ack.delivered or ack.read"));
    }
    Ok(ack)
}

fn token(field: &str, text: &str) -> Result<Token, FieldError> {
    Token::parse(text).map_err(|error| FieldError::new(ErrorCode::TooLarge, field, error))
}

pub(super) fn to_wire(frame: &ClientFrame) -> v1::ClientFrame {
    let body = match &frame.body {
        ClientBody::Connect(it) => Body::Connect(v1::Connect {
            token: it.token.as_ref().map_or("", Token::as_str).to_owned(),
            device: text(&it.device),
            subscriptions: it.subscriptions.iter().map(subscribe_to_wire).collect(),
            inbox: it.inbox,
            rooms: it.rooms,
        }),
        ClientBody::Subscribe(it) => Body::Subscribe(subscribe_to_wire(it)),
        ClientBody::Unsubscribe { channel } => Body::Unsubscribe(v1::Unsubscribe {
            channel: channel.to_string(),
        }),
        ClientBody::Publish(it) => Body::Publish(v1::Publish {
            id: it.id.to_string(),
            channel: it.channel.to_string(),
            r#type: it.kind.to_string(),
            data: it.data.clone(),
            traceparent: text(&it.traceparent),
        }),
        ClientBody::Signal(it) => Body::Signal(v1::SendSignal {
            channel: it.channel.to_string(),
            r#type: it.kind.to_string(),
            data: it.data.clone(),
        }),
        ClientBody::Ack(it) => Body::Ack(v1::Ack {
            channel: it.channel.to_string(),
            delivered: text(&it.delivered),
            read: text(&it.read),
        }),
        ClientBody::Presence { channel } => Body::Presence(v1::GetPresence {
            channel: channel.to_string(),
        }),
        ClientBody::Refresh { token } => Body::Refresh(v1::Refresh {
            token: token.as_str().to_owned(),
        }),
        ClientBody::Pong => Body::Pong(v1::Pong {}),
    };
    v1::ClientFrame {
        req: frame.req,
        body: Some(body),
    }
}

fn subscribe_to_wire(it: &Subscribe) -> v1::Subscribe {
    v1::Subscribe {
        channel: it.channel.to_string(),
        from: match it.from {
            From::Tail => String::new(),
            From::Earliest | From::Acked | From::Last(_) | From::Cursor(_) => it.from.to_string(),
        },
        max_catchup: it.max_catchup,
    }
}

/// The text of something that may be left out: empty if it is.
pub(super) fn text(it: &Option<impl ToString>) -> String {
    it.as_ref().map(ToString::to_string).unwrap_or_default()
}
