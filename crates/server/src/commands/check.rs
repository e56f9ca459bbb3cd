//! `rejoin check`: would this configuration run well, and if not, what to do.

use std::io::Write;
use std::process::ExitCode;

use backplane::Backplane;
use edge::auth::Authenticator;

use crate::cli::CheckArgs;
use crate::commands;
use crate::config::Config;

/// One line of the report.
struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do about it; empty when there is nothing to do.
    advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Weak,
    Bad,
}

/// Prints a line for each thing that was looked at. Exit code 1 if an edge
/// would not run.
pub async fn run(arguments: CheckArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    match commands::load(&arguments.config) {
        Ok(config) => {
            report.good("configuration", "valid");
            check_edge(&config, &mut report);
            check_backplane(&config, &mut report).await;
        }
        Err(error) => report.bad(format!("configuration: {error}"), "correct this setting"),
    }
    report.print()?;
    Ok(report.exit_code())
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn good(&mut self, what: &str, found: impl std::fmt::Display) {
        self.add(Verdict::Good, format!("{what}: {found}"), "");
    }

    fn weak(&mut self, what: impl Into<String>, advice: &str) {
        self.add(Verdict::Weak, what.into(), advice);
    }

    fn bad(&mut self, what: impl Into<String>, advice: &str) {
        self.add(Verdict::Bad, what.into(), advice);
    }

    fn add(&mut self, verdict: Verdict, what: String, advice: &str) {
        self.findings.push(Finding {
            verdict,
            what,
            advice: advice.to_owned(),
        });
    }

    fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Good => "ok  ",
                Verdict::Weak => "weak",
                Verdict::Bad => "BAD ",
            };
            writeln!(out, "{mark}  {}", finding.what)?;
            if !finding.advice.is_empty() {
                writeln!(out, "      → {}", finding.advice)?;
            }
        }
        Ok(())
    }

    fn exit_code(&self) -> ExitCode {
        let bad = |finding: &Finding| finding.verdict == Verdict::Bad;
        match self.findings.iter().any(bad) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }
}

fn check_edge(config: &Config, report: &mut Report) {
    let edge = &config.edge;
    match Authenticator::new(&edge.auth) {
        Ok(_) if edge.auth.keys.is_empty() => report.weak(
            "edge.auth.keys: none, no user can connect",
            "add the key that your application signs tokens with",
        ),
        Ok(_) => report.good("edge.auth.keys", edge.auth.keys.len()),
        Err(error) => report.bad(format!("edge.auth.{error}"), "correct this key"),
    }
    if edge.dev {
        report.weak(
            "edge.dev: on, pages from localhost are let in and the demonstration page is served",
            "turn it off outside development",
        );
    }
    if edge.origins.allowed.is_empty() {
        report.weak(
            "edge.origins.allowed: empty, no web page can connect",
            "add the origins of your web pages, if there are any",
        );
    }
}

async fn check_backplane(config: &Config, report: &mut Report) {
    match Backplane::connect(config.backplane.clone()).await {
        Ok(_) => report.good("NATS", config.backplane.urls.join(", ")),
        Err(error) => {
            let advice = match error.is_retryable() {
                true => "start NATS with JetStream there, or correct backplane.urls",
                false => "an edge refuses to start like this",
            };
            report.bad(format!("NATS: {error}"), advice);
        }
    }
}
