//! Revoking tokens, for administrators.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use protocol::ErrorCode;
use serde_json::{Value, json};

use super::bearer::Admin;
use super::error::ApiError;
use crate::Edge;
use crate::revocations::RevocationBody;

/// `POST /v1/admin/revocations`: `{"user": …, "before_ms"?: …}` or `{"token":
/// …}`, answered with what stands. All edges act within a second.
pub async fn revoke(
    State(edge): State<Edge>,
    _: Admin,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<RevocationBody>, ApiError> {
    let body = serde_json::from_slice(&body?).map_err(|error| {
        let expected = "expected {\"user\": …, \"before_ms\"?: …} or {\"token\": …}";
        ApiError::new(ErrorCode::BadRequest, format!("{expected}: {error}"))
    })?;
    Ok(Json(edge.revoke(body).await?))
}

/// `DELETE /v1/admin/revocations?user=…` or `?token=…`: `{"lifted": 0 or 1}`.
pub async fn lift(
    State(edge): State<Edge>,
    _: Admin,
    query: Result<Query<RevocationBody>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(body) = query?;
    if body.before_ms.is_some() || body.expires_ms.is_some() {
        let message = "a revocation is taken back as a whole: expected user or token";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let lifted = edge.lift_revocation(&body).await?;
    Ok(Json(json!({ "lifted": u8::from(lifted) })))
}
