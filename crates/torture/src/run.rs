//! One run: load, a fault, recovery, rest, and the verdict.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;
use torture::checker::check;
use torture::history::{Event, What};
use torture::table::Row;

use crate::faults::{Fault, Stage};
use crate::load::Load;
use crate::world::World;

/// Until every client is live at the beginning.
const WARM: Duration = Duration::from_secs(60);
/// Until every client got something new after the fault.
const RECOVERY: Duration = Duration::from_secs(60);
/// Until every client has everything at the end.
const SETTLED: Duration = Duration::from_secs(45);
/// The same where acknowledged messages are known to be lost, and so some never get there.
const SETTLED_KNOWN: Duration = Duration::from_secs(5);
/// Whatever is still to come without being asked for.
const QUIET: Duration = Duration::from_millis(400);
/// A fault that is not over after this has failed.
const FAULT: Duration = Duration::from_secs(150);

/// Runs a fault once. What could not be brought to its end is told in the row.
pub(crate) async fn run(world: &mut World, fault: &Fault, number: u64, seed: u64) -> Row {
    let prefix = format!("r{number}");
    let mut row = Row {
        fault: fault.name.to_owned(),
        runs: 1,
        known: fault.known,
        ..Row::default()
    };
    let address = world.balancer.addr();
    let load = Load::start(address, &prefix, &fault.size, seed);
    let result = match load {
        Ok(load) => act(world, load, fault, &prefix, seed, &mut row).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        row.failures.push(format!("{error:#}"));
    }
    row
}

async fn act(
    world: &mut World,
    mut load: Load,
    fault: &Fault,
    prefix: &str,
    seed: u64,
    row: &mut Row,
) -> anyhow::Result<()> {
    if !load.warm(WARM).await {
        row.failures.push("not every client became live".to_owned());
    }
    sleep(Duration::from_millis(500)).await;
    load.recorder.note(What::Fault {
        name: fault.name.into(),
    });
    let stage = Stage {
        world: &mut *world,
        load: &load,
        random: StdRng::seed_from_u64(seed),
    };
    let inflicted = tokio::time::timeout(FAULT, (fault.inflict)(stage)).await;
    if let Err(error) = inflicted.map_err(anyhow::Error::from).and_then(|it| it) {
        row.failures.push(format!("{error:#}"));
        world.heal().await?;
    }
    load.hush(false);
    load.recorder.note(What::Healed);
    load.progress.healed(load.recorder.elapsed());
    if !load.recovered(RECOVERY).await {
        let who = load.progress.stragglers().join("; ");
        row.failures
            .push(format!("not every client recovered: {who}"));
    }
    load.calm().await;
    let patience = if fault.known { SETTLED_KNOWN } else { SETTLED };
    if !load.settled(patience).await {
        let who = load.progress.stragglers().join("; ");
        row.failures.push(format!("no rest at the end: {who}"));
    }
    sleep(QUIET).await;
    let (recorder, progress) = (load.recorder.clone(), load.progress.clone());
    let channels = load.channels.clone();
    load.end().await;
    row.recoveries = progress.recoveries();
    row.failures.extend(progress.defects());
    let history = recorder.events();
    row.silences.extend(silence(&history));
    let truth = world.truth(prefix, &channels).await?;
    row.verdict = check(&history, &truth);
    Ok(())
}

/// The longest time without an acknowledgement, from just before the fault to the end of publishing.
fn silence(history: &[Event]) -> Option<Duration> {
    let begin = history
        .iter()
        .find(|it| matches!(it.what, What::Fault { .. }))?
        .at;
    let mut acks = history
        .iter()
        .filter(|it| it.at >= begin && matches!(it.what, What::Acked { .. }));
    let mut last = begin;
    let mut longest = Duration::ZERO;
    for ack in &mut acks {
        longest = longest.max(ack.at.saturating_sub(last));
        last = ack.at;
    }
    Some(longest)
}
