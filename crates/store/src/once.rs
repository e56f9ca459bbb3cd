//! Retried publishes of any age yield one message.

use std::sync::Arc;
use std::time::Duration;

use delivery::archiver::Clock;
use delivery::publish::{Publication, Publish, PublishError, Published, Publisher};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, MessageId};

use crate::archive::{IdLookup, IdQuestion, find};
use crate::batch::Batcher;
use crate::connect::Store;
use crate::error::RETRY_AFTER;

/// An id may lie this far ahead of our clock and still count as new.
const CLOCK_AHEAD_MS: i64 = 5_000;

/// Publishes through another publisher whose stream recognises an id only for
/// its duplicate window, and makes that last as long as the archive keeps
/// messages.
///
/// An id that is not clearly younger than the window is looked up in the
/// archive first. The archive counts as asked only if it covers everything
/// that the stream stored before the window; else the answer is `Unavailable`,
/// never a possible duplicate. Half of the window is left for the clocks of
/// clients, a quarter for those of the servers.
#[derive(Clone)]
pub struct OncePublisher {
    inner: Arc<dyn Publish>,
    lookup: Arc<IdLookup>,
    window: Duration,
    now_ms: Clock,
    began_ms: Option<Began>,
}

/// When the stream behind a channel began to remember ids, in milliseconds
/// since the Unix epoch, where that is known.
pub type Began = Arc<dyn Fn(&Channel) -> Option<i64> + Send + Sync>;

impl OncePublisher {
    /// Wraps `inner`, whose duplicate window is `window` (2 minutes unless the
    /// stream was provisioned otherwise). Must be called within a runtime.
    pub fn new(store: &Store, inner: Arc<dyn Publish>, window: Duration, now_ms: Clock) -> Self {
        Self {
            inner,
            lookup: Arc::new(Batcher::start(store, find)),
            window,
            now_ms,
            began_ms: None,
        }
    }

    /// Streams may be replaced by others, which do not know what those before
    /// them stored. An id from before that is looked up as well.
    #[must_use]
    pub fn remembering_since(mut self, began_ms: Began) -> Self {
        self.began_ms = Some(began_ms);
        self
    }

    fn is_from_before(&self, publication: &Publication) -> bool {
        let began = self
            .began_ms
            .as_ref()
            .and_then(|began| began(&publication.channel));
        let created = publication.id.created_ms();
        let created = created.and_then(|ms| i64::try_from(ms).ok());
        began
            .zip(created)
            .is_some_and(|(began, created)| created <= began.saturating_add(CLOCK_AHEAD_MS))
    }
}

/// What an id's own time says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// If it was published before, the stream still remembers.
    InWindow,
    /// It may have been published before the window.
    Unsure,
}

fn age(id: &MessageId, window: Duration, now_ms: i64) -> Age {
    let trusted_ms = i64::try_from(window.as_millis() / 2).unwrap_or(i64::MAX);
    match id.created_ms().and_then(|ms| i64::try_from(ms).ok()) {
        Some(created_ms) => {
            let age_ms = now_ms.saturating_sub(created_ms);
            if age_ms <= trusted_ms && age_ms >= -CLOCK_AHEAD_MS {
                Age::InWindow
            } else {
                Age::Unsure
            }
        }
        None => Age::Unsure,
    }
}

/// Whether everything that left the stream's memory is archived.
fn is_covered(covered_ms: i64, window: Duration, now_ms: i64) -> bool {
    let allowed_ms = i64::try_from(window.as_millis() * 3 / 4).unwrap_or(i64::MAX);
    now_ms.saturating_sub(covered_ms) <= allowed_ms
}

fn scope(publisher: &Publisher) -> String {
    match publisher {
        Publisher::User(user) => format!("u.{user}"),
        Publisher::Service(name) => format!("s.{name}"),
    }
}

impl Publish for OncePublisher {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        let now_ms = (self.now_ms)();
        let age = age(&publication.id, self.window, now_ms);
        if age == Age::InWindow && !self.is_from_before(&publication) {
            return self.inner.publish(publication);
        }
        async move {
            let question = IdQuestion {
                scope: scope(&publication.publisher),
                channel: publication.channel.clone(),
                id: publication.id.clone(),
            };
            let found = self
                .lookup
                .ask(question)
                .await
                .map_err(|error| unavailable(error.to_string()))?;
            if let Some(cursor) = found.position {
                return Ok(Published {
                    cursor,
                    duplicate: true,
                });
            }
            // What an earlier stream held and the archive does not have is gone,
            // so there is nothing to wait for.
            if age == Age::Unsure && !is_covered(found.covered_ms, self.window, now_ms) {
                return Err(unavailable(String::from(
                    "the archive is too far behind to tell whether the message is a duplicate",
                )));
            }
            self.inner.publish(publication).await
        }
        .boxed()
    }
}

fn unavailable(reason: String) -> PublishError {
    PublishError::Unavailable {
        retry_after: RETRY_AFTER,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(120);
    /// The time of the UUIDv7 of RFC 9562, appendix A.6.
    const MADE_MS: i64 = 1_645_557_742_000;

    #[test]
    fn only_an_id_that_is_clearly_in_the_window_is_published_at_once() {
        let id = MessageId::parse("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        for (later_ms, expected) in [
            (-5_001, Age::Unsure),
            (-5_000, Age::InWindow),
            (0, Age::InWindow),
            (60_000, Age::InWindow),
            (60_001, Age::Unsure),
            (i64::MAX - MADE_MS, Age::Unsure),
        ] {
            assert_eq!(age(&id, WINDOW, MADE_MS + later_ms), expected, "{later_ms}");
        }
        let timeless = MessageId::parse("order-7").unwrap();
        assert_eq!(age(&timeless, WINDOW, MADE_MS), Age::Unsure);
    }

    #[test]
    fn an_archive_that_lags_more_than_the_window_proves_nothing() {
        assert!(is_covered(MADE_MS - 90_000, WINDOW, MADE_MS));
        assert!(!is_covered(MADE_MS - 90_001, WINDOW, MADE_MS));
        assert!(!is_covered(0, WINDOW, MADE_MS));
    }
}
