//! What went wrong, as JSON with a stable code and a retry verdict.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use delivery::PageError;
use delivery::members::StoreFailure;
use delivery::publish::PublishError;
use protocol::{Channel, ErrorCode};
use serde::Serialize;

use crate::auth::ticket::TicketError;
use crate::auth::{BearerError, TokenError};

/// When a request is to be retried that names no time of its own.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// A request's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    channel: Option<Channel>,
}

/// `{"error": {…}}`, alone or in the place of a batch item's result.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    error: ErrorFields,
}

#[derive(Debug, Serialize)]
struct ErrorFields {
    code: &'static str,
    message: Cow<'static, str>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<Channel>,
}

impl ApiError {
    /// A failure with a text for the caller.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: code.is_retryable().then_some(RETRY_AFTER_DEFAULT),
            channel: None,
        }
    }

    pub(crate) fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Names the channel that it is about.
    pub(crate) fn about(mut self, channel: &Channel) -> Self {
        self.channel = Some(channel.clone());
        self
    }

    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The text for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When to try again, where that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The HTTP status that goes with the code.
    pub fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::BadFrame
            | ErrorCode::BadChannel
            | ErrorCode::BadCursor
            | ErrorCode::BadRequest
            | ErrorCode::TooManySubscriptions => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::AlreadySubscribed | ErrorCode::NotSubscribed => StatusCode::CONFLICT,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable | ErrorCode::StreamFull => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn body(self) -> ErrorBody {
        let as_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ErrorBody {
            error: ErrorFields {
                code: self.code.as_str(),
                message: self.message,
                retryable: self.code.is_retryable(),
                retry_after_ms: self.retry_after.map(as_ms),
                channel: self.channel,
            },
        }
    }

    pub(super) fn into_body(self) -> Json<impl Serialize> {
        Json(self.body())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let code = self.code;
        let retry_after = self.retry_after;
        let mut response = (status, self.into_body()).into_response();
        // For the count of errors.
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        if let Some(after) = retry_after {
            // The header counts whole seconds; early would be too early.
            let seconds = after.as_millis().div_ceil(1_000).max(1) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"rejoin\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<BearerError> for ApiError {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Token(error) => error.into(),
            BearerError::UnknownApiKey => Self::new(ErrorCode::Unauthorized, error.to_string()),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        let code = match error {
            TicketError::Invalid | TicketError::Expired | TicketError::Used => {
                ErrorCode::Unauthorized
            }
            TicketError::Busy => ErrorCode::RateLimited,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StoreFailure> for ApiError {
    fn from(failure: StoreFailure) -> Self {
        match failure {
            // The reason is for the operator's log; the store logs it.
            StoreFailure::Unavailable { retry_after, .. } => {
                let message = "the store is away for the moment";
                Self::new(ErrorCode::Unavailable, message).after(retry_after)
            }
            StoreFailure::Refused { reason } => Self::new(ErrorCode::BadRequest, reason),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            // The reason is for the operator's log; the backplane logs it.
            PublishError::Unavailable { retry_after, .. } => Self::new(
                ErrorCode::Unavailable,
                "not known to be stored; retry under the same id",
            )
            .after(retry_after),
            PublishError::Full { retry_after } => Self::new(
                ErrorCode::StreamFull,
                "the stream is full; nothing was stored",
            )
            .after(retry_after),
            PublishError::Refused { reason } => Self::new(ErrorCode::BadRequest, reason),
        }
    }
}

impl From<PageError> for ApiError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Unavailable { retry_after, .. } => Self::new(
                ErrorCode::Unavailable,
                "older messages cannot be read for the time being",
            )
            .after(retry_after),
            PageError::Expired { .. } | PageError::UnknownEpoch => {
                Self::new(ErrorCode::NotFound, error.to_string())
            }
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        // The one path parameter there is.
        Self::new(ErrorCode::BadChannel, rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(
                ErrorCode::TooLarge,
                "the body is longer than this edge takes (limits)",
            ),
            _ => Self::new(ErrorCode::BadRequest, "the body could not be read"),
        }
    }
}
