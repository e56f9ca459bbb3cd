//! Whether this user may do what an edge does.
//!
//! A server says nothing to the sender of a message that it does not let
//! through, so each question is one that JetStream answers with an error and
//! without an effect. No answer is the answer.

use async_nats::{HeaderMap, Request};
use protocol::Channel;

use crate::api::{self, ApiError};
use crate::connect::Inner;

/// The subjects that did not get through. An edge that does not archive needs
/// fewer.
pub(super) async fn forbidden(inner: &Inner, archives: bool) -> Vec<String> {
    let mut forbidden = Vec::new();
    let Ok(channel) = Channel::from_parts("rejoin-check", "0") else {
        return forbidden;
    };
    let shard = inner.shard(channel.shard(inner.config.shards));
    let stream = &shard.stream;
    // A last sequence that there never is: refused.
    let mut impossible = HeaderMap::new();
    impossible.insert("Nats-Expected-Last-Sequence", u64::MAX.to_string());
    let publish = Request::new().headers(impossible);
    // Requests that mean nothing: refused for that.
    let nothing = || Request::new().payload("{".into());
    let mut questions = vec![
        (inner.names.message(&channel), publish),
        (format!("$JS.API.STREAM.MSG.GET.{stream}"), nothing()),
        (format!("$JS.API.DIRECT.GET.{stream}"), nothing()),
        (
            format!("$JS.API.CONSUMER.CREATE.{stream}.rejoin-check"),
            nothing(),
        ),
    ];
    if archives {
        questions.push((format!("$JS.API.STREAM.CREATE.{stream}"), nothing()));
        questions.push((format!("$JS.API.STREAM.UPDATE.{stream}"), nothing()));
    }
    for (subject, request) in questions {
        let timeout = inner.config.request_timeout();
        let asked = api::request(&inner.catchup.client, subject.clone(), request, timeout);
        match asked.await {
            Err(ApiError::Timeout(_)) => forbidden.push(subject),
            // Any answer has got through, and so has the news that nobody
            // listens: that is not this user's fault.
            Ok(_)
            | Err(
                ApiError::NoResponders
                | ApiError::Behind
                | ApiError::NotSent(_)
                | ApiError::TooLarge(_)
                | ApiError::Server { .. }
                | ApiError::Malformed(_),
            ) => {}
        }
    }
    forbidden
}
