//! A Python with the packages that a test's script needs.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

/// A Python for which `look` succeeds: the machine's, or one with a folder of its own next to what cargo builds, into
/// which `package` is installed. An error says why there is none.
pub(crate) async fn python(look: &str, package: &str) -> Result<PathBuf, String> {
    let name = package.split(['=', '<', '>']).next().unwrap_or(package);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{name}"));
    let own = folder.join("bin/python3");
    for python in [PathBuf::from("python3"), own.clone()] {
        if run(Command::new(&python).args(["-c", look])).await.is_ok() {
            return Ok(python);
        }
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await?;
    run(Command::new(&own).args(["-m", "pip", "install", "--quiet", package])).await?;
    run(Command::new(&own).args(["-c", look])).await?;
    Ok(own)
}

/// Runs a program to its end; what it wrote is the error if it fails.
pub(crate) async fn run(command: &mut Command) -> Result<String, String> {
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(text(&output)),
        false => Err(text(&output)),
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}
