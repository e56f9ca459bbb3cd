//! Who a credential belongs to, and what it grants.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::header};
use serde_json::json;

use super::bearer::Bearer;
use crate::Edge;
use crate::auth::Caller;

/// `GET /v1/whoami`: for a token `{user, expires_ms, read, publish}`, for an
/// API key `{key, admin, read, publish, members}`; with the edge's name and
/// version. Channels are given as the patterns that grant them; rooms that
/// a user is a member of are not among them.
pub async fn whoami(State(edge): State<Edge>, Bearer(caller): Bearer) -> Response {
    let mut body = match &caller {
        Caller::User(grants) => json!({
            "user": grants.user,
            "expires_ms": grants.expires_s.saturating_mul(1_000),
        }),
        Caller::Service(grants) => json!({
            "key": grants.name,
            "admin": grants.admin,
            "members": grants.manageable(),
        }),
    };
    body["read"] = json!(caller.readable());
    body["publish"] = json!(caller.publishable());
    body["edge"] = json!(edge.config().name);
    body["version"] = json!(env!("CARGO_PKG_VERSION"));
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
