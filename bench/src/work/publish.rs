//! How fast messages are stored, and what they cost those whom they do not concern.

use std::time::Duration;

use anyhow::bail;
use devstack::SyncInterval;

use super::{PATIENCE, publisher};
use crate::measure::{self, Meter};
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

/// Connections that publish, each with as many in flight as it may have: 512 together.
const PUBLISHERS: usize = 8;
const IN_FLIGHT: u64 = 64;

/// Acknowledgements per second, with NATS syncing never by itself or always, with and without group commit.
pub(crate) fn durable(duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    let modes = [
        ("default", SyncInterval::ServerDefault),
        ("always", SyncInterval::Always),
    ];
    for (sync_name, sync) in modes {
        for group_commit in [true, false] {
            let backplane = format!("group_commit = {group_commit}");
            let system = System::start(
                Kind::Rejoin,
                &Setup {
                    sync,
                    backplane,
                    ..Setup::default()
                },
            )?;
            let mut swarm = Swarm::new(Kind::Rejoin.dialect())?;
            let publishers = publishers(&system, &mut swarm)?;
            flood(&mut swarm, &publishers, duration / 4)?;
            let meter = Meter::start(&system.pids()[..1]);
            let stored = flood(&mut swarm, &publishers, duration)? as f64;
            let reading = meter.read();
            let with = if group_commit {
                "group commit"
            } else {
                "one by one"
            };
            let what = format!("512 in flight, sync {sync_name}, {with}");
            let name = Kind::Rejoin.name();
            report.add(
                "publish",
                format!("{what}: acknowledged"),
                "/s",
                name,
                stored / reading.wall.as_secs_f64(),
            );
            let micros = reading.cpu.as_secs_f64() * 1e6 / stored;
            report.add(
                "publish",
                format!("{what}: the publishers' edge"),
                "µs CPU per message",
                name,
                micros,
            );
        }
    }
    Ok(())
}

/// What a message costs an edge that none of its readers is on, with one, two and four such edges.
pub(crate) fn unwanted(kind: Kind, duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    for others in [1, 2, 4] {
        let system = System::start(
            kind,
            &Setup {
                servers: 1 + others,
                ..Setup::default()
            },
        )?;
        let mut swarm = Swarm::new(kind.dialect())?;
        let publishers = publishers(&system, &mut swarm)?;
        flood(&mut swarm, &publishers, duration / 4)?;
        system.wait_quiet(PATIENCE);
        let pids = system.pids();
        let before = measure::cpu_time_of(&pids[1..]);
        let stored = flood(&mut swarm, &publishers, duration)? as f64;
        // They may lag behind the acknowledgements.
        system.wait_quiet(PATIENCE);
        let spent = measure::cpu_time_of(&pids[1..]).saturating_sub(before);
        let micros = spent.as_secs_f64() * 1e6 / stored / others as f64;
        let what = format!("a message nobody here wants, {others} such servers: each");
        report.add("growth", what, "µs CPU", kind.name(), micros);
    }
    Ok(())
}

pub(super) fn publishers(system: &System, swarm: &mut Swarm) -> anyhow::Result<Vec<usize>> {
    (0..PUBLISHERS)
        .map(|_| publisher(system, swarm, 0))
        .collect()
}

/// Publishes for some time, from all publishers together; returns how many messages were stored.
fn flood(swarm: &mut Swarm, publishers: &[usize], duration: Duration) -> anyhow::Result<u64> {
    let end = std::time::Instant::now() + duration;
    // In turn, because a connection's messages to one channel are stored one after the other.
    let room = |number| format!("room:nobody-{}", number % (PUBLISHERS as u64 * IN_FLIGHT));
    pump(swarm, publishers, room, |_| std::time::Instant::now() < end)
}

/// Publishes to `room` of each message's number while `more`; returns how many messages were stored.
pub(super) fn pump(
    swarm: &mut Swarm,
    publishers: &[usize],
    room: impl Fn(u64) -> String,
    more: impl Fn(u64) -> bool,
) -> anyhow::Result<u64> {
    swarm.reset();
    let before: Vec<u64> = publishers
        .iter()
        .map(|index| swarm.answered_of(*index))
        .collect();
    let mut sent = vec![0; publishers.len()];
    let mut total = 0;
    while more(total) {
        for (place, index) in publishers.iter().enumerate() {
            while sent[place] < swarm.answered_of(*index) - before[place] + IN_FLIGHT && more(total)
            {
                let due_ns = swarm.now_ns();
                swarm.publish(*index, &room(total), total as u32, due_ns)?;
                sent[place] += 1;
                total += 1;
            }
        }
        swarm.turn(Duration::from_millis(5))?;
    }
    let answered = |swarm: &Swarm| swarm.tally.acknowledged + swarm.tally.refused;
    let done = swarm.run_until(PATIENCE, |swarm| answered(swarm) >= total)?;
    // A busy machine does not store a few in time; many would be another measurement.
    if !done || swarm.tally.refused * 20 > total {
        bail!("{total} were published: {:?}", swarm.tally);
    }
    Ok(swarm.tally.acknowledged)
}
