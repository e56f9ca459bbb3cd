//! The fuzz targets on stable Rust: their corpora, and random changes of
//! these for a second each (`FUZZ_SECONDS` for longer). `make fuzz` runs the
//! same functions under libFuzzer, which looks where the code branches.

mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use targets::{TARGETS, Target};

#[test]
fn no_input_of_the_corpora_or_near_them_breaks_a_parser() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(1.0, |text| text.parse().unwrap());
    let seed: u64 = rand::random();
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        corpus.iter().for_each(|input| run(name, target, input));
        let mut random = StdRng::seed_from_u64(seed);
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut runs = corpus.len();
        while Instant::now() < end {
            run(name, target, &changed(&corpus, &mut random));
            runs += 1;
        }
        eprintln!("{name}: {runs} inputs, seed {seed}");
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = std::fs::read_dir(folder.join(name)).unwrap();
    let inputs: Vec<_> = files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!inputs.is_empty(), "{name} has no corpus");
    inputs
}

fn run(name: &str, target: Target, input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let shown = input.escape_ascii();
        panic!("{name} fails on b\"{shown}\": keep it in fuzz/corpus/{name}");
    }
}

/// Some bytes of one input replaced, removed, doubled, or taken from another.
fn changed(corpus: &[Vec<u8>], random: &mut impl Rng) -> Vec<u8> {
    let mut input = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..16)).min(input.len());
        match random.random_range(0..5) {
            0 => drop(input.drain(at..end)),
            1 => {
                let doubled = input[at..end].to_vec();
                drop(input.splice(at..at, doubled));
            }
            2 => input.insert(at, random.random()),
            3 if at < input.len() => input[at] = random.random(),
            _ => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}
