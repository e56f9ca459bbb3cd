//! Who is in which room: for services, which decide about it.
//!
//! A room is the channel `room:{id}`. Changes are durable when they are
//! answered, reach every edge within a second, and may be made again.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use delivery::members::{Members, ROOM_NAMESPACE};
use protocol::{Channel, ErrorCode, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bearer::Bearer;
use super::error::ApiError;
use crate::Edge;
use crate::auth::Caller;

/// Items of a list unless `limit` says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// The most that `limit` may be: what the store gives at a time.
const LIMIT_MAX: usize = 1_000;

/// Users in one bulk change: what the store takes at a time.
const CHANGES_MAX: usize = 10_000;

/// `PUT /v1/rooms/{id}/members/{user}`: `{"added": 0 or 1}`.
pub async fn add(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path((room, user)) = path?;
    let (members, room) = managed(&edge, &caller, &room)?;
    let added = members.add(room, vec![user_id(&user)?]).await?;
    Ok(Json(json!({ "added": added })))
}

/// `DELETE /v1/rooms/{id}/members/{user}`: `{"removed": 0 or 1}`. Ends the
/// user's subscriptions to the room on every edge.
pub async fn remove(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path((room, user)) = path?;
    let (members, room) = managed(&edge, &caller, &room)?;
    let removed = members.remove(room, vec![user_id(&user)?]).await?;
    Ok(Json(json!({ "removed": removed })))
}

/// The body of [`change`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    #[serde(default)]
    add: Vec<UserId>,
    #[serde(default)]
    remove: Vec<UserId>,
}

/// `POST /v1/rooms/{id}/members`: `{"add": […], "remove": […]}`, answered
/// with how many were new and how many were in it.
pub async fn change(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    room: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (members, room) = managed(&edge, &caller, &room?)?;
    let Changes { add, remove } = serde_json::from_slice(&body?).map_err(|error| {
        let message = format!("expected {{\"add\": [user, …], \"remove\": [user, …]}}: {error}");
        ApiError::new(ErrorCode::BadRequest, message)
    })?;
    if add.len() + remove.len() > CHANGES_MAX {
        let message = format!("at most {CHANGES_MAX} users at a time");
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    let added: std::collections::HashSet<_> = add.iter().collect();
    if let Some(both) = remove.iter().find(|user| added.contains(user)) {
        let message = format!("{both} is to be added and removed");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let added = match add.is_empty() {
        true => 0,
        false => members.add(room.clone(), add).await?,
    };
    let removed = match remove.is_empty() {
        true => 0,
        false => members.remove(room, remove).await?,
    };
    Ok(Json(json!({ "added": added, "removed": removed })))
}

/// The query of a list: the items after one, in ascending order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/rooms/{id}/members?after=&limit=`.
pub async fn list(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    room: Result<Path<String>, PathRejection>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let (members, room) = managed(&edge, &caller, &room?)?;
    let Query(query) = query?;
    let after = query.after.as_deref().map(user_id).transpose()?;
    let listing = members.members(room, after, limit(query.limit)?).await?;
    Ok(Json(page("members", listing.items, listing.more)))
}

/// `GET /v1/users/{user}/rooms?after=&limit=`: for the user and for
/// administrators.
pub async fn of_user(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    user: Result<Path<String>, PathRejection>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let user = user_id(&user?)?;
    if !caller.is_user(&user) && !caller.is_admin() {
        let message = "this needs the user's own token or an API key with admin = true";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let members = edge.members().ok_or_else(unsupported)?;
    let Query(query) = query?;
    let after = query.after.as_deref().map(Channel::parse).transpose();
    let after = after.map_err(|error| ApiError::new(ErrorCode::BadChannel, error.to_string()))?;
    let listing = members.rooms(user, after, limit(query.limit)?).await?;
    Ok(Json(page("rooms", listing.items, listing.more)))
}

/// The room, if the caller may see and change who is in it.
fn managed<'a>(
    edge: &'a Edge,
    caller: &Caller,
    room: &str,
) -> Result<(&'a Arc<dyn Members>, Channel), ApiError> {
    let room = Channel::from_parts(ROOM_NAMESPACE, room)
        .map_err(|error| ApiError::new(ErrorCode::BadChannel, error.to_string()))?;
    if !caller.may_manage(&room) {
        let message =
            format!("this needs an API key with {room} among its `members`, or with admin = true");
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok((edge.members().ok_or_else(unsupported)?, room))
}

fn unsupported() -> ApiError {
    let message = "this edge has no store, so it knows no rooms";
    ApiError::new(ErrorCode::Unsupported, message)
}

/// A user's name in a path or query.
pub(super) fn user_id(text: &str) -> Result<UserId, ApiError> {
    UserId::parse(text).map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

fn limit(asked: Option<usize>) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    let message = format!("limit is 1 to {LIMIT_MAX}");
    Err(ApiError::new(ErrorCode::BadRequest, message))
}

fn page(what: &str, items: Vec<impl Serialize>, more: bool) -> Value {
    json!({ what: items, "more": more })
}
