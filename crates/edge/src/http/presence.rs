//! Who is on a channel.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use protocol::{Channel, ErrorCode};
use serde_json::{Value, json};

use super::bearer::Bearer;
use super::error::ApiError;
use crate::Edge;

/// `GET /v1/channels/{channel}/presence`: `{"channel", "users", "partial"}`.
pub async fn present(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    channel: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(channel) = channel?;
    let channel = Channel::parse(&channel)
        .map_err(|error| ApiError::new(ErrorCode::BadChannel, error.to_string()))?;
    let present = edge.presence(&caller, &channel).await?;
    Ok(Json(json!({
        "channel": channel,
        "users": present.users,
        "partial": present.partial,
    })))
}
