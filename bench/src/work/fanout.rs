//! One message to many.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::{PATIENCE, crowd, publisher};
use crate::measure::Meter;
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

/// Messages at once, each of a publisher of its own.
const AT_ONCE_MAX: usize = 8;

/// A room of `size` on two servers, with one message at a time and then with eight at once, each for `duration`.
pub(crate) fn run(
    kind: Kind,
    size: usize,
    duration: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let system = System::start(kind, &Setup::default())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    // Each has one message under way: messages of one connection to one channel are stored one after the other.
    let publishers = (0..AT_ONCE_MAX)
        .map(|_| publisher(&system, &mut swarm, 0))
        .collect::<anyhow::Result<Vec<_>>>()?;
    crowd(&system, &mut swarm, 2, size, |_| "room:1".to_owned())?;
    system.wait_quiet(PATIENCE);
    for at_once in [1, AT_ONCE_MAX] {
        let publishers = &publishers[..at_once];
        // Once unmeasured.
        publish(&mut swarm, publishers, size, duration / 8)?;
        let (servers, broker) = (
            Meter::start(&system.pids()),
            Meter::start(&[system.broker_pid()]),
        );
        let deliveries = publish(&mut swarm, publishers, size, duration)? as f64;
        let (servers, broker) = (servers.read(), broker.read());
        let what = format!("room of {size}, {at_once} at once");
        let name = kind.name();
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / deliveries;
        report.add(
            "fan-out",
            format!("{what}: server CPU per delivery"),
            "µs",
            name,
            micros(servers.cpu),
        );
        report.add(
            "fan-out",
            format!("{what}: broker CPU per delivery"),
            "µs",
            name,
            micros(broker.cpu),
        );
        report.add(
            "fan-out",
            format!("{what}: deliveries per second"),
            "/s",
            name,
            deliveries / servers.wall.as_secs_f64(),
        );
    }
    Ok(())
}

/// Lets each publisher publish a message, waits until all have all of them, and again, for some time; returns how
/// many deliveries there were.
fn publish(
    swarm: &mut Swarm,
    publishers: &[usize],
    size: usize,
    duration: Duration,
) -> anyhow::Result<u64> {
    swarm.reset();
    let begin = Instant::now();
    let mut published = 0;
    while begin.elapsed() < duration {
        for publisher in publishers {
            let due_ns = swarm.now_ns();
            swarm.publish(*publisher, "room:1", published as u32, due_ns)?;
            published += 1;
        }
        let due = published * size as u64;
        if !swarm.run_until(PATIENCE, |swarm| swarm.tally.deliveries >= due)? {
            bail!("{published} messages to {size}: {:?}", swarm.tally);
        }
    }
    Ok(published * size as u64)
}

/// As many rooms as clients, one in each, and messages to all of them in turn.
pub(crate) fn many_rooms(
    kind: Kind,
    rooms: usize,
    duration: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    /// As many as one connection may have without an acknowledgement.
    const IN_FLIGHT: u64 = 64;
    let system = System::start(kind, &Setup::default())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    let publisher = publisher(&system, &mut swarm, 0)?;
    crowd(&system, &mut swarm, 2, rooms, |number| {
        format!("room:{number}")
    })?;
    system.wait_quiet(PATIENCE);
    swarm.reset();
    let meter = Meter::start(&system.pids());
    let mut published = 0;
    while meter.read().wall < duration {
        while published < swarm.tally.deliveries.min(swarm.tally.acknowledged) + IN_FLIGHT {
            let due_ns = swarm.now_ns();
            let room = format!("room:{}", published as usize % rooms);
            swarm.publish(publisher, &room, published as u32, due_ns)?;
            published += 1;
        }
        swarm.turn(Duration::from_millis(10))?;
    }
    if !swarm.run_until(PATIENCE, |swarm| swarm.tally.deliveries >= published)? {
        bail!("{published} messages: {:?}", swarm.tally);
    }
    let reading = meter.read();
    let micros = reading.cpu.as_secs_f64() * 1e6 / published as f64;
    let what = format!("{rooms} rooms of one");
    report.add(
        "fan-out",
        format!("{what}: server CPU per message"),
        "µs",
        kind.name(),
        micros,
    );
    Ok(())
}
