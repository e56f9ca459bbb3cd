//! What the kernel says about a process.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPU time of a process so far, user and system, all threads that live.
///
/// From the scheduler's own count in nanoseconds; `/proc/<pid>/stat` counts in ticks of 10 ms.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        // A thread may end between the two reads.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let nanoseconds = text
            .split(' ')
            .next()
            .and_then(|text| text.parse::<u64>().ok());
        sum += nanoseconds.context("schedstat")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// The same of several processes together; one that has ended counts as nothing.
pub(crate) fn cpu_time_of(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| cpu_time(*pid).ok()).sum()
}

/// Memory that is a process's own (anonymous pages), in bytes: heap and stacks, without its program text.
pub(crate) fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Anonymous:")
}

/// Most memory that a process ever had resident, in bytes.
pub(crate) fn peak_memory_bytes(pid: u32) -> anyhow::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// The kernel's own memory on this machine (slab), in bytes.
pub(crate) fn kernel_memory_bytes() -> anyhow::Result<u64> {
    kilobytes("/proc/meminfo", "Slab:")
}

fn kilobytes(path: &str, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .context(key.to_owned())?;
    let number = line.split_whitespace().next().context("a number")?;
    Ok(number.parse::<u64>()? * 1024)
}

/// CPU time and wall time of some work.
pub(crate) struct Meter {
    pids: Vec<u32>,
    cpu: Duration,
    begin: Instant,
}

/// What a meter showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Meter {
    pub(crate) fn start(pids: &[u32]) -> Self {
        Self {
            pids: pids.to_vec(),
            cpu: cpu_time_of(pids),
            begin: Instant::now(),
        }
    }

    pub(crate) fn read(&self) -> Reading {
        Reading {
            cpu: cpu_time_of(&self.pids).saturating_sub(self.cpu),
            wall: self.begin.elapsed(),
        }
    }
}

/// Which half of the machine this thread, and what it starts from now on, runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    /// Everything that serves: edges, peers, brokers, databases.
    Servers,
    /// The load generator.
    Clients,
}

/// Pins this thread to one side: servers get the first half of the processors and the load the second half, so that
/// neither takes the other's time. Does nothing on a machine with one processor.
pub(crate) fn pin(side: Side) -> anyhow::Result<()> {
    let count = processors();
    if count < 2 {
        return Ok(());
    }
    let mut set = CpuSet::new();
    let range = match side {
        Side::Servers => 0..count / 2,
        Side::Clients => count / 2..count,
    };
    range.for_each(|number| set.set(number));
    Ok(sched_setaffinity(None, &set)?)
}

/// Processors of the machine.
pub(crate) fn processors() -> usize {
    fs::read_to_string("/proc/cpuinfo").map_or(1, |text| {
        text.lines()
            .filter(|line| line.starts_with("processor"))
            .count()
    })
}

/// Processes of the machine that want to run, averaged over a minute.
pub(crate) fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}
