//! What a user has not read, and telling what was read: for clients without
//! a WebSocket, and for services.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use delivery::receipts::Ack;
use protocol::frame::ServerBody;
use protocol::{Channel, Cursor, Device, ErrorCode, UserId};
use serde::{Deserialize, Serialize};

use super::bearer::Bearer;
use super::error::ApiError;
use super::listening::json;
use super::rooms::user_id;
use crate::Edge;
use crate::auth::Caller;

/// What a user has not read.
#[derive(Debug, Serialize)]
pub struct Inbox {
    user: UserId,
    /// The sum over all channels.
    unread: u64,
    channels: Vec<ChannelInbox>,
}

#[derive(Debug, Serialize)]
struct ChannelInbox {
    channel: Channel,
    unread: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Cursor>,
}

/// `GET /v1/users/{user}/inbox`: unread messages of the user's inbox, rooms
/// and other channels with a read position, each counted up to 1000 and a
/// little more. For the user, and for keys that may read the inbox.
pub async fn inbox(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    user: Result<Path<String>, PathRejection>,
) -> Result<Json<Inbox>, ApiError> {
    let user = user_id(&user?)?;
    let allowed = match &caller {
        Caller::User(_) => caller.is_user(&user),
        Caller::Service(_) => caller.is_admin() || caller.may_read(&Channel::inbox(&user)),
    };
    if !allowed {
        let message = "this needs the user's own token, or an API key that may read the inbox";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let receipts = edge.receipts().ok_or_else(unsupported)?;
    let unread = receipts.inbox(user.clone()).await?;
    let channels: Vec<ChannelInbox> = unread
        .into_iter()
        .map(|unread| ChannelInbox {
            unread: edge.hub().complete_unread(&unread, &user),
            channel: unread.channel,
            read: unread.read,
        })
        .collect();
    Ok(Json(Inbox {
        unread: channels.iter().map(|channel| channel.unread).sum(),
        user,
        channels,
    }))
}

/// The body of [`acknowledge`]: an `ack` frame's, with the device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody {
    device: Device,
    channel: Channel,
    delivered: Option<Cursor>,
    read: Option<Cursor>,
}

/// `POST /v1/users/{user}/acks`: what an `ack` frame does, for the user
/// alone; answered with the `receipt` frame.
pub async fn acknowledge(
    State(edge): State<Edge>,
    Bearer(caller): Bearer,
    user: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let user = user_id(&user?)?;
    if !caller.is_user(&user) {
        let message = "this needs the user's own token";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
    let body: AckBody = serde_json::from_slice(&body?).map_err(|error| {
        bad(format!(
            "expected {{device, channel, delivered?, read?}}: {error}"
        ))
    })?;
    let AckBody {
        device,
        channel,
        delivered,
        read,
    } = body;
    if delivered.is_none() && read.is_none() {
        return Err(bad("expected delivered, read or both".to_owned()));
    }
    let receipts = edge.receipts().ok_or_else(unsupported)?.clone();
    edge.check_read(&caller, &channel).await?;
    let ack = Ack {
        user,
        device,
        channel,
        delivered,
        read,
    };
    let receipt = edge.acknowledge(&*receipts, ack, None, true).await?;
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, json(ServerBody::Receipt(receipt))))
}

fn unsupported() -> ApiError {
    let message = "this edge has no store, so it keeps no receipts";
    ApiError::new(ErrorCode::Unsupported, message)
}
