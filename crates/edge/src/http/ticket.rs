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
use crate::auth::ticket::{TICKET_TTL_S, TicketError};
use crate::auth::{Caller, Grants, unix_now_s};

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

impl Edge {
    /// What a ticket grants, once in the whole deployment, or once per edge
    /// where there is no store.
    ///
    /// # Errors
    /// `unauthorized` for what is no ticket, expired, used or revoked;
    /// `unavailable` while nobody can tell whether it was used.
    pub async fn redeem(&self, ticket: &str) -> Result<Grants, ApiError> {
        let tickets = self.auth().tickets().ok_or_else(unsupported)?;
        let redeemed = tickets.redeem(ticket, unix_now_s())?;
        self.auth().check_revoked(&redeemed.grants)?;
        if let Some(records) = self.access() {
            let end_ms = i64::try_from(redeemed.end_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
            if !records.take_ticket(redeemed.id, end_ms).await? {
                return Err(TicketError::Used.into());
            }
        }
        Ok(redeemed.grants)
    }
}

fn unsupported() -> ApiError {
    let message = "this edge has no key for tickets (auth.ticket_key)";
    ApiError::new(ErrorCode::Unsupported, message)
}
