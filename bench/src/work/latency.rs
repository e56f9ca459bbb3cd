//! How long a message takes from one server's client to another server's.

use std::time::{Duration, Instant};

use super::{crowd, publisher};
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

/// Before the record begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// Messages to single users, in turn, whose clients are all on the other server.
pub(crate) fn one_user(
    kind: Kind,
    per_second: u32,
    duration: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    const USERS: usize = 100;
    let system = System::start(kind, &Setup::default())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    let publisher = publisher(&system, &mut swarm, 0)?;
    // Every second client of two servers is on server 1: with one server only that one.
    for number in 0..USERS {
        swarm.add(system.client(1, &format!("u{number}"), &[format!("user:u{number}")])?);
    }
    swarm.dial_all(super::PATIENCE)?;
    let room = |number: u32| format!("user:u{}", number as usize % USERS);
    steady(&mut swarm, publisher, room, per_second, WARM_UP)?;
    swarm.record_latency()?;
    steady(&mut swarm, publisher, room, per_second, duration)?;
    tell(
        &mut swarm,
        kind,
        &format!("to one user, {per_second}/s"),
        report,
    )
}

/// Messages to one room on both servers.
pub(crate) fn room(
    kind: Kind,
    size: usize,
    per_second: u32,
    duration: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let system = System::start(kind, &Setup::default())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    let publisher = publisher(&system, &mut swarm, 0)?;
    crowd(&system, &mut swarm, 2, size, |_| "room:1".to_owned())?;
    let room = |_| "room:1".to_owned();
    steady(&mut swarm, publisher, room, per_second, WARM_UP)?;
    swarm.record_latency()?;
    steady(&mut swarm, publisher, room, per_second, duration)?;
    tell(
        &mut swarm,
        kind,
        &format!("to a room of {size}, {per_second}/s"),
        report,
    )
}

/// Publishes on a fixed schedule, whatever the system does.
pub(super) fn steady(
    swarm: &mut Swarm,
    publisher: usize,
    room: impl Fn(u32) -> String,
    per_second: u32,
    duration: Duration,
) -> anyhow::Result<()> {
    let interval = Duration::from_secs(1) / per_second;
    let count = (duration.as_secs_f64() * f64::from(per_second)) as u32;
    let (begin, begin_ns) = (Instant::now(), swarm.now_ns());
    for number in 0..count {
        let due = interval * number;
        // Until that very moment: what is late here would count as the system's.
        while let Some(left) = due
            .checked_sub(begin.elapsed())
            .filter(|left| !left.is_zero())
        {
            swarm.turn(left)?;
        }
        swarm.publish(
            publisher,
            &room(number),
            number,
            begin_ns + due.as_nanos() as u64,
        )?;
    }
    // For what is under way.
    swarm.run_for(Duration::from_millis(300))
}

pub(super) fn tell(
    swarm: &mut Swarm,
    kind: Kind,
    what: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let latency = swarm.take_latency()?;
    for (label, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let ms = latency.value_at_quantile(quantile) as f64 / 1e6;
        report.add("latency", format!("{what}, {label}"), "ms", kind.name(), ms);
    }
    Ok(())
}
