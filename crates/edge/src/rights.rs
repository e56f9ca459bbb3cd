//! Which channels a caller reaches: what its token or key grants, and in
//! rooms what a membership grants to users. The one place that says so.

use delivery::members::{ROOM_NAMESPACE, StoreFailure};
use futures_util::future::BoxFuture;
use protocol::{Channel, ErrorCode, UserId};

use crate::Edge;
use crate::auth::Caller;
use crate::http::error::ApiError;

impl Edge {
    /// Asks whether a user is a member, where that can grant anything.
    /// Members may read the room and publish to it.
    pub(crate) fn membership(
        &self,
        user: &UserId,
        channel: &Channel,
    ) -> Option<BoxFuture<'static, Result<bool, StoreFailure>>> {
        let members = self
            .members()
            .filter(|_| channel.namespace() == ROOM_NAMESPACE)?
            .clone();
        let (room, user) = (channel.clone(), user.clone());
        Some(Box::pin(async move { members.contains(room, user).await }))
    }

    /// Whether the caller may read a channel's messages.
    pub(crate) async fn check_read(
        &self,
        caller: &Caller,
        channel: &Channel,
    ) -> Result<(), ApiError> {
        self.check(caller, channel, caller.may_read(channel), "reading")
            .await
    }

    /// Whether the caller may publish to a channel.
    pub(crate) async fn check_publish(
        &self,
        caller: &Caller,
        channel: &Channel,
    ) -> Result<(), ApiError> {
        let granted = caller.may_publish(channel);
        self.check(caller, channel, granted, "publishing to").await
    }

    async fn check(
        &self,
        caller: &Caller,
        channel: &Channel,
        granted: bool,
        what: &str,
    ) -> Result<(), ApiError> {
        if granted {
            return Ok(());
        }
        let membership = match caller {
            Caller::User(grants) => self.membership(&grants.user, channel),
            Caller::Service(_) => None,
        };
        let member = match membership {
            Some(membership) => membership
                .await
                .map_err(|failure| ApiError::from(failure).about(channel))?,
            None => false,
        };
        if member {
            return Ok(());
        }
        let message = match caller {
            Caller::User(_) => {
                format!("neither the token nor a membership allows {what} {channel}")
            }
            Caller::Service(_) => format!("this key does not allow {what} {channel}"),
        };
        Err(ApiError::new(ErrorCode::Forbidden, message).about(channel))
    }
}
