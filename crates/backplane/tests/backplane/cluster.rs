//! A replicated stream: replicas that are behind, and leaders that die.

use std::time::{Duration, Instant};

use backplane::{Backplane, BackplaneConfig, TailStart};
use delivery::publish::{Publish, PublishError};
use delivery::{Log, PageError, PageRequest, Stream};
use devstack::NatsCluster;
use protocol::Cursor;

use crate::support::{PATIENCE, Reader, channel, publication, text};

async fn connect(cluster: &NatsCluster) -> Backplane {
    let config = BackplaneConfig {
        urls: cluster.servers().iter().map(|s| s.url()).collect(),
        replicas: 3,
        stream_max_bytes: 64 << 20,
        ..BackplaneConfig::default()
    };
    let backplane = Backplane::connect(config).await.unwrap();
    let begin = Instant::now();
    while let Err(error) = backplane.provision().await {
        assert!(begin.elapsed() < PATIENCE, "{error}");
    }
    backplane
}

/// The head, once a leader has led for long enough to be believed.
async fn settled_head(log: &impl Stream) -> Cursor {
    let begin = Instant::now();
    loop {
        match log.head(0).await {
            Ok(head) => return head,
            Err(PageError::Unavailable { retry_after, .. }) if begin.elapsed() < PATIENCE => {
                tokio::time::sleep(retry_after).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn replicas_that_are_behind_and_leaders_that_die_lose_nothing() {
    let cluster = NatsCluster::start(3).await.unwrap();
    let backplane = connect(&cluster).await;
    let publisher = backplane.publisher();
    let log = backplane.stream_log();
    let mut reader = Reader::new(backplane.tail(0, TailStart::Head));
    reader.until_started(1).await;

    // Read right after the acknowledgement, whichever replica answers.
    let mut after = settled_head(&log).await;
    for n in 0..200 {
        let sent = publication("room:1", &n.to_string());
        let published = publisher.publish(sent).await.unwrap();
        let request = PageRequest {
            channel: channel("room:1"),
            after,
            max_messages: 10,
            max_bytes: 1 << 20,
        };
        let page = log.page(request).await.unwrap();
        let got: Vec<_> = page.messages.iter().map(text).collect();
        assert_eq!(got, [n.to_string()]);
        assert_eq!(page.through, published.cursor.seq);
        after = published.cursor;
    }

    // The leader dies under load, twice.
    let mut acknowledged = Vec::new();
    let publishing = async {
        for n in 0..4_000 {
            let data = format!("k{n}");
            let publication = publication("room:1", &data);
            let published = loop {
                match publisher.publish(publication.clone()).await {
                    Ok(published) => break published,
                    Err(PublishError::Unavailable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            acknowledged.push((published.cursor, data));
        }
    };
    let killing = async {
        for server in cluster.servers().iter().take(2) {
            tokio::time::sleep(Duration::from_millis(700)).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            server.restart().await.unwrap();
            cluster.formed().await.unwrap();
        }
    };
    tokio::join!(publishing, killing);
    let last = acknowledged.last().unwrap().0;
    reader.until(last).await;
    let got: Vec<_> = reader
        .messages
        .iter()
        .skip(200)
        .map(|m| (m.position, text(m)))
        .collect();
    assert_eq!(got, acknowledged);
    let mut last_seen = Cursor::new(last.epoch, 0);
    for (start, _) in &reader.starts {
        assert!(start.epoch == last.epoch && start.seq >= last_seen.seq);
        last_seen = *start;
    }
}
