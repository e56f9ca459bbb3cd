//! What operators see and use: metrics, dashboard, alerts, recipes, the files that deploy it.

mod check;
mod deploy;
mod metrics;
mod recipes;
pub(crate) mod traces;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use devstack::{Progress, Tools};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A file of the checkout.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The text of a file of the checkout.
fn text(path: &str) -> String {
    let path = file(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program that only a test needs, or nothing, said aloud.
async fn debian_program(
    program: &'static str,
    package: &'static str,
    path: &'static str,
) -> Option<PathBuf> {
    let progress: Progress = std::sync::Arc::new(|line| eprintln!("{line}"));
    let look = move || Tools::debian_program(program, package, path, &progress);
    match tokio::task::spawn_blocking(look).await.expect("no panic") {
        Ok(path) => Some(path),
        Err(error) => {
            eprintln!("NOT TESTED: {error}");
            None
        }
    }
}

/// Runs a program to its end. Returns what it wrote; fails the test if it fails.
async fn output(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end without reading; then its status tells more.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    let both = String::from_utf8_lossy(&both).into_owned();
    assert!(output.status.success(), "{command:?}: {both}");
    both
}
