//! Partitions that come and go.

use std::time::Duration;

use delivery::archive::{ArchiveRetention, ArchiveSink};
use delivery::{Log, PageError, PageRequest};
use protocol::Cursor;
use store::ArchiveLog;

use crate::world::{EPOCH, HOUR_MS, START_MS, Writer, channel, message, store};

const DAY_MS: i64 = 24 * HOUR_MS;

fn keeping(days: u64) -> ArchiveRetention {
    ArchiveRetention {
        keep: Some(Duration::from_secs(days * 86_400)),
        partition_hours: 24,
        partitions_ahead: 2,
    }
}

#[tokio::test]
async fn expired_messages_are_answered_as_expired_and_the_rest_stays() {
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    let messages: Vec<_> = (1..=30)
        .map(|seq| {
            message(
                EPOCH,
                seq,
                "user:1",
                START_MS + (seq as i64 - 1) * DAY_MS / 3,
            )
        })
        .collect();
    writer.append(&messages).await;
    let now_ms = START_MS + 10 * DAY_MS;
    writer
        .sink
        .maintain(&writer.lease, &keeping(5), now_ms)
        .await
        .unwrap();
    let log = ArchiveLog::new(&store);
    let page = |after| {
        log.page(PageRequest {
            channel: channel("user:1"),
            after: Cursor::new(EPOCH, after),
            max_messages: 100,
            max_bytes: 1 << 20,
        })
    };
    // Days 0 to 4, three messages each, are gone.
    let earliest = Cursor::new(EPOCH, 15);
    assert_eq!(page(14).await.unwrap_err(), PageError::Expired { earliest });
    assert_eq!(page(15).await.unwrap().messages.len(), 15);
    assert_eq!(log.earliest(channel("user:1")).await.unwrap(), earliest);
    let last = log
        .before_last(channel("user:1"), Cursor::new(EPOCH, 30), 100)
        .await
        .unwrap();
    assert_eq!(last, earliest, "what has expired is not counted");
    // Again changes nothing, and the archive goes on.
    writer
        .sink
        .maintain(&writer.lease, &keeping(5), now_ms)
        .await
        .unwrap();
    writer.append(&[message(EPOCH, 31, "user:1", now_ms)]).await;
    assert_eq!(page(15).await.unwrap().messages.len(), 16);
}

#[tokio::test]
async fn a_partition_is_used_as_it_is_when_the_width_changes() {
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    writer
        .append(&[message(EPOCH, 1, "user:1", START_MS)])
        .await;
    let narrow = ArchiveRetention {
        keep: None,
        partition_hours: 1,
        partitions_ahead: 30,
    };
    writer
        .sink
        .maintain(&writer.lease, &narrow, START_MS + HOUR_MS)
        .await
        .unwrap();
    let messages: Vec<_> = (2..=60)
        .map(|seq| message(EPOCH, seq, "user:1", START_MS + seq as i64 * HOUR_MS))
        .collect();
    writer.append(&messages).await;
    let log = ArchiveLog::new(&store);
    let page = log
        .page(PageRequest {
            channel: channel("user:1"),
            after: Cursor::new(EPOCH, 0),
            max_messages: 100,
            max_bytes: 1 << 20,
        })
        .await
        .unwrap();
    let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq()).collect();
    assert_eq!(seqs, (1..=60).collect::<Vec<u64>>());
}
