//! The figures of many runs, one line for each fault.

use std::fmt::Write as _;
use std::time::Duration;

use crate::checker::{Anomaly, Verdict};

/// All runs of one fault.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The fault.
    pub fault: String,
    /// How often it was tried.
    pub runs: u64,
    /// What the checker found in all of them.
    pub verdict: Verdict,
    /// From the end of the fault until a client got the first message that was published after it; one for each client.
    pub recoveries: Vec<Duration>,
    /// The longest time without an acknowledgement, one for each run.
    pub silences: Vec<Duration>,
    /// What is known to be lost under this fault: it is shown, and does not count as found.
    pub known: bool,
    /// Runs that could not be brought to their end, with why.
    pub failures: Vec<String>,
}

/// Collects rows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a run, to the row of its fault if there is one.
    pub fn add(&mut self, run: Row) {
        match self.rows.iter_mut().find(|row| row.fault == run.fault) {
            Some(row) => {
                row.runs += run.runs;
                row.verdict.add(&run.verdict);
                row.recoveries.extend(run.recoveries);
                row.silences.extend(run.silences);
                row.failures.extend(run.failures);
            }
            None => self.rows.push(run),
        }
    }

    /// The rows, in the order in which they came.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether nothing was found and everything could be run.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let clean =
            |row: &Row| row.known || (row.verdict.anomalies() == 0 && row.failures.is_empty());
        !self.rows.is_empty() && self.rows.iter().all(clean)
    }

    /// The table as text: one line for each fault, then the sum of those under which nothing may be lost.
    #[must_use]
    pub fn render(&self) -> String {
        let mut lines = vec![header()];
        let mut sum = Row {
            fault: "all".to_owned(),
            ..Row::default()
        };
        for row in &self.rows {
            lines.push(cells(row));
            if row.known {
                continue;
            }
            sum.runs += row.runs;
            sum.verdict.add(&row.verdict);
            sum.recoveries.extend(&row.recoveries);
            sum.silences.extend(&row.silences);
        }
        lines.push(cells(&sum));
        align(&lines)
    }
}

/// The share of values at or below the answer, of values in any order.
#[must_use]
pub fn quantile(values: &[Duration], share: f64) -> Option<Duration> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * share).round() as usize).copied()
}

fn header() -> Vec<String> {
    let mut cells: Vec<String> = ["fault", "runs", "publishes", "deliveries"]
        .map(str::to_owned)
        .to_vec();
    cells.extend(Anomaly::ALL.map(|it| it.name().to_owned()));
    cells.extend(["no acks", "recovery p50", "p99", "max"].map(str::to_owned));
    cells
}

fn cells(row: &Row) -> Vec<String> {
    let verdict = &row.verdict;
    let mut cells = vec![
        row.fault.clone(),
        row.runs.to_string(),
        verdict.published.to_string(),
        verdict.deliveries.to_string(),
    ];
    cells.extend(Anomaly::ALL.map(|it| verdict.count(it).to_string()));
    cells.push(seconds(row.silences.iter().max().copied()));
    for share in [0.5, 0.99, 1.0] {
        cells.push(seconds(quantile(&row.recoveries, share)));
    }
    cells
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |it| format!("{:.2} s", it.as_secs_f64()))
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: Vec<usize> = (0..columns).map(|it| width(it).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _ok = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}
