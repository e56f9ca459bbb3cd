//! Clients that were away for long: what they missed is in no edge's memory.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::{PATIENCE, publish};
use crate::measure::{self, Meter};
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

const DEEP: &str = "room:deep";
const SHALLOW: &str = "room:shallow";

/// One client that missed `deep` messages, then `clients` that missed `each`, from the archive or from the stream.
pub(crate) fn run(
    archive: bool,
    deep: u64,
    clients: usize,
    each: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let setup = Setup {
        archive,
        // The smallest window there is: some thousand messages.
        limits: "window_bytes = 1048576".to_owned(),
        ..Setup::default()
    };
    let system = System::start(Kind::Rejoin, &setup)?;
    let mut swarm = Swarm::new(Kind::Rejoin.dialect())?;
    let publishers = publish::publishers(&system, &mut swarm)?;
    let each = publish::pump(
        &mut swarm,
        &publishers,
        |_| SHALLOW.to_owned(),
        |count| count < each,
    )?;
    let stored = publish::pump(
        &mut swarm,
        &publishers,
        |_| DEEP.to_owned(),
        |count| count < deep,
    )?;
    // And what pushes both out of the window.
    publish::pump(
        &mut swarm,
        &publishers,
        |_| "room:other".to_owned(),
        |count| count < 4_000,
    )?;
    // The archive has everything then.
    system.wait_quiet(PATIENCE);
    let source = if archive { "archive" } else { "stream" };
    let name = Kind::Rejoin.name();
    let pids = [system.pids()[1]];

    let rate = read(&system, &mut swarm, &[DEEP], stored)?;
    report.add(
        "catch-up",
        format!("{deep} messages for one client, from the {source}"),
        "/s",
        name,
        rate,
    );
    let memory = measure::peak_memory_bytes(pids[0])? as f64 / 1e6;
    report.add(
        "catch-up",
        format!("the same: peak memory of the edge ({source})"),
        "MB",
        name,
        memory,
    );

    let meter = Meter::start(&pids);
    let rate = read(
        &system,
        &mut swarm,
        &vec![SHALLOW; clients],
        each * clients as u64,
    )?;
    let micros = meter.read().cpu.as_secs_f64() * 1e6 / (each * clients as u64) as f64;
    let what = format!("{clients} clients with {each} each, from the {source}");
    report.add("catch-up", what.clone(), "/s", name, rate);
    report.add(
        "catch-up",
        format!("{what}: edge CPU per message"),
        "µs",
        name,
        micros,
    );
    let memory = measure::peak_memory_bytes(pids[0])? as f64 / 1e6;
    report.add(
        "catch-up",
        format!("the same: peak memory of the edge ({source})"),
        "MB",
        name,
        memory,
    );
    Ok(())
}

/// Clients that read their rooms from the start, all at once; messages per second until the last has all.
fn read(system: &System, swarm: &mut Swarm, rooms: &[&str], messages: u64) -> anyhow::Result<f64> {
    swarm.reset();
    for (number, room) in rooms.iter().enumerate() {
        let mut spec = system.client(1, &format!("r{number}"), &[(*room).to_owned()])?;
        spec.from = Some("earliest");
        swarm.add(spec);
    }
    let begin = Instant::now();
    swarm.dial_all(PATIENCE)?;
    if !swarm.run_until(Duration::from_secs(60), |swarm| {
        swarm.tally.deliveries >= messages
    })? {
        bail!("{messages} messages were missed: {:?}", swarm.tally);
    }
    Ok(messages as f64 / begin.elapsed().as_secs_f64())
}
