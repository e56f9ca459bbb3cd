//! A client that is not ours: `tests/stock_client.py`, with Python's `websockets`.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use crate::harness::{API_KEY, Stack, TokenSpec, sign};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_gets_what_it_missed() {
    let python = match python_with_websockets().await {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("NOT TESTED: Python with websockets cannot be had here: {reason}");
            return;
        }
    };
    let stack = Stack::start(1).await;
    let token = sign(&TokenSpec::new("alice", &[]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock_client.py");
    let output = Command::new(python)
        .arg(script)
        .args([
            &stack.proxy.addr().to_string(),
            API_KEY,
            &token,
            "user:alice",
            "1000",
        ])
        .kill_on_drop(true)
        .output()
        .await
        .expect("python runs");
    assert!(output.status.success(), "{}", text(&output));
    eprintln!("{}", text(&output).trim());
}

/// A Python that has `websockets`: the machine's, or one with a folder of its own next to what cargo builds.
async fn python_with_websockets() -> Result<PathBuf, String> {
    // 3.11 for asyncio.timeout, and a websockets that has the asyncio client at its top level.
    const LOOK: &str = "import sys, websockets; from websockets.asyncio.client import connect; \
                        assert sys.version_info >= (3, 11)";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let own = folder.join("bin/python3");
    for python in [PathBuf::from("python3"), own.clone()] {
        if run(Command::new(&python).args(["-c", LOOK])).await.is_ok() {
            return Ok(python);
        }
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await?;
    run(Command::new(&own).args(["-m", "pip", "install", "--quiet", "websockets>=14,<18"])).await?;
    run(Command::new(&own).args(["-c", LOOK])).await?;
    Ok(own)
}

async fn run(command: &mut Command) -> Result<(), String> {
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(text(&output)),
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}
