//! A server with a backplane on it, and a reader that checks what a tail
//! reports.

use std::time::Duration;

use backplane::{Backplane, BackplaneConfig, StreamTail, TailStart};
use bytes::Bytes;
use delivery::publish::{Publication, Publish, Published, Publisher};
use delivery::{Message, Tail, TailEvent};
use devstack::{NatsOptions, NatsServer};
use protocol::{Channel, Cursor, MessageId, UserId};

/// How long anything may take in a test before it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) backplane: Backplane,
}

pub(crate) fn config(nats: &NatsServer, shards: u16) -> BackplaneConfig {
    BackplaneConfig {
        urls: vec![nats.url()],
        shards,
        // The server reserves it on the disk, for every test that runs.
        stream_max_bytes: 64 << 20,
        ..BackplaneConfig::default()
    }
}

impl World {
    pub(crate) async fn new(shards: u16) -> Self {
        Self::with(shards, |_| {}).await
    }

    pub(crate) async fn with(shards: u16, change: impl FnOnce(&mut BackplaneConfig)) -> Self {
        // Shown with a test that fails; a second call finds it in place.
        let _ = tracing_subscriber::fmt()
            .with_env_filter("backplane=debug,async_nats=info")
            .with_test_writer()
            .try_init();
        let options = NatsOptions {
            shards,
            ..NatsOptions::default()
        };
        let nats = NatsServer::start(options).await.unwrap();
        let mut config = config(&nats, shards);
        change(&mut config);
        let backplane = Backplane::connect(config).await.unwrap();
        backplane.provision().await.unwrap();
        Self { nats, backplane }
    }

    pub(crate) async fn publish(&self, channel: &str, data: &str) -> Published {
        let publication = publication(channel, data);
        self.backplane
            .publisher()
            .publish(publication)
            .await
            .unwrap()
    }

    /// A client that knows nothing of Rejoin.
    pub(crate) async fn foreign(&self) -> async_nats::Client {
        async_nats::connect(self.nats.url()).await.unwrap()
    }

    pub(crate) fn fill(&self, shard: u16) -> Reader {
        let start = TailStart::Fill {
            budget_bytes: 1 << 30,
            max_age: None,
        };
        Reader::new(self.backplane.tail(shard, start))
    }

    /// A raw call of the JetStream API.
    pub(crate) async fn api(&self, method: &str, body: serde_json::Value) -> serde_json::Value {
        let client = self.foreign().await;
        let payload = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let subject = format!("$JS.API.{method}");
        let answer = client.request(subject, payload.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }
}

pub(crate) fn channel(text: &str) -> Channel {
    Channel::parse(text).unwrap()
}

/// A message of user 42 under a new id.
pub(crate) fn publication(to: &str, data: &str) -> Publication {
    let user = UserId::parse("42").unwrap();
    Publication {
        channel: channel(to),
        id: MessageId::random(),
        publisher: Publisher::User(user.clone()),
        kind: "chat".into(),
        sender: Some(user),
        data: Bytes::copy_from_slice(data.as_bytes()),
        traceparent: None,
    }
}

/// Reads a tail and checks its promises: ascending, everything between
/// `after` and `through`, and nothing twice within a start.
pub(crate) struct Reader {
    tail: StreamTail,
    pub(crate) position: Option<Cursor>,
    pub(crate) messages: Vec<Message>,
    pub(crate) starts: Vec<(Cursor, u64)>,
}

impl Reader {
    pub(crate) fn new(tail: StreamTail) -> Self {
        Self {
            tail,
            position: None,
            messages: Vec::new(),
            starts: Vec::new(),
        }
    }

    pub(crate) async fn step(&mut self) {
        let event = tokio::time::timeout(PATIENCE, self.tail.next()).await;
        match event.expect("the tail is silent") {
            TailEvent::Started { after, last } => {
                tracing::info!(%after, last, "started");
                assert!(after.seq <= last, "{after} starts behind {last}");
                self.position = Some(after);
                self.starts.push((after, last));
            }
            TailEvent::Messages {
                messages,
                epoch,
                through,
            } => {
                let position = self.position.expect("messages before a start");
                tracing::info!(count = messages.len(), through, "messages");
                assert_eq!(position.epoch, epoch);
                let mut last = position.seq;
                for message in &messages {
                    assert_eq!(message.position.epoch, epoch);
                    assert!(message.seq() > last, "{} after {last}", message.seq());
                    last = message.seq();
                }
                assert!(through >= last && through > position.seq);
                self.position = Some(Cursor::new(epoch, through));
                self.messages.extend(messages);
            }
        }
    }

    /// Reads until this position is reached or passed.
    pub(crate) async fn until(&mut self, position: Cursor) {
        while self
            .position
            .is_none_or(|at| at.epoch != position.epoch || at.seq < position.seq)
        {
            self.step().await;
        }
    }

    pub(crate) async fn until_started(&mut self, starts: usize) {
        while self.starts.len() < starts {
            self.step().await;
        }
    }

    pub(crate) fn data(&self) -> Vec<String> {
        self.messages.iter().map(text).collect()
    }
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.data.to_vec()).unwrap()
}
