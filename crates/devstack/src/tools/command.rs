//! Runs helper programs with a deadline.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{POLL, pause_thread};

/// Runs a program and returns what it printed on both outputs; an error is a text that names the program and the end
/// of its output. Kills it at the deadline.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // A file, not a pipe: nobody has to read while the program runs, and grandchildren that keep the output open
    // do not keep us waiting.
    let mut attempt = || -> std::io::Result<(Option<std::process::ExitStatus>, String)> {
        let mut output = tempfile::tempfile()?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()?;
        let end = Instant::now() + deadline;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= end {
                child.kill()?;
                child.wait()?;
                break None;
            }
            pause_thread(POLL);
        };
        output.rewind()?;
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes)?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let (status, text) = attempt().map_err(|error| format!("{name}: {error}"))?;
    match status {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(format!("{name} ended with {status}: {}", last_lines(&text))),
        None => Err(format!(
            "{name} did not end within {} s: {}",
            deadline.as_secs(),
            last_lines(&text)
        )),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_status_and_deadline_are_told() {
        let second = Duration::from_secs(1);
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(
            run(&mut sh("echo out; echo err >&2"), second).unwrap(),
            "out\nerr\n"
        );
        let failed = run(&mut sh("echo reason >&2; exit 3"), second).unwrap_err();
        assert!(
            failed.contains("reason") && failed.contains('3'),
            "{failed}"
        );
        let late = run(&mut sh("exec sleep 30"), Duration::from_millis(50)).unwrap_err();
        assert!(late.contains("did not end"), "{late}");
        assert!(run(&mut Command::new("/no/such/program"), second).is_err());
    }
}
