//! What readers who do not keep up do to the others.

use std::time::Duration;

use super::{crowd, latency, publisher};
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

/// A room of 1,000 in which a twentieth reads 1 kB/s of more; the latency of the others.
pub(crate) fn run(kind: Kind, duration: Duration, report: &mut Report) -> anyhow::Result<()> {
    const SIZE: usize = 1_000;
    for slow in [0, SIZE / 20] {
        let system = System::start(kind, &Setup::default())?;
        let mut swarm = Swarm::new(kind.dialect())?;
        let publisher = publisher(&system, &mut swarm, 0)?;
        // Before they connect: a slow reader's socket has the smallest buffer.
        for number in 0..slow {
            let spec = system.client(number % 2, &format!("s{number}"), &["room:1".to_owned()])?;
            let index = swarm.add(spec);
            swarm.make_slow(index);
        }
        crowd(&system, &mut swarm, 2, SIZE - slow, |_| "room:1".to_owned())?;
        latency::steady(&mut swarm, publisher, |_| "room:1".to_owned(), 10, duration)?;
        swarm.record_latency()?;
        latency::steady(&mut swarm, publisher, |_| "room:1".to_owned(), 10, duration)?;
        let p99 = swarm.take_latency()?.value_at_quantile(0.99) as f64 / 1e6;
        let what = format!("room of {SIZE}, {slow} of them slow");
        report.add(
            "slow readers",
            format!("{what}: p99 of the others"),
            "ms",
            kind.name(),
            p99,
        );
        let peak = system.peak_memory_bytes()?;
        report.add(
            "slow readers",
            format!("{what}: peak memory of both servers"),
            "MB",
            kind.name(),
            peak as f64 / 1e6,
        );
    }
    Ok(())
}
