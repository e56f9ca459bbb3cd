//! Retried publishes of any age.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use delivery::archive::{ArchiveBatch, ArchiveSink, SourceMessage};
use delivery::publish::{Publication, Publish, PublishError, Published, Publisher};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use protocol::{Cursor, MessageId};
use store::{OncePublisher, Store};
use uuid::Uuid;

use crate::world::{EPOCH, START_MS, Writer, channel, store, user};

const WINDOW: Duration = Duration::from_secs(120);

/// A stream's publisher that forgets ids after its duplicate window, and may
/// lose acknowledgements.
pub(crate) struct ForgetfulStream {
    now_ms: Arc<AtomicI64>,
    state: Mutex<StreamState>,
    lose_every: u64,
}

#[derive(Default)]
struct StreamState {
    messages: Vec<SourceMessage>,
    known: HashMap<String, (i64, u64)>,
    calls: u64,
}

impl ForgetfulStream {
    pub(crate) fn new(now_ms: &Arc<AtomicI64>, lose_every: u64) -> Arc<Self> {
        Arc::new(Self {
            now_ms: Arc::clone(now_ms),
            state: Mutex::default(),
            lose_every,
        })
    }

    pub(crate) fn messages(&self) -> Vec<SourceMessage> {
        self.state.lock().messages.clone()
    }
}

impl Publish for ForgetfulStream {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<Published, PublishError>> {
        async move {
            let now_ms = self.now_ms.load(Relaxed);
            let scope = match &publication.publisher {
                Publisher::User(user) => format!("u.{user}"),
                Publisher::Service(name) => format!("s.{name}"),
            };
            let key = format!("{scope}/{}/{}", publication.channel, publication.id);
            let mut state = self.state.lock();
            state.calls += 1;
            let lost = self.lose_every > 0 && state.calls.is_multiple_of(self.lose_every);
            let known = state.known.get(&key).copied();
            let remembered = known.filter(|(at, _)| now_ms - at < WINDOW.as_millis() as i64);
            let seq = match remembered {
                Some((_, seq)) => seq,
                None => {
                    let seq = state.messages.len() as u64 + 1;
                    let mut message =
                        crate::world::message(EPOCH, seq, publication.channel.as_str(), now_ms);
                    message.message.id = Some(publication.id.clone());
                    message.message.kind = publication.kind.clone();
                    message.message.data = publication.data.clone();
                    message.scope = Some(scope.into());
                    state.messages.push(message);
                    state.known.insert(key, (now_ms, seq));
                    seq
                }
            };
            if lost {
                return Err(PublishError::Unavailable {
                    retry_after: Duration::ZERO,
                    reason: String::from("the acknowledgement was cut"),
                });
            }
            Ok(Published {
                cursor: Cursor::new(EPOCH, seq),
                duplicate: remembered.is_some(),
            })
        }
        .boxed()
    }
}

struct Setting {
    now_ms: Arc<AtomicI64>,
    stream: Arc<ForgetfulStream>,
    once: OncePublisher,
    writer: Writer,
}

impl Setting {
    async fn new(store: &Store, lose_every: u64) -> Self {
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let stream = ForgetfulStream::new(&now_ms, lose_every);
        let clock = {
            let now_ms = Arc::clone(&now_ms);
            Arc::new(move || now_ms.load(Relaxed))
        };
        Self {
            once: OncePublisher::new(store, Arc::<ForgetfulStream>::clone(&stream), WINDOW, clock),
            stream,
            now_ms,
            writer: Writer::new(store, EPOCH).await,
        }
    }

    /// Everything that the stream has is archived.
    async fn archive(&mut self) {
        let all = self.stream.messages();
        let fresh = &all[self.writer.watermark as usize..];
        let batch = ArchiveBatch {
            messages: fresh,
            epoch: EPOCH,
            after: self.writer.watermark,
            watermark: all.len() as u64,
            observed: all.len() as u64,
            covered_ms: self.now_ms.load(Relaxed),
        };
        let lease = &self.writer.lease;
        self.writer.sink.append(lease, batch).await.unwrap();
        self.writer.watermark = all.len() as u64;
    }

    fn later(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as i64, Relaxed);
    }

    fn id(&self, n: u64) -> MessageId {
        let millis = self.now_ms.load(Relaxed) as u64;
        let time = uuid::Timestamp::from_unix(uuid::NoContext, millis / 1_000, 0);
        let uuid = Uuid::new_v7(time);
        // Every tenth client has ids of its own.
        let text = if n.is_multiple_of(10) {
            format!("order-{n}")
        } else {
            uuid.to_string()
        };
        MessageId::parse(&text).unwrap()
    }
}

