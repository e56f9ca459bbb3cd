//! What the tests share: a database each, and messages.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use delivery::Message;
use delivery::archive::{
    ArchiveBatch, ArchiveRetention, ArchiveSink, Lease, NewEpoch, SourceMessage,
};
use delivery::archiver::{Archiver, ArchiverConfig, Clock};
use devstack::Postgres;
use protocol::{Channel, Cursor, Epoch, MessageId, UserId};
use store::{Sink, Store, StoreConfig};

use crate::stream::MemoryStream;

pub(crate) const EPOCH: Epoch = Epoch(0xfeed_beef_0000_0001);
/// 2026-01-01T00:00:00Z.
pub(crate) const START_MS: i64 = 1_767_225_600_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;

pub(crate) async fn database() -> String {
    // Shown only if the test fails.
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let postgres = Postgres::shared().await.unwrap();
    postgres.scratch_database().await.unwrap()
}

pub(crate) async fn store() -> Store {
    Store::connect(config(database().await)).await.unwrap()
}

pub(crate) fn config(url: String) -> StoreConfig {
    StoreConfig {
        max_connections: 6,
        // A busy machine is no outage; the tests of outages set their own.
        acquire_timeout_ms: 10_000,
        query_timeout_ms: 10_000,
        ..StoreConfig::new(url)
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(crate) fn message(epoch: Epoch, seq: u64, channel_name: &str, time_ms: i64) -> SourceMessage {
    SourceMessage {
        message: Message {
            channel: channel(channel_name),
            position: Cursor::new(epoch, seq),
            prev: 0,
            id: Some(MessageId::random()),
            kind: "chat".into(),
            sender: Some(user("42")),
            time_ms,
            data: Bytes::from(format!("{{\"n\":{seq}}}")),
            traceparent: None,
        },
        scope: Some("u.42".into()),
    }
}

/// An archive that is written directly, without an archiver.
pub(crate) struct Writer {
    pub(crate) sink: Sink,
    pub(crate) lease: Lease,
    pub(crate) epoch: Epoch,
    pub(crate) watermark: u64,
}

impl Writer {
    pub(crate) async fn new(store: &Store, epoch: Epoch) -> Self {
        let sink = Sink::new(store);
        let ttl = Duration::from_secs(60);
        let lease = sink.acquire(0, "writer", ttl).await.unwrap().unwrap();
        let mut writer = Self {
            sink,
            lease,
            epoch,
            watermark: 0,
        };
        writer.begin(epoch, 0, false).await;
        writer
    }

    pub(crate) async fn begin(&mut self, epoch: Epoch, start: u64, previous_complete: bool) {
        let new = NewEpoch {
            epoch,
            start,
            floor: start,
            previous_complete,
        };
        assert!(self.sink.begin_epoch(&self.lease, &new).await.unwrap());
        self.epoch = epoch;
        self.watermark = start;
    }

    pub(crate) async fn append(&mut self, messages: &[SourceMessage]) {
        let watermark = messages.last().map_or(self.watermark, |m| m.message.seq());
        let batch = ArchiveBatch {
            messages,
            epoch: self.epoch,
            after: self.watermark,
            watermark,
            observed: watermark,
            covered_ms: messages.last().map_or(0, |m| m.message.time_ms),
        };
        self.sink.append(&self.lease, batch).await.unwrap();
        self.watermark = watermark;
    }
}

/// Clock, configuration and archiver as the tests run it.
pub(crate) fn clock() -> Clock {
    Arc::new(|| {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as i64
    })
}

pub(crate) fn archiver_config(holder: &str) -> ArchiverConfig {
    ArchiverConfig {
        lease_ttl: Duration::from_secs(2),
        max_batch_messages: 50,
        max_wait: Duration::from_millis(20),
        trim_interval: Duration::from_millis(50),
        hot_time: Duration::from_secs(3_600),
        retention: ArchiveRetention {
            // The messages' times are in the past.
            keep: None,
            partition_hours: 24,
            partitions_ahead: 1,
        },
        ..ArchiverConfig::new(holder)
    }
}

pub(crate) fn archiver<K: ArchiveSink>(
    stream: &MemoryStream,
    sink: K,
    config: ArchiverConfig,
) -> Archiver<MemoryStream, K> {
    Archiver::new(0, config, stream.clone(), sink, clock())
}

/// Waits until a condition holds, at most half a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < until, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The stream's acknowledged messages that the archive lacks, and archived
/// rows that it has twice or that nobody published: both must be empty.
pub(crate) async fn differences(
    store: &Store,
    epoch: Epoch,
    expected: &[SourceMessage],
) -> (Vec<u64>, Vec<u64>) {
    let rows = store::archive::check::rows(store, Cursor::new(epoch, 0), u64::MAX)
        .await
        .unwrap();
    let mut expected = expected.iter().map(|m| &m.message).peekable();
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    for row in rows {
        while let Some(before) = expected.next_if(|m| m.seq() < row.seq) {
            missing.push(before.seq());
        }
        let matches = |m: &&Message| {
            m.seq() == row.seq
                && m.channel.as_str() == row.channel
                && m.id.as_ref().map(ToString::to_string) == row.id
                && m.time_ms == row.time_ms
                && m.data == row.data
        };
        if expected.next_if(matches).is_none() {
            extra.push(row.seq);
        }
    }
    missing.extend(expected.map(Message::seq));
    (missing, extra)
}
