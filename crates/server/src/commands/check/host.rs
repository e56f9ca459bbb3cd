//! This machine: its limits, and its clock against the others'.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use super::report::Report;
use crate::config::Config;

/// Descriptors of an edge that are not connections: its listener, NATS,
/// Postgres, logs, and some to spare.
const OTHER_DESCRIPTORS: u64 = 100;

/// A clock that is off by more makes the times in metrics and traces wrong.
const SKEW_WEAK_MS: i64 = 1_000;

/// Tokens would be let in and out at the wrong time, and a retried publish
/// taken for a newer or older one than it is.
const SKEW_BAD_MS: i64 = 30_000;

/// Whether as many connections as are allowed can be open.
pub(super) fn check_descriptors(config: &Config, report: &mut Report) {
    let connections = config.edge.listen.connections as u64;
    let needed = connections + OTHER_DESCRIPTORS;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => report.weak(
            format!("file descriptors: {limit} here, edge.listen.connections is {connections}"),
            "raise the limit where edges run (LimitNOFILE, ulimits, `ulimit -n`), or lower the setting",
        ),
        Some(limit) => report.good("file descriptors", limit),
        None => report.good("file descriptors", "no limit"),
    }
}

/// Whose clock is how far ahead of ours. Less than `uncertain_ms` is nothing.
pub(super) fn check_clock(whose: &str, ahead_ms: i64, uncertain_ms: i64, report: &mut Report) {
    let off_ms = ahead_ms.abs() - uncertain_ms;
    let what = format!("clock of {whose}");
    let found = format!("{ahead_ms} ms ahead of ours, to {uncertain_ms} ms");
    let advice = "synchronise the clocks (NTP); tokens, retries and latencies are judged by them";
    if off_ms > SKEW_BAD_MS {
        report.bad(format!("{what}: {found}"), advice);
    } else if off_ms > SKEW_WEAK_MS {
        report.weak(format!("{what}: {found}"), advice);
    } else {
        report.good(&what, found);
    }
}

/// Our clock, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ahead_ms: i64, uncertain_ms: i64) -> String {
        let mut report = Report::default();
        check_clock("X", ahead_ms, uncertain_ms, &mut report);
        report.text()
    }

    #[test]
    fn a_clock_that_is_off_is_found() {
        assert!(verdict(3, 1).starts_with("ok"));
        assert!(verdict(1_200, 500).starts_with("ok"));
        assert!(verdict(-1_200, 10).starts_with("weak"));
        assert!(verdict(45_000, 10).starts_with("BAD"));
    }
}
