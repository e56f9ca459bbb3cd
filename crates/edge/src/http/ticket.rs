//! Tickets for event streams of browsers.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;
use serde_json::json;

use super::bearer::Bearer;
use super::error::ApiError;
use crate::Edge;
use crate::auth::ticket::TICKET_TTL_S;
use crate::auth::{Caller, unix_now_s};

/// `POST /v1/tickets`: a ticket for one `GET /v1/events?ticket=…` on any
/// edge, with the rights of the token to read.
pub async fn issue(State(edge): State<Edge>, Bearer(caller): Bearer) -> Result<Response, ApiError> {
    let Caller::User(grants) = caller else {
        let message = "tickets are for users: expected a token, not an API key";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    };
    let tickets = edge.auth().tickets().ok_or_else(unsupported)?;
    let ticket = tickets
        .issue(&grants, unix_now_s())
        .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let body = json!({ "ticket": ticket, "expires_in_ms": TICKET_TTL_S * 1_000 });
    let no_store = HeaderValue::from_static("no-store");
    Ok(([(header::CACHE_CONTROL, no_store)], Json(body)).into_response())
}

pub(super) fn unsupported() -> ApiError {
    let message = "this edge has no key for tickets (auth.ticket_key)";
    ApiError::new(ErrorCode::Unsupported, message)
}
