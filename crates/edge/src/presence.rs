//! Who is on a channel, for clients.
//!
//! Every answer asks all edges, so clients together ask for a channel at most
//! once a second over each edge: the others share what it said.

use std::collections::HashMap;
use std::time::Duration;

use delivery::members::ROOM_NAMESPACE;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use protocol::{Channel, ErrorCode};
use tokio::time::Instant;

use crate::Edge;
use crate::admin::{self, Present};
use crate::auth::Caller;
use crate::http::error::ApiError;

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(1);

/// Channels that are asked about within that time. More are told to come
/// back: each is a question to the whole fleet.
const CHANNELS_MAX: usize = 256;

type Answer = Shared<BoxFuture<'static, Result<Present, ApiError>>>;

/// What was asked in the last second.
#[derive(Default)]
pub(crate) struct PresenceDesk {
    asked: Mutex<HashMap<Channel, (Instant, Answer)>>,
}

impl PresenceDesk {
    fn ask(&self, edge: &Edge, channel: &Channel) -> Option<Answer> {
        let now = Instant::now();
        let mut asked = self.asked.lock();
        if let Some((at, answer)) = asked.get(channel)
            && now - *at < FRESH
        {
            return Some(answer.clone());
        }
        asked.retain(|_, (at, _)| now - *at < FRESH);
        if asked.len() >= CHANNELS_MAX {
            return None;
        }
        let (edge, of) = (edge.clone(), channel.clone());
        let answer = async move { admin::present(&edge, &of).await };
        let answer = answer.boxed().shared();
        asked.insert(channel.clone(), (now, answer.clone()));
        Some(answer)
    }
}

impl Edge {
    /// Who is on a channel, if the caller may know: in a room, whoever may
    /// read it; elsewhere, where strangers share a channel, services alone.
    pub(crate) async fn presence(
        &self,
        caller: &Caller,
        channel: &Channel,
    ) -> Result<Present, ApiError> {
        let among_strangers = channel.namespace() != ROOM_NAMESPACE;
        if among_strangers && matches!(caller, Caller::User(_)) {
            let message = format!("who is on {channel} is for services with an API key");
            return Err(ApiError::new(ErrorCode::Forbidden, message).about(channel));
        }
        self.check_read(caller, channel).await?;
        match self.presence_desk().ask(self, channel) {
            Some(answer) => answer.await,
            None => {
                let message = "too many channels are asked about at the moment";
                Err(ApiError::new(ErrorCode::Unavailable, message).about(channel))
            }
        }
    }
}
