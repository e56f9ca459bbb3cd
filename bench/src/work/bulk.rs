//! What a message costs an edge that nobody there wants, when there are as many as NATS stores.

use std::time::{Duration, Instant};

use anyhow::Context;
use backplane::{Backplane, BackplaneConfig, Publisher};
use bytes::Bytes;
use delivery::publish::{Publication, Publish, Publisher as By};
use protocol::{Channel, MessageId};

use super::PATIENCE;
use crate::measure;
use crate::report::Report;
use crate::system::{Kind, Setup, System};

/// Messages under way, each to a channel of its own.
const IN_FLIGHT: usize = 512;

/// Two edges that only read, and a service that publishes without an edge.
pub(crate) fn unwanted(duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    let system = System::start(Kind::Rejoin, &Setup::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let url = system.nats_url().context("a NATS server")?;
    let backplane = runtime.block_on(Backplane::connect(BackplaneConfig {
        urls: vec![url],
        edge: "bench".to_owned(),
        ..BackplaneConfig::default()
    }))?;
    runtime.block_on(flood(&backplane, duration / 4))?;
    system.wait_quiet(PATIENCE);
    let pids = system.pids();
    let before = measure::cpu_time_of(&pids);
    let stored = runtime.block_on(flood(&backplane, duration))? as f64;
    // They may lag behind the acknowledgements.
    system.wait_quiet(PATIENCE);
    let spent = measure::cpu_time_of(&pids).saturating_sub(before);
    let name = Kind::Rejoin.name();
    let what = "published without an edge, 512 in flight";
    report.add(
        "growth",
        format!("{what}: messages stored"),
        "/s",
        name,
        stored / duration.as_secs_f64(),
    );
    let micros = spent.as_secs_f64() * 1e6 / stored / pids.len() as f64;
    report.add(
        "growth",
        format!("{what}: each of two servers that want none"),
        "µs CPU",
        name,
        micros,
    );
    Ok(())
}

/// Publishes for some time; returns how many messages were stored.
async fn flood(backplane: &Backplane, duration: Duration) -> anyhow::Result<u64> {
    let end = Instant::now() + duration;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..IN_FLIGHT {
        let channel = Channel::parse(&format!("room:nobody-{number}"))?;
        writers.spawn(one_by_one(backplane.publisher(), channel, end));
    }
    let mut stored = 0;
    while let Some(written) = writers.join_next().await {
        stored += written??;
    }
    Ok(stored)
}

async fn one_by_one(publisher: Publisher, channel: Channel, end: Instant) -> anyhow::Result<u64> {
    let mut stored = 0;
    while Instant::now() < end {
        publisher
            .publish(Publication {
                channel: channel.clone(),
                id: MessageId::parse(&uuid::Uuid::now_v7().to_string())?,
                publisher: By::Service("bench".into()),
                kind: "".into(),
                sender: None,
                data: Bytes::from_static(&[b'1'; 200]),
                traceparent: None,
            })
            .await?;
        stored += 1;
    }
    Ok(stored)
}
