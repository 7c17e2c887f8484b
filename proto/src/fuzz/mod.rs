//! Targets for the fuzzers, and a small mutator that needs no fuzzer: every parser of bytes from outside, with seeds and
//! with what has to be true whatever it is fed. `fuzz/` runs the targets under libFuzzer, tests run [`replay`].
//! Here are the targets of this crate; those of others are beside what they feed.

mod mutate;
mod targets;

pub use mutate::{Random, mutate};
pub use targets::TARGETS;

/// One parser of bytes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target and of its corpus.
    pub name: &'static str,
    /// Bytes to begin with: good ones, so that mutations get behind the first check, and known attacks.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Feeds it and panics when something is not as it has to be.
    pub run: fn(&[u8]),
}

/// Longest input that [`replay`] makes, bytes; the fuzzer's own limit is the same.
pub const MAX_LEN: usize = 4096;

/// Runs every seed as it is, then `rounds` mutated ones. The same `seed` gives the same inputs.
///
/// # Panics
/// When the target does; the input that did it is printed first.
pub fn replay(target: &Target, rounds: usize, seed: u64) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    for seed in &seeds {
        run_shown(target, seed);
    }
    let mut random = Random::new(seed);
    for _ in 0..rounds {
        let mut input = pick(&seeds, &mut random).to_vec();
        for _ in 0..=random.below(4) {
            mutate(&mut input, pick(&seeds, &mut random), &mut random);
        }
        input.truncate(MAX_LEN);
        run_shown(target, &input);
    }
}

fn pick<'a>(seeds: &'a [Vec<u8>], random: &mut Random) -> &'a [u8] {
    seeds
        .get(random.below(seeds.len()))
        .map_or(&[], Vec::as_slice)
}

fn run_shown(target: &Target, input: &[u8]) {
    /// Prints the input when it is dropped by a panic.
    struct Shown<'a>(&'a str, &'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("target {}: b\"{}\"", self.0, self.1.escape_ascii());
            }
        }
    }
    let _shown = Shown(target.name, input);
    (target.run)(input);
}

/// True for texts that may go to a log or an answer as they are.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
