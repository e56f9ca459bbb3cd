//! `torture`: starts a deployment of real processes, hurts it in every way that it knows, and counts what breaks the
//! contract. Ends with a table; its exit code is 0 if nothing was found.

mod faults;
mod load;
mod plans;
mod run;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use torture::table::Table;

use faults::{Fault, Home};
use world::World;

/// Hurts a deployment of real processes and checks that nobody loses a message.
#[derive(Debug, Parser)]
struct Arguments {
    /// Chooses the order of the faults and everything random in them. Default: another one each time.
    #[arg(long, env = "TORTURE_SEED")]
    seed: Option<u64>,
    /// No fault begins after this many seconds; each one of the list runs once at least before one runs twice.
    #[arg(long, env = "TORTURE_SECONDS", default_value_t = 420)]
    seconds: u64,
    /// Only faults with this text in their names.
    #[arg(long, env = "TORTURE_ONLY")]
    only: Option<String>,
    /// Only some faults, each once.
    #[arg(long)]
    short: bool,
    /// The program under test. Default: `rejoin` beside this one.
    #[arg(long, env = "REJOIN_BIN")]
    rejoin: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match torture(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("torture: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever watches.
#[expect(clippy::print_stdout, reason = "what this program is for")]
fn say(words: &str) {
    println!("{words}");
}

async fn torture(arguments: &Arguments) -> anyhow::Result<bool> {
    let rejoin = program(arguments)?;
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
    say(&format!("seed {seed}: run again with TORTURE_SEED={seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let mounts = world::may_mount();
    if !mounts {
        say("no file system can be mounted here: without full disks");
    }
    let chosen = |fault: &Fault| {
        let named = |text: &String| fault.name.contains(text.as_str());
        (mounts || !fault.mounts)
            && (!arguments.short || fault.short)
            && arguments.only.as_ref().is_none_or(named)
    };
    let faults: Vec<Fault> = faults::all().into_iter().filter(chosen).collect();
    let mut table = Table::default();
    let begin = Instant::now();
    let homes = [Home::Single, Home::Cluster];
    let in_home = |home| faults.iter().filter(move |it| it.home == home);
    for (place, home) in homes.into_iter().enumerate() {
        let mut here: Vec<&Fault> = in_home(home).collect();
        if here.is_empty() {
            continue;
        }
        // Each home gets the time that its share of the faults is due.
        let later: usize = homes[place + 1..]
            .iter()
            .map(|it| in_home(*it).count())
            .sum();
        let left = Duration::from_secs(arguments.seconds).saturating_sub(begin.elapsed());
        let share = left.mul_f64(here.len() as f64 / (here.len() + later) as f64);
        let end = Instant::now() + share;
        let plan = plans::of(home, mounts);
        let mut world = World::start(&plan, rejoin.clone()).await?;
        let mut round = 0;
        while round == 0 || (!arguments.short && Instant::now() < end) {
            here.shuffle(&mut random);
            for fault in &here {
                if round > 0 && Instant::now() >= end {
                    break;
                }
                one(&mut world, fault, random.random(), &mut table).await?;
            }
            round += 1;
        }
        let report = world.check_archive().await?;
        say(&report);
    }
    say(&table.render());
    for row in table.rows() {
        for failure in &row.failures {
            say(&format!("FAILED {}: {failure}", row.fault));
        }
    }
    say(&format!("seed {seed}, {} s", begin.elapsed().as_secs()));
    Ok(table.is_clean())
}

async fn one(world: &mut World, fault: &Fault, seed: u64, table: &mut Table) -> anyhow::Result<()> {
    let begin = Instant::now();
    let number = table.rows().iter().map(|row| row.runs).sum::<u64>() + 1;
    let row = run::run(world, fault, number, seed).await;
    let verdict = &row.verdict;
    say(&format!(
        "{:<36} {:>5.1} s: {} published, {} acknowledged, {} deliveries in {} sessions, {} resets, {} anomalies{}",
        fault.name,
        begin.elapsed().as_secs_f64(),
        verdict.published,
        verdict.acknowledged,
        verdict.deliveries,
        verdict.sessions,
        verdict.resets,
        verdict.anomalies(),
        if row.failures.is_empty() {
            ""
        } else {
            ", FAILED"
        },
    ));
    if verdict.anomalies() > 0 || !row.failures.is_empty() {
        for (anomaly, words) in verdict.findings.iter().take(20) {
            say(&format!("    {anomaly}: {words}"));
        }
        for failure in &row.failures {
            say(&format!("    failed: {failure}"));
        }
        say(&format!("    seed of this run: {seed}\n{}", world.logs()));
    }
    table.add(row);
    Ok(())
}

fn program(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    if let Some(program) = &arguments.rejoin {
        return Ok(std::path::absolute(program)?);
    }
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("rejoin");
    beside
        .exists()
        .then_some(beside)
        .context("there is no `rejoin` beside this program: build it, or set REJOIN_BIN")
}
