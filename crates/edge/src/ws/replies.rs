//! Replies that say how a request went.

use std::time::Duration;

use delivery::members::StoreFailure;
use delivery::publish::PublishError;
use protocol::frame::{ErrorBody, ServerBody};
use protocol::{Channel, ErrorCode, ServerFrame};

use crate::admission::Refused;

use super::publishes::{Outcome, Refusal};
use crate::http::error::ApiError;

pub(super) fn published(outcome: Outcome) -> ServerFrame {
    let Outcome {
        req,
        channel,
        id,
        result,
    } = outcome;
    match result {
        Ok(published) => {
            let (cursor, duplicate) = (published.cursor, published.duplicate);
            let body = protocol::frame::Published {
                id,
                channel,
                cursor,
                duplicate,
            };
            ServerFrame::reply(req, ServerBody::Published(body))
        }
        Err(Refusal::Forbidden) => forbidden(req, "publishing to", channel),
        Err(Refusal::Unknown(failure)) => store_error(req, &failure, Some(channel)),
        Err(Refusal::Publish(problem)) => {
            let (code, retry_after) = match &problem {
                PublishError::Unavailable { retry_after, .. } => {
                    (ErrorCode::Unavailable, *retry_after)
                }
                PublishError::Full { retry_after } => (ErrorCode::StreamFull, *retry_after),
                PublishError::Refused { .. } => (ErrorCode::BadRequest, Duration::ZERO),
            };
            let message = match &problem {
                PublishError::Refused { reason } => reason.clone(),
                PublishError::Unavailable { .. } => {
                    "not known to be stored: publish it again under the same id".to_owned()
                }
                PublishError::Full { .. } => "not stored: the stream is full".to_owned(),
            };
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            let body = ErrorBody {
                code,
                message: message.into(),
                retry_after_ms,
                channel: Some(channel),
            };
            ServerFrame::reply(req, ServerBody::Error(body))
        }
    }
}

/// A limit's refusal.
pub(super) fn limited(req: u32, refused: Refused, channel: Option<Channel>) -> ServerFrame {
    let wait = refused.retry_after.as_millis();
    let body = ErrorBody {
        code: refused.limit.code(),
        message: refused.limit.message().into(),
        retry_after_ms: u64::try_from(wait).unwrap_or(u64::MAX).max(1),
        channel,
    };
    ServerFrame::reply(req, ServerBody::Error(body))
}

pub(super) fn forbidden(req: u32, what: &str, channel: Channel) -> ServerFrame {
    let message = format!("neither the token nor a membership allows {what} {channel}");
    error(req, ErrorCode::Forbidden, message, Some(channel))
}

pub(super) fn store_error(
    req: u32,
    failure: &StoreFailure,
    channel: Option<Channel>,
) -> ServerFrame {
    match failure {
        StoreFailure::Unavailable { retry_after, .. } => {
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            let message = "the store is away for the moment".into();
            let body = ErrorBody {
                code: ErrorCode::Unavailable,
                message,
                retry_after_ms,
                channel,
            };
            ServerFrame::reply(req, ServerBody::Error(body))
        }
        StoreFailure::Refused { reason } => {
            error(req, ErrorCode::BadRequest, reason.clone(), channel)
        }
    }
}

pub(super) fn error(
    req: u32,
    code: ErrorCode,
    message: impl Into<Box<str>>,
    channel: Option<Channel>,
) -> ServerFrame {
    let body = ErrorBody {
        code,
        message: message.into(),
        retry_after_ms: 0,
        channel,
    };
    ServerFrame::reply(req, ServerBody::Error(body))
}

/// What the HTTP API would have answered.
pub(super) fn refused(req: u32, problem: &ApiError, channel: Channel) -> ServerFrame {
    let retry_after = problem.retry_after().unwrap_or_default();
    let body = ErrorBody {
        code: problem.code(),
        message: problem.message().into(),
        retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
        channel: Some(channel),
    };
    ServerFrame::reply(req, ServerBody::Error(body))
}
