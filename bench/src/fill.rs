//! Writes figures into documents, so that nobody copies them by hand.
//!
//! A document has places for tables, which are written anew:
//!
//! ```text
//! <!-- figures: latency, fan-out -->
//! <!-- /figures -->
//! ```
//!
//! Named are measurements, each with all its quantities; or `headline`, the few that a reader wants first; `goals`,
//! what is to be reached and what is; `run`, a sentence about the run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::goals;
use crate::report::{Figure, Report, number};
use crate::system::Kind;

const BEGIN: &str = "<!-- figures: ";
const END: &str = "<!-- /figures -->";

/// What a reader wants first: measurement, quantity, and how the table calls it.
const HEADLINE: [(&str, &str, &str); 11] = [
    (
        "idle",
        "memory per connection, 10000",
        "memory per idle connection, 10,000",
    ),
    (
        "idle",
        "handshakes per second and core, 10000",
        "connects per second and core, token checked",
    ),
    (
        "fan-out",
        "room of 1000, 1 at once: server CPU per delivery",
        "server CPU per delivery, room of 1,000",
    ),
    (
        "fan-out",
        "room of 1000, 8 at once: server CPU per delivery",
        "the same, eight messages at once",
    ),
    (
        "latency",
        "to one user, 200/s, p50",
        "latency to a user on the other server, p50 (Rejoin's is stored first)",
    ),
    ("latency", "to one user, 200/s, p99", "the same, p99"),
    (
        "latency",
        "to a room of 1000, 10/s, p50",
        "latency to a room of 1,000, p50",
    ),
    (
        "storm",
        "10000 clients: until all are live",
        "10,000 clients cut at once: until all are back",
    ),
    ("storm", "10000 clients: server CPU", "the same: server CPU"),
    (
        "storm",
        "10000 clients: lost of 20 messages each",
        "the same: lost of 20 messages that each missed",
    ),
    (
        "slow readers",
        "room of 1000, 50 of them slow: p99 of the others",
        "room of 1,000 with 50 slow readers: p99 of the others",
    ),
];

/// Fills the places of every document.
pub(crate) fn run(results: &Path, documents: &[PathBuf]) -> anyhow::Result<()> {
    let bytes = std::fs::read(results).with_context(|| results.display().to_string())?;
    let report: Report = serde_json::from_slice(&bytes)?;
    for document in documents {
        let name = || document.display().to_string();
        let text = std::fs::read_to_string(document).with_context(name)?;
        let filled = filled(&text, &report).with_context(name)?;
        std::fs::write(document, filled).with_context(name)?;
    }
    Ok(())
}

/// A document with its places filled.
fn filled(text: &str, report: &Report) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (what, after) = after.split_once(" -->").context("a place without ` -->`")?;
        let Some((_, after)) = after.split_once(END) else {
            bail!("no `{END}` after `{BEGIN}{what} -->`");
        };
        let content = content(what, report);
        write!(out, "{before}{BEGIN}{what} -->\n{content}{END}")?;
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn content(what: &str, report: &Report) -> String {
    match what {
        "headline" => table(report, HEADLINE.into_iter()),
        "goals" => goals::table(report),
        "run" => about(report),
        named => {
            let named: Vec<&str> = named.split(", ").collect();
            let rows = report.metrics().into_iter();
            let rows = rows.filter(|(workload, ..)| named.contains(workload));
            table(
                report,
                rows.map(|(workload, metric, _)| (workload, metric, metric)),
            )
        }
    }
}

fn about(report: &Report) -> String {
    let note = |what: &str| report.about.get(what).map_or("?", String::as_str);
    format!(
        "{} processors; load {} at the beginning and {} at the end of {} s.\n",
        note("processors"),
        note("load at the beginning"),
        note("load at the end"),
        note("seconds")
    )
}

/// A row per quantity, a column per system that has any of them, and how much better the first is than the second.
fn table<'a>(
    report: &'a Report,
    rows: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> String {
    let rows: Vec<_> = rows
        .filter(|(workload, metric, _)| {
            let known = report.metrics().into_iter();
            known
                .into_iter()
                .any(|(of, is, _)| (of, is) == (*workload, *metric))
        })
        .collect();
    let has = |kind: &Kind| {
        rows.iter()
            .any(|(workload, metric, _)| report.figure(workload, metric, kind.name()).is_some())
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(has).collect();
    let compares = kinds.len() > 1;
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let ratio_head = if compares { " ratio |" } else { "" };
    let mut out = format!("| | {} |{ratio_head}\n", names.join(" | "));
    let columns = kinds.len() + usize::from(compares);
    out.push_str(&format!("|---|{}\n", "---:|".repeat(columns)));
    for (workload, metric, label) in rows {
        let figures: Vec<Option<&Figure>> = kinds
            .iter()
            .map(|kind| report.figure(workload, metric, kind.name()))
            .collect();
        out.push_str(&format!("| {label} |"));
        for figure in &figures {
            let text = figure.map_or("–".to_owned(), |figure| {
                format!("{} {}", figure.text(), figure.unit)
            });
            out.push_str(&format!(" {text} |"));
        }
        if compares {
            out.push_str(&format!(" {} |", ratio(&figures)));
        }
        out.push('\n');
    }
    out
}

/// How many times better the first system is than the second.
fn ratio(figures: &[Option<&Figure>]) -> String {
    let [Some(ours), Some(theirs), ..] = figures else {
        return String::new();
    };
    let (ours_median, theirs_median) = (ours.median(), theirs.median());
    let (over, under) = match ours.unit.as_str() {
        // Of these, more is better.
        "/s" | "messages" => (ours_median, theirs_median),
        _ => (theirs_median, ours_median),
    };
    match ours.unit.as_str() {
        "%" => String::new(),
        _ if under > 0.0 => number(over / under),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_anew_and_the_rest_is_kept() {
        let mut report = Report::default();
        report.add("latency", "a", "ms", Kind::Rejoin.name(), 2.0);
        report.add("latency", "a", "ms", Kind::Redis.name(), 5.0);
        report.add("publish", "b", "/s", Kind::Rejoin.name(), 7.0);
        let text = "one\n<!-- figures: latency -->\nold\n<!-- /figures -->\ntwo\n\
                    <!-- figures: publish -->\n<!-- /figures -->\n";
        let expected = "one\n<!-- figures: latency -->\n| | Rejoin | Socket.IO, Redis | ratio |\n\
                        |---|---:|---:|---:|\n| a | 2.00 ms | 5.00 ms | 2.50 |\n<!-- /figures -->\ntwo\n\
                        <!-- figures: publish -->\n| | Rejoin |\n|---|---:|\n| b | 7.00 /s |\n<!-- /figures -->\n";
        let once = filled(text, &report).expect("well-formed");
        assert_eq!(once, expected);
        assert_eq!(filled(&once, &report).expect("well-formed"), expected);
    }

    #[test]
    fn a_place_without_an_end_is_told() {
        let report = Report::default();
        assert!(filled("<!-- figures: run -->\n", &report).is_err());
    }
}
