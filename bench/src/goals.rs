//! What Rejoin is to reach, and whether a run did.

use std::fmt::Write as _;

use crate::report::{Report, number};
use crate::system::Kind;

/// How a quantity is judged.
enum Goal {
    /// Rejoin's is at most this.
    AtMost(f64),
    /// Rejoin's is at least this.
    AtLeast(f64),
    /// Rejoin's is this many times smaller than Socket.IO's with Redis.
    TimesSmaller(f64),
    /// Rejoin's is at most this share of Socket.IO's with Redis.
    ShareOf(f64),
}

/// Measurement, quantity, and what is to be reached.
const GOALS: [(&str, &str, Goal); 20] = [
    ("latency", "to one user, 200/s, p50", Goal::ShareOf(0.7)),
    ("latency", "to one user, 200/s, p99", Goal::ShareOf(0.5)),
    (
        "latency",
        "to a room of 1000, 10/s, p50",
        Goal::ShareOf(0.65),
    ),
    (
        "latency",
        "to a room of 1000, 10/s, p99",
        Goal::ShareOf(0.65),
    ),
    (
        "fan-out",
        "room of 100, 1 at once: server CPU per delivery",
        Goal::TimesSmaller(1.8),
    ),
    (
        "fan-out",
        "room of 1000, 1 at once: server CPU per delivery",
        Goal::TimesSmaller(1.8),
    ),
    (
        "fan-out",
        "room of 10000, 1 at once: server CPU per delivery",
        Goal::TimesSmaller(1.8),
    ),
    (
        "fan-out",
        "room of 100, 8 at once: server CPU per delivery",
        Goal::TimesSmaller(4.0),
    ),
    (
        "fan-out",
        "room of 1000, 8 at once: server CPU per delivery",
        Goal::TimesSmaller(4.0),
    ),
    (
        "fan-out",
        "room of 10000, 8 at once: server CPU per delivery",
        Goal::TimesSmaller(4.0),
    ),
    ("idle", "memory per connection, 10000", Goal::AtMost(4.5)),
    ("idle", "memory per connection, 50000", Goal::AtMost(4.5)),
    (
        "idle",
        "handshakes per second and core, 10000",
        Goal::AtLeast(10_000.0),
    ),
    ("idle", "CPU of 10000 idle connections", Goal::AtMost(2.0)),
    (
        "storm",
        "10000 clients: until all are live",
        Goal::AtMost(2.0),
    ),
    (
        "storm",
        "10000 clients, from the archive: until all are live",
        Goal::AtMost(4.0),
    ),
    (
        "growth",
        "published without an edge, 512 in flight: each of two servers that want none",
        Goal::AtMost(3.0),
    ),
    (
        "growth",
        "a message nobody here wants, 1 such servers: each",
        Goal::AtMost(3.0),
    ),
    (
        "publish",
        "512 in flight, sync always, group commit: acknowledged",
        Goal::AtLeast(20_000.0),
    ),
    (
        "catch-up",
        "100000 messages for one client, from the archive",
        Goal::AtLeast(50_000.0),
    ),
];

/// A row per goal, with what the run has of it.
pub(crate) fn table(report: &Report) -> String {
    let mut out = "| | goal | figure | |\n|---|---:|---:|---|\n".to_owned();
    for (workload, metric, goal) in &GOALS {
        let median = |kind: Kind| {
            let figure = report.figure(workload, metric, kind.name());
            figure.map(|figure| (figure.median(), figure.unit.as_str()))
        };
        let Some((ours, unit)) = median(Kind::Rejoin) else {
            continue;
        };
        let theirs = median(Kind::Redis).map(|(theirs, _)| theirs);
        let Some((wanted, figure, reached)) = goal.judge(ours, unit, theirs) else {
            continue;
        };
        let verdict = if reached { "reached" } else { "not reached" };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| {workload}: {metric} | {wanted} | {figure} | {verdict} |"
        );
    }
    out
}

impl Goal {
    /// The goal, the figure, and whether it is reached; `None` without the other system.
    fn judge(&self, ours: f64, unit: &str, theirs: Option<f64>) -> Option<(String, String, bool)> {
        let absolute = format!("{} {unit}", number(ours));
        Some(match *self {
            Self::AtMost(limit) => (format!("≤ {limit} {unit}"), absolute, ours <= limit),
            Self::AtLeast(limit) => (format!("≥ {limit} {unit}"), absolute, ours >= limit),
            Self::TimesSmaller(factor) => {
                let times = theirs? / ours;
                (
                    format!("{factor} × less"),
                    format!("{} ×", number(times)),
                    times >= factor,
                )
            }
            Self::ShareOf(share) => {
                let is = ours / theirs?;
                (format!("≤ {share} of Socket.IO's"), number(is), is <= share)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_what_it_is_measured_against() {
        let judge = |goal: Goal, ours, theirs| goal.judge(ours, "µs", theirs).map(|it| it.2);
        assert_eq!(judge(Goal::AtMost(3.0), 3.0, None), Some(true));
        assert_eq!(judge(Goal::AtLeast(3.0), 2.9, None), Some(false));
        assert_eq!(judge(Goal::TimesSmaller(4.0), 2.0, Some(8.0)), Some(true));
        assert_eq!(judge(Goal::ShareOf(0.5), 2.0, Some(3.9)), Some(false));
        assert_eq!(judge(Goal::ShareOf(0.5), 2.0, None), None);
    }
}
