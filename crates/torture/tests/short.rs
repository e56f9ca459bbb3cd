//! The short form of `make torture`: some faults on real processes, each once, and a short soak.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the workspace's build put beside the tests, or `REJOIN_BIN`.
fn rejoin() -> PathBuf {
    match std::env::var_os("REJOIN_BIN") {
        Some(program) => program.into(),
        None => Path::new(env!("CARGO_BIN_EXE_torture")).with_file_name("rejoin"),
    }
}

#[test]
fn nothing_is_lost_under_some_faults() {
    let rejoin = rejoin();
    assert!(
        rejoin.exists(),
        "build the program first (cargo build --bin rejoin), or set REJOIN_BIN: {}",
        rejoin.display()
    );
    let output = Command::new(env!("CARGO_BIN_EXE_torture"))
        .arg("--short")
        .env("REJOIN_BIN", rejoin)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    // The seed is there to run it again, and the table says what was done.
    assert!(said.contains("TORTURE_SEED="), "{said}");
    assert!(said.lines().any(|line| line.starts_with("all ")), "{said}");
    assert!(said.contains("and tasks were compared"), "{said}");
}
