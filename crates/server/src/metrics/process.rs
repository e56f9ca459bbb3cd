//! The process, under the names that Prometheus' client libraries use.
//!
//! Linux only, but for the tasks: elsewhere there is no `/proc`, and these are
//! left out.

use std::fs;

use edge::Edge;
use edge::exposition::Exposition;
use rustix::process::{Resource, getrlimit};

/// `/proc/self/stat` counts in ticks, which are a hundredth of a second for
/// every program on Linux (`USER_HZ`, proc(5)).
const TICKS_PER_S: f64 = 100.0;

/// Shows the process's numbers.
pub fn add(edge: &Edge) {
    edge.metrics().add(|out| {
        // Outside of a runtime there are no tasks to count.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let help = "Asynchronous tasks that have not ended.";
            out.gauge("rejoin_tasks", help)
                .value(runtime.metrics().num_alive_tasks() as u64);
        }
        // Nothing is shown where nothing is known.
        let _ = write(out);
    });
}

fn write(out: &mut Exposition) -> Option<()> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // After the program's name, which may hold anything: state is field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let help = "CPU time used, in user and system mode.";
    out.counter("process_cpu_seconds_total", help)
        .value((field(14)? + field(15)?) / TICKS_PER_S);
    let help = "When the process started, as Unix time.";
    out.gauge("process_start_time_seconds", help)
        .value(boot_time_s()? + field(22)? / TICKS_PER_S);
    let help = "Memory in use (RSS).";
    let page_bytes = rustix::param::page_size() as f64;
    out.gauge("process_resident_memory_bytes", help)
        .value(field(24)? * page_bytes);
    out.gauge("process_open_fds", "Open file descriptors.")
        .value(open_fds()?);
    let help = "File descriptors that may be open.";
    let limit = getrlimit(Resource::Nofile).current;
    out.gauge("process_max_fds", help)
        .value(limit.map_or(f64::INFINITY, |limit| limit as f64));
    Some(())
}

/// Since Linux 6.2 the folder's size says it (proc(5)); before, its files have
/// to be counted, which takes some 0.2 ms for a thousand.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // One of them is the folder itself.
        0 => Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)),
        open => Some(open),
    }
}

fn boot_time_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}
