//! Rewrites `src/generated/rejoin.v1.rs` from `proto/rejoin/v1/frames.proto`:
//! `cargo run -p protocol --example generate`.

#[path = "../tests/wire/generator.rs"]
mod generator;

fn main() -> std::io::Result<()> {
    std::fs::write(generator::committed_file(), generator::generate())
}
