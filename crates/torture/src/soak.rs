//! Whether long-lived edges stay as they are: memory, descriptors, threads and tasks, at rest after each run.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::world::{Program, World};

/// Memory may grow by this share, and by [`RSS_SLACK_KB`] on top, between the first and the last third of a soak: caches
/// fill, and allocators keep what they had at a peak.
const RSS_GROWTH: f64 = 1.25;
const RSS_SLACK_KB: u64 = 16 * 1024;
/// Descriptors, threads and tasks may differ by this many: idle connections of pools, and of runs that have just ended.
const COUNT_SLACK: u64 = 12;
/// Fewer samples say nothing about growth.
const SAMPLES_MIN: usize = 5;
/// The edge closes what clients have left within this.
const LEFT: Duration = Duration::from_secs(5);

/// One edge at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    pid: u32,
    rss_kb: u64,
    descriptors: u64,
    threads: u64,
    /// Of tokio; unknown while the edge does not answer.
    tasks: Option<u64>,
}

/// Samples of all edges.
#[derive(Debug, Default)]
pub(crate) struct Soak {
    edges: Vec<Vec<Sample>>,
}

impl Soak {
    /// Looks at every edge; what cannot be read (there is no /proc) is left out.
    pub(crate) async fn sample(&mut self, world: &World) -> String {
        self.edges.resize(world.edges.len(), Vec::new());
        let mut words = Vec::new();
        for (edge, samples) in world.edges.iter().zip(&mut self.edges) {
            at_rest(&edge.program).await;
            let tasks = edge.program.metric("rejoin_tasks").await;
            if let Some(sample) = look(edge.program.pid(), tasks) {
                words.push(format!(
                    "{} {} MiB, {} descriptors, {} threads, {} tasks",
                    edge.program.name,
                    sample.rss_kb / 1024,
                    sample.descriptors,
                    sample.threads,
                    sample.tasks.unwrap_or(0),
                ));
                samples.push(sample);
            }
        }
        words.join("; ")
    }

    /// What grew, in words; empty if nothing did.
    pub(crate) fn growth(&self) -> Vec<String> {
        self.edges
            .iter()
            .enumerate()
            .flat_map(|(number, samples)| grown(number + 1, samples))
            .collect()
    }

    /// Whether there are enough samples to say anything.
    pub(crate) fn is_telling(&self) -> bool {
        self.edges.iter().all(|it| it.len() >= SAMPLES_MIN)
    }
}

/// Waits until nobody is connected any more but who asks.
async fn at_rest(edge: &Program) {
    let end = Instant::now() + LEFT;
    while Instant::now() < end && edge.metric("rejoin_sockets").await.is_none_or(|it| it > 1) {
        sleep(Duration::from_millis(50)).await;
    }
}

fn grown(edge: usize, samples: &[Sample]) -> Vec<String> {
    let mut words = Vec::new();
    if samples.windows(2).any(|pair| pair[0].pid != pair[1].pid) {
        words.push(format!("edge-{edge} ended during the soak"));
    }
    if samples.len() < SAMPLES_MIN {
        return words;
    }
    let third = samples.len() / 3;
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let highest = |of: &[Sample], value: fn(&Sample) -> u64| of.iter().map(value).max();
    let mut compare = |what: &str, value: fn(&Sample) -> u64, allowed: fn(u64) -> u64| {
        let before = highest(first, value).unwrap_or(0);
        let after = highest(last, value).unwrap_or(0);
        if after > allowed(before) {
            words.push(format!("edge-{edge}: {what} grew from {before} to {after}"));
        }
    };
    let memory = |before: u64| (before as f64 * RSS_GROWTH) as u64 + RSS_SLACK_KB;
    compare("memory (KiB)", |it| it.rss_kb, memory);
    compare("descriptors", |it| it.descriptors, |it| it + COUNT_SLACK);
    compare("threads", |it| it.threads, |it| it + COUNT_SLACK);
    compare("tasks", |it| it.tasks.unwrap_or(0), |it| it + COUNT_SLACK);
    words
}

fn look(pid: u32, tasks: Option<u64>) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Sample {
        pid,
        rss_kb: number("VmRSS:")?,
        descriptors: descriptors as u64,
        threads: number("Threads:")?,
        tasks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss_kb: impl Fn(u64) -> u64, descriptors: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |number| Sample {
            pid: 1,
            rss_kb: rss_kb(number),
            descriptors: descriptors(number),
            threads: 4,
            tasks: Some(20 + descriptors(number)),
        };
        (0..12).map(sample).collect()
    }

    #[test]
    fn growth_is_noticed_and_a_peak_in_between_is_not_growth() {
        let flat = samples(|it| 50_000 + 40_000 * u64::from(it == 6), |it| 40 + it % 3);
        assert_eq!(grown(1, &flat), [""; 0]);
        let leaks = samples(|it| 50_000 + 5_000 * it, |it| 40 + 2 * it);
        assert_eq!(grown(1, &leaks).len(), 3);
        let mut restarted = flat;
        restarted[5].pid = 2;
        assert_eq!(grown(1, &restarted).len(), 1);
    }
}
