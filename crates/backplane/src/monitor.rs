//! The task that keeps what is known about the streams up to date.
//!
//! It ends with the backplane's last handle. Nothing it does can fail for
//! good: a stream that does not answer is asked again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::api::code;
use crate::connect::Inner;
use crate::provision::{Provisioned, provision_shard};

/// Ends a task with its owner.
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    pub(crate) fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the monitor, once per backplane.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner
        .monitor
        .get_or_init(|| AbortOnDrop::new(tokio::spawn(run(Arc::downgrade(inner)))));
}

async fn run(weak: Weak<Inner>) {
    let Some(inner) = weak.upgrade() else { return };
    let interval = Duration::from_millis(inner.config.refresh_interval_ms);
    let link = inner.publish.clone();
    // On the connection of the acknowledgements, so that news of a stream
    // arrive in order with what it acknowledges.
    let client = &link.client;
    let stream_events = client.subscribe("$JS.EVENT.ADVISORY.STREAM.*.>").await;
    let Ok(mut advisories) = stream_events else {
        // Only a closed connection refuses a subscription.
        return;
    };
    drop(inner);
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let life = link.life();
        let mut elected = false;
        let only = tokio::select! {
            Some(advisory) = advisories.next() => {
                elected = advisory.subject.contains(".LEADER_ELECTED.");
                // The stream's name is the last token.
                advisory.subject.rsplit('.').next().map(str::to_owned)
            }
            _ = ticks.tick() => None,
            () = link.lost_since(life) => {
                let Some(inner) = weak.upgrade() else { return };
                inner.shards.iter().for_each(|shard| shard.suspect());
                None
            }
        };
        let Some(inner) = weak.upgrade() else { return };
        let sudden = only.is_some();
        for shard in &inner.shards {
            if only.as_ref().is_some_and(|name| *name != shard.stream) {
                continue;
            }
            if sudden {
                shard.suspect();
            }
            if elected {
                shard.disturb();
            }
            let Err(error) = inner.fresh(shard).await else {
                continue;
            };
            if !error.is(code::STREAM_NOT_FOUND) {
                continue;
            }
            tracing::warn!(
                stream = shard.stream,
                "the stream is gone: creating it anew"
            );
            let outcome = provision_shard(&inner, shard, &mut Provisioned::default()).await;
            if let Err(error) = outcome {
                tracing::warn!(stream = shard.stream, %error, "the stream is not back yet");
            }
        }
    }
}
