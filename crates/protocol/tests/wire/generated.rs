//! The committed code is what `frames.proto` generates.

use crate::generator::{committed_file, generate};

#[test]
fn the_committed_code_is_up_to_date() {
    let committed = std::fs::read_to_string(committed_file()).expect("the file is committed");
    assert!(
        committed == generate(),
        "frames.proto has changed: run `cargo run -p protocol --example generate`"
    );
}
