//! What a connection costs that does nothing, and what it costs to make one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{PATIENCE, crowd};
use crate::measure::{self, Meter};
use crate::report::Report;
use crate::swarm::Swarm;
use crate::system::{self, Kind, Setup, System};

/// One interval of heartbeats, of every system here.
const INTERVAL: Duration = Duration::from_secs(25);

/// `count` connections, each with its user's inbox, on two servers.
pub(crate) fn run(
    kind: Kind,
    count: usize,
    with_heartbeats: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let system = System::start(kind, &Setup::default())?;
    let mut swarm = Swarm::new(kind.dialect())?;
    let pids = system.pids();
    let memory = || system.memory_bytes().map(|bytes| bytes as f64);
    system.wait_quiet(PATIENCE);
    let (before, kernel_before) = (memory()?, measure::kernel_memory_bytes()? as f64);
    let meter = Meter::start(&pids);
    crowd(&system, &mut swarm, 2, count, |number| {
        format!("user:u{number}")
    })?;
    let made = meter.read();
    system.wait_quiet(PATIENCE);
    let name = kind.name();
    let per = |bytes: f64| bytes / count as f64 / 1_000.0;
    report.add(
        "idle",
        format!("memory per connection, {count}"),
        "kB",
        name,
        per(memory()? - before),
    );
    // Both ends are on this machine.
    let kernel = (measure::kernel_memory_bytes()? as f64 - kernel_before) / 2.0;
    report.add(
        "idle",
        format!("kernel memory per socket, {count}"),
        "kB",
        name,
        per(kernel),
    );
    let rate = count as f64 / made.cpu.as_secs_f64();
    report.add(
        "idle",
        format!("handshakes per second and core, {count}"),
        "/s",
        name,
        rate,
    );
    if with_heartbeats {
        let meter = Meter::start(&pids);
        swarm.run_for(INTERVAL)?;
        let idle = meter.read();
        let percent = 100.0 * idle.cpu.as_secs_f64() / idle.wall.as_secs_f64();
        report.add(
            "idle",
            format!("CPU of {count} idle connections"),
            "% of a core",
            name,
            percent,
        );
    }
    Ok(())
}

/// Servers and client processes that share `many` connections; each has its own file descriptors.
const PARTS: usize = 4;

/// More connections than one process may have open, on several edges.
pub(crate) fn many(count: usize, report: &mut Report) -> anyhow::Result<()> {
    let kind = Kind::Rejoin;
    let system = System::start(
        kind,
        &Setup {
            servers: PARTS,
            ..Setup::default()
        },
    )?;
    let memory = || system.memory_bytes().map(|bytes| bytes as f64);
    system.wait_quiet(PATIENCE);
    let before = memory()?;
    let mut holders = Vec::new();
    for part in 0..PARTS {
        let each = count / PARTS;
        let mut holder = Command::new(std::env::current_exe()?)
            .args([
                "hold",
                &system.address(part).to_string(),
                &(part * each).to_string(),
                &each.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = holder.stdout.take().context("a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line != READY {
            bail!("clients of server {part} do not become ready");
        }
        holders.push(holder);
    }
    system.wait_quiet(PATIENCE);
    let per = (memory()? - before) / count as f64 / 1_000.0;
    report.add(
        "idle",
        format!("memory per connection, {count}"),
        "kB",
        kind.name(),
        per,
    );
    for mut holder in holders {
        // Its input ends, and so does it.
        drop(holder.stdin.take());
        holder.wait()?;
    }
    Ok(())
}

const READY: &str = "ready\n";

/// Connects `count` users to a server and holds on until standard input ends.
pub(crate) fn hold(server: SocketAddr, first: usize, count: usize) -> anyhow::Result<()> {
    let mut swarm = Swarm::new(Kind::Rejoin.dialect())?;
    for number in first..first + count {
        let user = format!("u{number}");
        let rooms = [format!("user:{user}")];
        swarm.add(system::client_of(server, &user, &rooms)?);
    }
    swarm.dial_all(PATIENCE)?;
    std::io::stdout().write_all(READY.as_bytes())?;
    std::io::stdout().flush()?;
    let (gone, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(gone);
    });
    // Answers pings meanwhile.
    while let Err(std::sync::mpsc::TryRecvError::Empty) = end.try_recv() {
        swarm.run_for(Duration::from_millis(100))?;
    }
    Ok(())
}
