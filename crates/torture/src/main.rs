//! `torture`: starts a deployment of real processes, hurts it in every way that it knows, and counts what breaks the
//! contract. Ends with a table; its exit code is 0 if nothing was found.

mod faults;
mod load;
mod plans;
mod run;
mod soak;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::timeout_at;
use torture::table::Table;

use faults::{Fault, Home};
use soak::Soak;
use world::World;

/// The last run may take so long; then it is broken off, so that there is a table in time.
const LAST: Duration = Duration::from_secs(60);

/// Edges live through it, and all their connections are new after it.
const SHORT_SOAK: &str = "clients: cut";
/// The first one fills what edges keep, and is what the last one is compared with.
const SHORT_SOAK_RUNS: usize = 5;

/// Hurts a deployment of real processes and checks that nobody loses a message.
#[derive(Debug, Parser)]
struct Arguments {
    /// Chooses the order of the faults and everything random in them. Default: another one each time.
    #[arg(long, env = "TORTURE_SEED")]
    seed: Option<u64>,
    /// No fault begins after this many seconds. Until then each one runs once before one runs twice.
    #[arg(long, env = "TORTURE_SECONDS", default_value_t = 520)]
    seconds: u64,
    /// Only faults with this text in their names.
    #[arg(long, env = "TORTURE_ONLY")]
    only: Option<String>,
    /// Only some faults, each once, and then a soak of half a minute.
    #[arg(long)]
    short: bool,
    /// Only faults that edges live through, again and again, to see whether their memory, descriptors, threads and
    /// tasks grow.
    #[arg(long, conflicts_with = "short")]
    soak: bool,
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
    let random = StdRng::seed_from_u64(seed);
    let mounts = world::may_mount();
    if !mounts {
        say("no file system can be mounted here: without full disks");
    }
    let clocks = world::faketime().is_some();
    if !clocks {
        say("libfaketime is not here (Debian: apt install libfaketime): without jumping clocks");
    }
    let mut faults = chosen(arguments, mounts);
    faults.retain(|fault| clocks || fault.home != Home::Clocks);
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut state = State {
        table: Table::default(),
        soak: arguments.soak.then(Soak::default),
        random,
        end,
    };
    let begin = Instant::now();
    let homes = [
        Home::Single,
        Home::Clocks,
        Home::Cluster,
        Home::ClusterPowerDefault,
        Home::PowerAlways,
        Home::PowerDefault,
    ];
    for (place, home) in homes.into_iter().enumerate() {
        let here: Vec<&Fault> = faults.iter().filter(|it| it.home == home).collect();
        if here.is_empty() || Instant::now() >= state.end {
            continue;
        }
        let later = &homes[place + 1..];
        let later = faults.iter().filter(|it| later.contains(&it.home));
        let later = later.map(|it| it.home.usual()).sum();
        let plan = plans::of(home, mounts);
        let mut world = World::start(&plan, rejoin.clone()).await?;
        let rounds = state.rounds(&mut world, here, later, arguments.short);
        match timeout_at((end + LAST).into(), rounds).await {
            Ok(result) => result?,
            Err(_) => {
                say("the last run was broken off, for lack of time");
                break;
            }
        }
        if arguments.short {
            state.soak(&mut world).await?;
        }
        if !matches!(home, Home::PowerDefault | Home::ClusterPowerDefault) {
            say(&world.check_archive().await?);
        }
    }
    let clean = state.report(&faults);
    say(&format!("seed {seed}, {} s", begin.elapsed().as_secs()));
    Ok(clean)
}

/// The faults that were asked for and can be had here.
fn chosen(arguments: &Arguments, mounts: bool) -> Vec<Fault> {
    let chosen = |fault: &Fault| {
        let named = |text: &String| fault.name.contains(text.as_str());
        (mounts || !fault.mounts)
            && (!arguments.short || fault.short)
            && (!arguments.soak || fault.soak)
            && arguments.only.as_ref().is_none_or(named)
    };
    faults::all().into_iter().filter(chosen).collect()
}

/// What all runs share.
struct State {
    table: Table,
    soak: Option<Soak>,
    random: StdRng,
    /// Nothing begins after this.
    end: Instant,
}

impl State {
    /// Runs the faults of one home, once and then as long as there is time for it: those that are still to come take as
    /// long as `later`.
    async fn rounds(
        &mut self,
        world: &mut World,
        mut here: Vec<&Fault>,
        later: Duration,
        once: bool,
    ) -> anyhow::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        let usual: Duration = here.iter().map(|it| it.home.usual()).sum();
        let share = usual.as_secs_f64() / (usual + later).as_secs_f64();
        let end = Instant::now() + left.mul_f64(share);
        let mut first = true;
        loop {
            here.shuffle(&mut self.random);
            for fault in &here {
                let over = if first { self.end } else { end };
                if Instant::now() >= over {
                    return Ok(());
                }
                let seed = self.random.random();
                one(world, fault, seed, &mut self.table).await?;
                if let Some(soak) = &mut self.soak {
                    say(&format!("    {}", soak.sample(world).await));
                }
            }
            first = false;
            if once {
                return Ok(());
            }
        }
    }

    /// The same edges under one fault again and again.
    async fn soak(&mut self, world: &mut World) -> anyhow::Result<()> {
        let mut soak = Soak::default();
        let faults = faults::all();
        let fault = faults.iter().find(|it| it.name == SHORT_SOAK);
        let fault = fault.context("no fault of this name")?;
        for _ in 0..SHORT_SOAK_RUNS {
            let seed = self.random.random();
            one(world, fault, seed, &mut self.table).await?;
            say(&format!("    {}", soak.sample(world).await));
        }
        self.soak = Some(soak);
        Ok(())
    }

    /// Prints everything; whether nothing was found.
    fn report(&self, faults: &[Fault]) -> bool {
        let table = &self.table;
        say(&table.render());
        for row in table.rows() {
            for failure in &row.failures {
                say(&format!("FAILED {}: {failure}", row.fault));
            }
        }
        for fault in faults {
            if !table.rows().iter().any(|row| row.fault == fault.name) {
                say(&format!("NOT RUN for lack of time: {}", fault.name));
            }
        }
        let growth = self.soak.as_ref().map(Soak::growth).unwrap_or_default();
        for words in &growth {
            say(&format!("GREW {words}"));
        }
        if let Some(soak) = &self.soak {
            say(match soak.is_telling() {
                true => "memory, descriptors, threads and tasks were compared",
                false => "too short to compare memory, descriptors, threads and tasks",
            });
        }
        table.is_clean() && growth.is_empty()
    }
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
