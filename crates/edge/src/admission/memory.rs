//! Refusing new connections before the system kills the process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::Clock;

use super::bucket::TokioClock;

/// How long an answer of the system is good for: a read of a small file, of
/// which a storm of connects needs only some per second.
const FRESH: Duration = Duration::from_millis(250);

/// The files that say how much memory this process may take: its control
/// group's (version 2, then 1).
const LIMIT_FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// The process's memory against a mark.
#[derive(Debug)]
pub(crate) struct Memory {
    /// In bytes; `None` where there is no mark.
    mark: Option<u64>,
    begun: Instant,
    /// When the system was last asked, in milliseconds after `begun`, plus 1.
    asked: AtomicU64,
    over: AtomicBool,
}

impl Memory {
    /// `configured` bytes, or this share of what the control group or the
    /// machine has if 0.
    pub(crate) fn new(configured: u64, share: f64) -> Self {
        let found = || Some((available()? as f64 * share) as u64);
        Self {
            mark: match configured {
                0 => found(),
                bytes => Some(bytes),
            },
            begun: TokioClock.now(),
            asked: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Whether more is taken than the mark says. Never, where the system does
    /// not tell.
    pub(crate) fn is_over(&self) -> bool {
        let Some(mark) = self.mark else { return false };
        let since = TokioClock.now().saturating_duration_since(self.begun);
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let asked = self.asked.load(Ordering::Relaxed);
        let fresh = u64::try_from(FRESH.as_millis()).unwrap_or(u64::MAX);
        if asked == 0 || now >= asked.saturating_add(fresh) {
            self.asked.store(now + 1, Ordering::Relaxed);
            let over = resident().is_some_and(|bytes| bytes > mark);
            self.over.store(over, Ordering::Relaxed);
        }
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn mark(&self) -> u64 {
        self.mark.unwrap_or(0)
    }
}

/// What the process may take, in bytes: the smaller of its control group's
/// limit and the machine's memory.
fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let group = LIMIT_FILES
        .iter()
        .find_map(|path| read(path)?.trim().parse::<u64>().ok());
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        kilobytes.checked_mul(1_024)
    });
    match (group, machine) {
        (Some(group), Some(machine)) => Some(group.min(machine)),
        (either, other) => either.or(other),
    }
}

/// What the process holds in memory, in bytes (proc(5), `VmRSS`).
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1_024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_and_compared() {
        let found = Memory::new(0, 0.85);
        assert!(
            found.mark() > resident().unwrap(),
            "a test fits this machine"
        );
        assert!(!found.is_over());
        assert!(Memory::new(1, 0.85).is_over());
        assert!(!Memory::new(u64::MAX, 0.85).is_over());
    }
}
