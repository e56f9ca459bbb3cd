//! Group commit, on a server that syncs every message.

use std::collections::HashMap;
use std::time::Duration;

use backplane::Backplane;
use delivery::publish::{Publication, Publish, PublishError, Published};
use devstack::{NatsOptions, NatsServer, SyncInterval};
use futures_util::future::join_all;

use crate::support::{World, config, publication, text};

async fn syncing_world() -> World {
    let options = NatsOptions {
        sync: SyncInterval::Always,
        ..NatsOptions::default()
    };
    let nats = NatsServer::start(options).await.unwrap();
    let backplane = Backplane::connect(config(&nats, 1)).await.unwrap();
    backplane.provision().await.unwrap();
    World { nats, backplane }
}

/// Under the same id until it is acknowledged, as a client would.
async fn insist(world: &World, publication: Publication) -> Published {
    let publisher = world.backplane.publisher();
    loop {
        match publisher.publish(publication.clone()).await {
            Ok(published) => return published,
            Err(PublishError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Publishes from 300 tasks at once, every message twice, and checks that the
/// stream holds each once, where both acknowledgements said.
async fn publish_twice_and_check(world: &World, rounds: usize) {
    let mut reader = world.fill(0);
    let sent = join_all((0..300).map(|task| async move {
        let mut sent = Vec::new();
        for round in 0..rounds {
            let data = format!("{task}-{round}");
            let publication = publication(&format!("room:{}", task % 7), &data);
            let (one, two) = tokio::join!(
                insist(world, publication.clone()),
                insist(world, publication)
            );
            assert_eq!(one.cursor, two.cursor, "{data}");
            sent.push((one.cursor, data));
        }
        sent
    }))
    .await;
    let sent: Vec<_> = sent.into_iter().flatten().collect();
    let last = sent
        .iter()
        .map(|one| one.0)
        .max_by_key(|at| at.seq)
        .unwrap();
    reader.until(last).await;
    let expected: HashMap<_, _> = sent.into_iter().collect();
    let got: HashMap<_, _> = reader
        .messages
        .iter()
        .map(|m| (m.position, text(m)))
        .collect();
    assert_eq!(reader.messages.len(), 300 * rounds);
    assert_eq!(got, expected);
}

#[tokio::test]
async fn what_is_published_at_once_is_stored_in_batches() {
    let world = syncing_world().await;
    let publisher = world.backplane.publisher();
    let all = join_all((0..600).map(|task| {
        let publisher = publisher.clone();
        async move {
            let mut positions = Vec::new();
            for round in 0..4 {
                let data = format!("{task}-{round}");
                let sent = publication(&format!("room:{}", task % 7), &data);
                let published = publisher.publish(sent).await.unwrap();
                positions.push((published.cursor, data));
            }
            positions
        }
    }))
    .await;
    let sent: HashMap<_, _> = all.into_iter().flatten().collect();
    assert_eq!(sent.len(), 2_400, "two messages have one position");
    let stats = world.backplane.stats();
    assert!(stats.batched > 600, "{stats:?}");
    let mut reader = world.fill(0);
    let last = sent.keys().max_by_key(|at| at.seq).unwrap();
    reader.until(*last).await;
    let got: HashMap<_, _> = reader
        .messages
        .iter()
        .map(|m| (m.position, text(m)))
        .collect();
    assert_eq!(got, sent);
}

#[tokio::test]
async fn duplicates_in_a_batch_are_one_message() {
    let world = syncing_world().await;
    publish_twice_and_check(&world, 3).await;
}

#[tokio::test]
async fn a_server_killed_in_a_batch_loses_nothing_acknowledged() {
    let world = syncing_world().await;
    let killing = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            world.nats.kill();
            world.nats.restart().await.unwrap();
        }
    };
    tokio::join!(publish_twice_and_check(&world, 6), killing);
}
