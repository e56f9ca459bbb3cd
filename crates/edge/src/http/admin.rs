//! What operators do with the fleet, over any of its edges: the same
//! operations as the NATS service, with the same JSON.

use std::collections::BTreeMap;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::ErrorCode;

use super::bearer::Admin;
use super::error::ApiError;
use crate::Edge;
use crate::admin::{self, Operation};

/// `GET /v1/admin/{operation}?key=value`: what changes nothing.
pub async fn read(
    State(edge): State<Edge>,
    _: Admin,
    operation: Result<Path<String>, PathRejection>,
    query: Result<Query<BTreeMap<String, String>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (operation, Query(query)) = (known(&operation?)?, query?);
    if !operation.is_read() && (operation != Operation::Log || query.contains_key("filter")) {
        let message = "this changes something: POST it";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    // Texts in a JSON object can always be written.
    let body = serde_json::to_vec(&query).unwrap_or_default();
    answer(edge.administer(operation, &body).await)
}

/// `POST /v1/admin/{operation}` with a JSON object.
pub async fn act(
    State(edge): State<Edge>,
    Admin(by): Admin,
    operation: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let operation = known(&operation?)?;
    admin::note(operation, &by.name);
    answer(edge.administer(operation, &body?).await)
}

fn known(name: &str) -> Result<Operation, ApiError> {
    Operation::parse(name).ok_or_else(|| {
        let all = Operation::ALL.map(Operation::as_str).join(", ");
        ApiError::new(ErrorCode::NotFound, format!("the operations are {all}"))
    })
}

fn answer(json: Result<Bytes, ApiError>) -> Result<Response, ApiError> {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((headers, json?).into_response())
}
