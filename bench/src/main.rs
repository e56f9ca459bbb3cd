//! Measures Rejoin side by side with what people would use instead, on one machine, in one run.
//!
//! - [`system`]: starts the systems; [`swarm`]: the clients; [`measure`]: CPU and memory as the kernel counts them;
//! - [`work`]: the measurements; [`report`]: figures, tables, JSON; [`plot`]: pictures; [`fill`] and [`goals`]: tables in documents.
//!
//! `docs/PERFORMANCE.md` says how to run it and how to read it.

mod fill;
mod goals;
mod measure;
mod plot;
mod report;
mod swarm;
mod system;
mod work;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;

use measure::Side;
use report::Report;
use system::Kind;
use work::storm::{self, Memory};
use work::{bulk, catch_up, fanout, idle, latency, loss, publish, slow};

/// Measures Rejoin side by side with its peers.
#[derive(Debug, Parser)]
struct Cli {
    /// Only these measurements.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Only these systems.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<Kind>,
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Smaller and shorter: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Where results go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program starts of itself.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Holds connections to one edge until its input ends: more processes have more file descriptors.
    #[command(hide = true)]
    Hold {
        server: SocketAddr,
        first: usize,
        count: usize,
    },
    /// Writes the figures of a run into the tables of documents.
    Fill {
        /// What a run has left.
        #[arg(long, default_value = "target/bench/results.json")]
        results: PathBuf,
        /// Documents with places for tables.
        #[arg(default_values = ["README.md", "docs/PERFORMANCE.md"])]
        documents: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Workload {
    Idle,
    Latency,
    Fanout,
    Rooms,
    Storm,
    ColdStorm,
    Loss,
    CatchUp,
    Publish,
    Growth,
    Slow,
    Many,
}

impl Workload {
    const ALL: [Self; 12] = [
        Self::Loss,
        Self::Latency,
        Self::Fanout,
        Self::Storm,
        Self::ColdStorm,
        Self::Idle,
        Self::Rooms,
        Self::Publish,
        Self::CatchUp,
        Self::Growth,
        Self::Slow,
        Self::Many,
    ];

    /// Measurements whose figures vary little, or take long, are made once.
    const fn rounds(self, asked: u32) -> u32 {
        match self {
            Self::Latency | Self::Fanout | Self::Storm => asked,
            _ => 1,
        }
    }

    /// What only Rejoin does is not asked of the others.
    const fn concerns(self, kind: Kind) -> bool {
        match self {
            Self::CatchUp | Self::Publish | Self::Many | Self::ColdStorm => {
                matches!(kind, Kind::Rejoin)
            }
            _ => true,
        }
    }

    /// One round of one system.
    fn run(self, kind: Kind, quick: bool, report: &mut Report) -> anyhow::Result<()> {
        let seconds = |full: u64| Duration::from_secs(if quick { 1 } else { full });
        let many = if quick { 1_000 } else { 10_000 };
        match self {
            Self::Idle => {
                idle::run(kind, 1_000, false, report)?;
                idle::run(kind, many, !quick, report)
            }
            Self::Latency => {
                latency::one_user(kind, 200, seconds(4), report)?;
                latency::room(kind, 1_000, 10, seconds(4), report)
            }
            Self::Fanout => {
                for size in [100, 1_000, many] {
                    fanout::run(kind, size, seconds(2), report)?;
                }
                Ok(())
            }
            Self::Rooms => fanout::many_rooms(kind, many, seconds(4), report),
            Self::Storm => storm::run(kind, many, Memory::Warm, report),
            Self::ColdStorm => storm::run(kind, many, Memory::Cold, report),
            Self::Loss => loss::Fault::ALL
                .iter()
                .try_for_each(|fault| loss::run(kind, *fault, report)),
            Self::CatchUp => {
                let (deep, clients, each) = if quick {
                    (10_000, 100, 100)
                } else {
                    (100_000, 1_000, 1_000)
                };
                catch_up::run(true, deep, clients, each, report)?;
                catch_up::run(false, deep, clients, each, report)
            }
            Self::Publish => publish::durable(seconds(4), report),
            Self::Growth => {
                publish::unwanted(kind, seconds(3), report)?;
                match kind {
                    Kind::Rejoin => bulk::unwanted(seconds(3), report),
                    Kind::Redis | Kind::Streams => Ok(()),
                }
            }
            Self::Slow => slow::run(kind, seconds(4), report),
            Self::Many => idle::many(if quick { 2_000 } else { 50_000 }, report),
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    measure::pin(Side::Clients)?;
    match &cli.part {
        Some(Part::Hold {
            server,
            first,
            count,
        }) => return idle::hold(*server, *first, *count),
        Some(Part::Fill { results, documents }) => return fill::run(results, documents),
        None => {}
    }
    let only: BTreeSet<Workload> = cli.only.iter().copied().collect();
    let systems = if cli.systems.is_empty() {
        Kind::ALL.to_vec()
    } else {
        cli.systems.clone()
    };
    let mut report = Report::default();
    report.note("processors", measure::processors());
    report.note("load at the beginning", measure::load());
    let mut failed = Vec::new();
    let begin = Instant::now();
    for workload in Workload::ALL
        .into_iter()
        .filter(|it| only.is_empty() || only.contains(it))
    {
        for round in 1..=workload.rounds(cli.rounds) {
            // Systems take turns within a round, so that what changes on the machine meanwhile meets all of them.
            for kind in systems.iter().filter(|kind| workload.concerns(**kind)) {
                eprintln!(
                    "{:>4} s  {workload:?}, round {round}, {}",
                    begin.elapsed().as_secs(),
                    kind.name()
                );
                if let Err(error) = workload.run(*kind, cli.quick, &mut report) {
                    // The others' figures are worth having all the same.
                    let what = format!("{workload:?} of {}: {error:#}", kind.name());
                    eprintln!("    FAILED: {what}");
                    failed.push(what);
                }
            }
        }
        // After each measurement: a run that is ended early leaves what it has.
        report.note("load at the end", measure::load());
        report.note("seconds", begin.elapsed().as_secs());
        write(&report, &cli.out)?;
    }
    report.write_table(&mut std::io::stdout())?;
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join("; "));
    }
    Ok(())
}

fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(
        folder.join("results.json"),
        serde_json::to_vec_pretty(report)?,
    )?;
    plot::write_all(report, folder)?;
    report.write_table(&mut std::fs::File::create(folder.join("table.md"))?)?;
    Ok(())
}
