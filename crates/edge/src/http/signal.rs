//! Signals over HTTP, for clients without a WebSocket.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use delivery::signal::Signal;
use protocol::names::check_type;
use protocol::{Channel, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::bearer::Bearer;
use super::error::ApiError;
use crate::Edge;

/// The query of [`send`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalQuery {
    #[serde(rename = "type", default)]
    kind: String,
}

/// `POST /v1/channels/{channel}/signals?type=<type>`: the body goes to those
/// who are subscribed now, at most once; nobody knows whether it arrived.
pub async fn send(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    channel: Result<Path<String>, PathRejection>,
    query: Result<Query<SignalQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let channel = Channel::parse(&channel?)
        .map_err(|error| ApiError::new(ErrorCode::BadChannel, error.to_string()))?;
    let Query(SignalQuery { kind }) = query?;
    check_type(&kind).map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
    let data = body?;
    edge.check_publish(&caller, &channel).await?;
    if let Some(user) = caller.sender() {
        edge.admission().publish(&user)?;
    }
    let signals = edge
        .signals()
        .ok_or_else(|| ApiError::new(ErrorCode::Unsupported, "this edge passes no signals on"))?;
    let signal = Signal {
        channel,
        kind: kind.into(),
        sender: caller.sender(),
        data,
    };
    signals
        .send(signal)
        .await
        .map_err(|_| ApiError::new(ErrorCode::Unavailable, "the signal was not sent"))?;
    Ok(Json(json!({})))
}
