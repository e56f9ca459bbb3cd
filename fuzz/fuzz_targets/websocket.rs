#![no_main]

#[path = "../../crates/edge/tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::websocket(bytes));
