//! The measurements.

pub(crate) mod bulk;
pub(crate) mod catch_up;
pub(crate) mod fanout;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod loss;
pub(crate) mod publish;
pub(crate) mod slow;
pub(crate) mod storm;

use std::time::Duration;

use anyhow::{Context, bail};

use crate::swarm::Swarm;
use crate::system::System;

/// For anything that should take seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A client that only publishes, ready.
pub(crate) fn publisher(
    system: &System,
    swarm: &mut Swarm,
    server: usize,
) -> anyhow::Result<usize> {
    let index = swarm.add(system.client(server, "publisher", &[])?);
    let ready = swarm.tally.ready;
    swarm.dial(index);
    if !swarm.run_until(PATIENCE, |swarm| swarm.tally.ready > ready)? {
        bail!(
            "the publisher does not become ready: {:?}",
            swarm.tally.complaint
        );
    }
    Ok(index)
}

/// Runs until so many messages were received and so many publishes acknowledged since the last reset.
pub(crate) fn expect(swarm: &mut Swarm, deliveries: u64, acknowledged: u64) -> anyhow::Result<()> {
    let done = swarm.run_until(PATIENCE, |swarm| {
        swarm.tally.deliveries >= deliveries && swarm.tally.acknowledged >= acknowledged
    })?;
    match done {
        true => Ok(()),
        false => bail!(
            "{deliveries} deliveries and {acknowledged} acknowledgements were due: {:?}",
            swarm.tally
        ),
    }
}

/// Clients of every server in turn, each in the room that `room` gives it; all are ready afterwards.
pub(crate) fn crowd(
    system: &System,
    swarm: &mut Swarm,
    servers: usize,
    count: usize,
    room: impl Fn(usize) -> String,
) -> anyhow::Result<std::ops::Range<usize>> {
    let mut first = None;
    for number in 0..count {
        // Server 0 last, so that with one server it is the one without the publisher.
        let server = (number + 1) % servers;
        let index = swarm.add(system.client(server, &format!("u{number}"), &[room(number)])?);
        first.get_or_insert(index);
    }
    swarm.dial_all(PATIENCE)?;
    let first = first.context("a crowd of nobody")?;
    Ok(first..first + count)
}
