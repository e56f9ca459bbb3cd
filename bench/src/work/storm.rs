//! Everybody is cut at once and comes back, having missed something.

use std::time::{Duration, Instant};

use super::{PATIENCE, crowd, expect, publish as pumping, publisher};
use crate::measure::Meter;
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

/// Messages that each client misses.
const MISSED: u32 = 20;

/// Clients of one room.
const ROOM: usize = 50;

/// How long after the last sign of progress those that still miss something are given up.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// And those of a system that goes on, but slowly.
const LONGEST: Duration = Duration::from_secs(90);

/// Where what was missed is when they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// In the servers.
    Warm,
    /// In the archive only.
    Cold,
}

impl Memory {
    fn setup(self) -> Setup {
        match self {
            Self::Warm => Setup::default(),
            Self::Cold => Setup {
                archive: true,
                // The smallest window there is: some thousand messages.
                limits: "window_bytes = 1048576".to_owned(),
                ..Setup::default()
            },
        }
    }
}

/// `count` clients in rooms of fifty.
pub(crate) fn run(
    kind: Kind,
    count: usize,
    memory: Memory,
    report: &mut Report,
) -> anyhow::Result<()> {
    let system = System::start(kind, &memory.setup())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    let publisher = publisher(&system, &mut swarm, 0)?;
    let room = |number: usize| format!("room:{}", number / ROOM);
    let rooms = count.div_ceil(ROOM);
    let clients = crowd(&system, &mut swarm, 2, count, room)?;
    // Socket.IO's clients have a place to come back to only after a first message.
    swarm.reset();
    publish(&mut swarm, publisher, rooms, 1, count as u64)?;

    clients.clone().for_each(|index| swarm.cut(index));
    // Not before every server has noticed.
    system.wait_quiet(PATIENCE);
    swarm.reset();
    publish(&mut swarm, publisher, rooms, MISSED, 0)?;
    if memory == Memory::Cold {
        // What pushes it out of the window; to several rooms, so that it does not take long.
        let room = |number: u64| format!("room:other-{}", number % 64);
        pumping::pump(&mut swarm, &[publisher], room, |count| count < 4_000)?;
    }
    system.wait_quiet(PATIENCE);

    swarm.reset();
    swarm.keep_numbers();
    for (number, index) in clients.clone().enumerate() {
        // To the other server than before.
        swarm.redirect(index, system.address(number % 2));
    }
    let meter = Meter::start(&system.pids());
    let begin = Instant::now();
    clients.clone().for_each(|index| swarm.dial(index));
    let due = count as u64 * u64::from(MISSED);
    let mut progress = (0, 0);
    let mut last = begin;
    while last.elapsed() < GIVEN_UP && begin.elapsed() < LONGEST {
        swarm.turn(Duration::from_millis(50))?;
        let now = (swarm.tally.ready, swarm.tally.deliveries);
        if now != progress {
            (progress, last) = (now, Instant::now());
        }
        if now == (count, due) {
            break;
        }
    }
    let took = last - begin;
    let reading = meter.read();
    let got: u64 = clients
        .clone()
        .map(|index| distinct(swarm.numbers_of(index)))
        .sum();
    let name = kind.name();
    let what = match memory {
        Memory::Warm => format!("{count} clients"),
        Memory::Cold => format!("{count} clients, from the archive"),
    };
    report.add(
        "storm",
        format!("{what}: came back"),
        "%",
        name,
        100.0 * swarm.tally.ready as f64 / count as f64,
    );
    // Who does not come back has no time of it.
    if swarm.tally.ready == count {
        report.add(
            "storm",
            format!("{what}: until all are live"),
            "s",
            name,
            took.as_secs_f64(),
        );
    }
    report.add(
        "storm",
        format!("{what}: server CPU"),
        "s",
        name,
        reading.cpu.as_secs_f64(),
    );
    report.add(
        "storm",
        format!("{what}: lost of {MISSED} messages each"),
        "%",
        name,
        100.0 * (1.0 - got as f64 / due as f64),
    );
    let peak = system.peak_memory_bytes()?;
    report.add(
        "storm",
        format!("{what}: peak memory of both servers"),
        "MB",
        name,
        peak as f64 / 1e6,
    );
    Ok(())
}

fn distinct(numbers: &[u32]) -> u64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len() as u64
}

/// The same number of messages to each room, a few at a time.
fn publish(
    swarm: &mut Swarm,
    publisher: usize,
    rooms: usize,
    each: u32,
    deliveries: u64,
) -> anyhow::Result<()> {
    let mut sent = 0;
    for number in 0..each {
        for room in 0..rooms {
            let due_ns = swarm.now_ns();
            swarm.publish(publisher, &format!("room:{room}"), number, due_ns)?;
            sent += 1;
            if sent % 32 == 0 {
                expect(swarm, 0, sent)?;
            }
        }
    }
    expect(swarm, deliveries, sent)
}
