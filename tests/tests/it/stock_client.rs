//! A client that is not ours: `tests/stock_client.py`, with Python's `websockets`.

use std::path::Path;

use tokio::process::Command;

use crate::harness::{API_KEY, Stack, TokenSpec, python, run, sign};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_gets_what_it_missed() {
    // 3.11 for asyncio.timeout, and a websockets that has the asyncio client at its top level.
    let look = "import sys, websockets; from websockets.asyncio.client import connect; \
                assert sys.version_info >= (3, 11)";
    let python = match python(look, "websockets>=14,<18").await {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("NOT TESTED: Python with websockets cannot be had here: {reason}");
            return;
        }
    };
    let stack = Stack::start(1).await;
    let token = sign(&TokenSpec::new("alice", &[]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock_client.py");
    let output = run(Command::new(python).arg(script).args([
        &stack.proxy.addr().to_string(),
        API_KEY,
        &token,
        "user:alice",
        "1000",
    ]))
    .await;
    eprintln!(
        "{}",
        output.unwrap_or_else(|error| panic!("{error}")).trim()
    );
}
