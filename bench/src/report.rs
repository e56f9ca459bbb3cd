//! Figures as they are measured, and what is said about them.

use std::collections::BTreeMap;
use std::io::Write;

use serde::{Deserialize, Serialize};

/// One measured quantity of one system, with a value for each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Which measurement.
    pub(crate) workload: String,
    /// What was measured; the same words for all systems.
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) system: String,
    /// One per round, in order.
    pub(crate) samples: Vec<f64>,
}

impl Figure {
    /// The middle one, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The median, with the lowest and the highest round behind it where there were several.
    pub(crate) fn text(&self) -> String {
        let median = number(self.median());
        match self.samples.len() {
            1 => median,
            _ => format!(
                "{median} ({}–{})",
                number(self.lowest()),
                number(self.highest())
            ),
        }
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn highest(&self) -> f64 {
        self.samples
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Everything that a run has shown.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// About the machine and the run.
    pub(crate) about: BTreeMap<String, String>,
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    /// Notes something about the machine or the run.
    pub(crate) fn note(&mut self, what: &str, value: impl ToString) {
        self.about.insert(what.to_owned(), value.to_string());
    }

    /// Adds a round's value.
    pub(crate) fn add(
        &mut self,
        workload: &str,
        metric: impl Into<String>,
        unit: &str,
        system: &str,
        value: f64,
    ) {
        let metric = metric.into();
        eprintln!("    {metric}: {} {unit}", number(value));
        let known = self.figures.iter_mut().find(|figure| {
            figure.workload == workload && figure.metric == metric && figure.system == system
        });
        match known {
            Some(figure) => figure.samples.push(value),
            None => self.figures.push(Figure {
                workload: workload.to_owned(),
                metric,
                unit: unit.to_owned(),
                system: system.to_owned(),
                samples: vec![value],
            }),
        }
    }

    /// The systems, in the order in which they came.
    pub(crate) fn systems(&self) -> Vec<&str> {
        let mut systems = Vec::new();
        for figure in &self.figures {
            if !systems.contains(&figure.system.as_str()) {
                systems.push(figure.system.as_str());
            }
        }
        systems
    }

    /// The quantities, in the order in which they came.
    pub(crate) fn metrics(&self) -> Vec<(&str, &str, &str)> {
        let mut metrics = Vec::new();
        for figure in &self.figures {
            let metric = (
                figure.workload.as_str(),
                figure.metric.as_str(),
                figure.unit.as_str(),
            );
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        metrics
    }

    /// One quantity of one system.
    pub(crate) fn figure(&self, workload: &str, metric: &str, system: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.workload == workload && figure.metric == metric && figure.system == system
        })
    }

    /// A Markdown table: a row per quantity, a column per system, medians with the lowest and highest round behind.
    pub(crate) fn write_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let systems = self.systems();
        writeln!(out, "| | unit | {} |", systems.join(" | "))?;
        writeln!(out, "|---|---|{}", "---:|".repeat(systems.len()))?;
        for (workload, metric, unit) in self.metrics() {
            write!(out, "| {workload}: {metric} | {unit} |")?;
            for system in &systems {
                let figure = self.figure(workload, metric, system);
                write!(out, " {} |", figure.map_or("–".to_owned(), Figure::text))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_what_they_lie_between() {
        let mut report = Report::default();
        for value in [3.0, 1.0, 200.0] {
            report.add("w", "m", "ms", "A", value);
        }
        report.add("w", "m", "ms", "B", 5.0);
        report.add("w", "n", "s", "B", 0.0);
        let mut table = Vec::new();
        report.write_table(&mut table).expect("memory");
        let table = String::from_utf8(table).expect("text");
        let expected = "| | unit | A | B |\n|---|---|---:|---:|\n\
                        | w: m | ms | 3.00 (1.00–200) | 5.00 |\n| w: n | s | – | 0 |\n";
        assert_eq!(table, expected);
    }
}
