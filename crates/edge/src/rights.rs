//! Which channels a caller reaches: what its token or key grants, in rooms
//! what a membership grants to users, and what the application allows them if
//! it is asked. The one place that says so.

use delivery::members::{ROOM_NAMESPACE, StoreFailure};
use futures_util::future::BoxFuture;
use protocol::{Channel, ErrorCode, UserId};

use crate::Edge;
use crate::auth::{Action, Caller};
use crate::http::error::ApiError;

impl Edge {
    /// Asks whether a user is a member, and if not whether the application
    /// allows it, where either can grant anything. Members may read the room
    /// and publish to it. Who cannot answer grants nothing.
    pub(crate) fn ask_right(
        &self,
        user: &UserId,
        channel: &Channel,
        action: Action,
    ) -> Option<BoxFuture<'static, Result<bool, StoreFailure>>> {
        let members = self
            .members()
            .filter(|_| channel.namespace() == ROOM_NAMESPACE)
            .cloned();
        let authorizer = self.auth().authorizer().cloned();
        if members.is_none() && authorizer.is_none() {
            return None;
        }
        let (user, channel) = (user.clone(), channel.clone());
        Some(Box::pin(async move {
            if let Some(members) = members
                && members.contains(channel.clone(), user.clone()).await?
            {
                return Ok(true);
            }
            match authorizer {
                Some(authorizer) => authorizer.allows(user, channel, action).await,
                None => Ok(false),
            }
        }))
    }

    /// Whether the caller may read a channel's messages.
    pub(crate) async fn check_read(
        &self,
        caller: &Caller,
        channel: &Channel,
    ) -> Result<(), ApiError> {
        let granted = caller.may_read(channel);
        self.check(caller, channel, granted, Action::Read).await
    }

    /// Whether the caller may publish to a channel.
    pub(crate) async fn check_publish(
        &self,
        caller: &Caller,
        channel: &Channel,
    ) -> Result<(), ApiError> {
        let granted = caller.may_publish(channel);
        self.check(caller, channel, granted, Action::Publish).await
    }

    async fn check(
        &self,
        caller: &Caller,
        channel: &Channel,
        granted: bool,
        action: Action,
    ) -> Result<(), ApiError> {
        if granted {
            return Ok(());
        }
        let membership = match caller {
            Caller::User(grants) => self.ask_right(&grants.user, channel, action),
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
        let what = match action {
            Action::Read => "reading",
            Action::Publish => "publishing to",
        };
        let message = match caller {
            Caller::User(_) => {
                format!("neither the token nor a membership allows {what} {channel}")
            }
            Caller::Service(_) => format!("this key does not allow {what} {channel}"),
        };
        Err(ApiError::new(ErrorCode::Forbidden, message).about(channel))
    }
}
