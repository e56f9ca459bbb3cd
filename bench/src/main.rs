//! Measures Rejoin side by side with what people would use instead, on one machine, in one run.
//!
//! - [`system`]: starts the systems; [`swarm`]: the clients; [`measure`]: CPU and memory as the kernel counts them;
//! - [`work`]: the measurements; [`report`]: figures, tables, JSON; [`plot`]: pictures.
//!
//! `docs/PERFORMANCE.md` says how to run it and how to read it.

mod measure;
mod plot;
mod report;
mod swarm;
mod system;
mod work;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;

use measure::Side;
use report::Report;
use system::Kind;
use work::{catch_up, fanout, idle, latency, loss, publish, slow, storm};

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Workload {
    Idle,
    Latency,
    Fanout,
    Rooms,
    Storm,
    Loss,
    CatchUp,
    Publish,
    Growth,
    Slow,
    Many,
}

impl Workload {
    const ALL: [Self; 11] = [
        Self::Loss,
        Self::Latency,
        Self::Fanout,
        Self::Storm,
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
            Self::CatchUp | Self::Publish | Self::Many => matches!(kind, Kind::Rejoin),
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
            Self::Storm => storm::run(kind, many, report),
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
            Self::Growth => publish::unwanted(kind, seconds(3), report),
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
    if let Some(Part::Hold {
        server,
        first,
        count,
    }) = cli.part
    {
        return idle::hold(server, first, count);
    }
    let only: BTreeSet<Workload> = cli.only.iter().copied().collect();
    let systems = if cli.systems.is_empty() {
        Kind::ALL.to_vec()
    } else {
        cli.systems.clone()
    };
    let mut report = Report::default();
    report
        .about
        .insert("processors", measure::processors().to_string());
    report
        .about
        .insert("load at the beginning", measure::load().to_string());
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
    }
    report
        .about
        .insert("load at the end", measure::load().to_string());
    report
        .about
        .insert("seconds", begin.elapsed().as_secs().to_string());
    std::fs::create_dir_all(&cli.out).with_context(|| cli.out.display().to_string())?;
    std::fs::write(
        cli.out.join("results.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    plot::write_all(&report, &cli.out)?;
    report.write_table(&mut std::fs::File::create(cli.out.join("table.md"))?)?;
    report.write_table(&mut std::io::stdout())?;
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join("; "));
    }
    Ok(())
}
