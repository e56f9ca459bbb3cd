//! The lines of `rejoin check`, and its exit code.

use std::io::Write;
use std::process::ExitCode;

/// What was found, in the order in which it was looked at.
#[derive(Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do about it; empty when there is nothing to do.
    advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// An edge runs; a promise or a feature is missing.
    Weak,
    /// An edge does not run, or does damage.
    Bad,
}

impl Report {
    pub(super) fn good(&mut self, what: &str, found: impl std::fmt::Display) {
        self.add(Verdict::Good, format!("{what}: {found}"), "");
    }

    pub(super) fn weak(&mut self, what: impl Into<String>, advice: &str) {
        self.add(Verdict::Weak, what.into(), advice);
    }

    pub(super) fn bad(&mut self, what: impl Into<String>, advice: &str) {
        self.add(Verdict::Bad, what.into(), advice);
    }

    fn add(&mut self, verdict: Verdict, what: String, advice: &str) {
        self.findings.push(Finding {
            verdict,
            what,
            advice: advice.to_owned(),
        });
    }

    /// To stdout.
    pub(super) fn print(&self) -> std::io::Result<()> {
        std::io::stdout().lock().write_all(self.text().as_bytes())
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Good => "ok  ",
                Verdict::Weak => "weak",
                Verdict::Bad => "BAD ",
            };
            out.push_str(&format!("{mark}  {}\n", finding.what));
            if !finding.advice.is_empty() {
                out.push_str(&format!("      → {}\n", finding.advice));
            }
        }
        out
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        let bad = |finding: &Finding| finding.verdict == Verdict::Bad;
        match self.findings.iter().any(bad) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }
}