fn publication(id: &MessageId, by: &str, to: &str) -> Publication {
    Publication {
        channel: channel(to),
        id: id.clone(),
        publisher: Publisher::User(user(by)),
        kind: "chat".into(),
        sender: Some(user(by)),
        data: "{}".into(),
        traceparent: None,
    }
}

/// A stream is replaced by one that knows nothing: what the one before it stored is found in the archive, within the
/// duplicate window too.
#[tokio::test]
async fn an_id_from_before_the_streams_life_is_looked_up() {
    let store = store().await;
    let mut setting = Setting::new(&store, 0).await;
    let id = setting.id(1);
    let first = setting.once.publish(publication(&id, "42", "room:1"));
    let first = first.await.unwrap();
    setting.archive().await;
    let began = setting.now_ms.load(Relaxed);
    setting.later(Duration::from_secs(10));
    let next = ForgetfulStream::new(&setting.now_ms, 0);
    let now_ms = Arc::clone(&setting.now_ms);
    let clock = Arc::new(move || now_ms.load(Relaxed));
    let once = OncePublisher::new(&store, Arc::<ForgetfulStream>::clone(&next), WINDOW, clock)
        .remembering_since(Arc::new(move |_| Some(began)));
    let again = once
        .publish(publication(&id, "42", "room:1"))
        .await
        .unwrap();
    assert_eq!((again.cursor, again.duplicate), (first.cursor, true));
    assert_eq!(next.messages().len(), 0);
    // One that was made since needs no archive.
    let new = once.publish(publication(&setting.id(2), "42", "room:1"));
    assert!(!new.await.unwrap().duplicate);
    assert_eq!(next.messages().len(), 1);
}

/// Ten thousand ids, half of the acknowledgements cut, everything retried at
/// once, after three minutes and after a week: as many messages, and the same
/// positions.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_ids_are_ten_thousand_messages() {
    const IDS: u64 = 10_000;
    let store = store().await;
    let mut setting = Setting::new(&store, 2).await;
    setting.archive().await;
    let ids: Vec<MessageId> = (0..IDS).map(|n| setting.id(n)).collect();
    let mut positions: HashMap<MessageId, Cursor> = HashMap::new();
    let waits = [0, 0, 180, 7 * 86_400].map(Duration::from_secs);
    for wait in waits {
        setting.later(wait);
        setting.archive().await;
        let attempts: Vec<_> = ids
            .iter()
            .map(|id| {
                let once = setting.once.clone();
                let publication = publication(id, "42", "room:1");
                let id = id.clone();
                tokio::spawn(async move { (id, once.publish(publication).await) })
            })
            .collect();
        for attempt in attempts {
            let (id, result) = attempt.await.unwrap();
            if let Ok(published) = result {
                let before = *positions.entry(id).or_insert(published.cursor);
                assert_eq!(published.cursor, before, "one position for ever");
            }
        }
    }
    assert_eq!(setting.stream.messages().len() as u64, IDS);
    assert_eq!(positions.len() as u64, IDS);
}

#[tokio::test]
async fn an_id_belongs_to_its_publisher_and_channel() {
    let store = store().await;
    let mut setting = Setting::new(&store, 0).await;
    let id = setting.id(1);
    setting.archive().await;
    setting
        .once
        .publish(publication(&id, "ann", "room:1"))
        .await
        .unwrap();
    setting.later(Duration::from_secs(3_600));
    setting.archive().await;
    for (by, to, duplicate) in [
        ("ann", "room:1", true),
        ("bob", "room:1", false),
        ("ann", "room:2", false),
    ] {
        let published = setting
            .once
            .publish(publication(&id, by, to))
            .await
            .unwrap();
        assert_eq!(published.duplicate, duplicate, "{by} to {to}");
    }
    assert_eq!(setting.stream.messages().len(), 3);
}

#[tokio::test]
async fn while_the_archive_lags_an_old_id_has_to_wait() {
    let store = store().await;
    let mut setting = Setting::new(&store, 0).await;
    let old = setting.id(1);
    setting.archive().await;
    setting
        .once
        .publish(publication(&old, "ann", "room:1"))
        .await
        .unwrap();
    // The stream has forgotten it and the archive has not got it yet.
    setting.later(Duration::from_secs(600));
    let error = setting
        .once
        .publish(publication(&old, "ann", "room:1"))
        .await
        .unwrap_err();
    assert!(matches!(error, PublishError::Unavailable { .. }), "{error}");
    // A new message does not wait.
    let new = setting.id(2);
    setting
        .once
        .publish(publication(&new, "ann", "room:1"))
        .await
        .unwrap();
    setting.archive().await;
    let published = setting
        .once
        .publish(publication(&old, "ann", "room:1"))
        .await
        .unwrap();
    assert!(published.duplicate);
    assert_eq!(setting.stream.messages().len(), 2);
}
