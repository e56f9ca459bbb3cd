//! A hundred messages while something is broken: how many arrive?

use std::time::Duration;

use super::{PATIENCE, expect, publisher};
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{Kind, Setup, System};

const MESSAGES: u32 = 100;

/// Over this time they are sent.
const OUTAGE: Duration = Duration::from_secs(3);

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client's connection is closed.
    CleanDrop,
    /// The client vanishes without a word, as in a tunnel.
    HalfOpenDrop,
    /// The client's server is killed.
    KilledServer,
    /// What joins the servers is restarted, under clients that stay.
    BrokerRestart,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [
        Self::CleanDrop,
        Self::HalfOpenDrop,
        Self::KilledServer,
        Self::BrokerRestart,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::CleanDrop => "clean drop",
            Self::HalfOpenDrop => "half-open drop",
            Self::KilledServer => "killed server",
            Self::BrokerRestart => "broker restart",
        }
    }
}

/// A client on server 1 during a fault, a publisher on server 0; the client comes back to server 0.
pub(crate) fn run(kind: Kind, fault: Fault, report: &mut Report) -> anyhow::Result<()> {
    let mut system = System::start(kind, &Setup::default())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    let publisher = publisher(&system, &mut swarm, 0)?;
    let client = swarm.add(system.client(1, "u0", &["room:1".to_owned()])?);
    swarm.dial_all(PATIENCE)?;
    swarm.reset();
    // A place to come back to.
    let due_ns = swarm.now_ns();
    swarm.publish(publisher, "room:1", 0, due_ns)?;
    expect(&mut swarm, 1, 1)?;
    swarm.keep_numbers();
    match fault {
        Fault::CleanDrop => swarm.cut(client),
        Fault::HalfOpenDrop => swarm.vanish(client)?,
        Fault::KilledServer => system.kill_server(1),
        Fault::BrokerRestart => system.stop_broker()?,
    }
    swarm.run_for(Duration::from_millis(200))?;
    for number in 1..=MESSAGES {
        let due_ns = swarm.now_ns();
        swarm.publish(publisher, "room:1", number, due_ns)?;
        swarm.run_for(OUTAGE / MESSAGES)?;
        if fault == Fault::BrokerRestart && number == MESSAGES / 2 {
            system.restart_broker()?;
        }
    }
    if swarm.is_away(client) {
        swarm.redirect(client, system.address(0));
        swarm.dial(client);
    }
    // Everything that will come has come: nothing is lost, or nothing came for three seconds.
    let mut got = 0;
    while swarm.run_until(Duration::from_secs(3), |swarm| {
        swarm.numbers_of(client).len() > got
    })? {
        got = swarm.numbers_of(client).len();
    }
    let mut numbers = swarm.numbers_of(client).to_vec();
    numbers.sort_unstable();
    let total = numbers.len();
    numbers.dedup();
    let name = kind.name();
    let what = fault.name();
    report.add(
        "loss",
        format!("{what}: arrived of {MESSAGES}"),
        "messages",
        name,
        numbers.len() as f64,
    );
    report.add(
        "loss",
        format!("{what}: twice"),
        "messages",
        name,
        (total - numbers.len()) as f64,
    );
    Ok(())
}
