//! Seeds through the targets as ordinary tests: each as it is, and with octets changed, cut out, doubled and crossed with another.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use crate::targets::Target;

/// Changed copies of each seed.
const COPIES: u32 = 400;

/// Each target over the files of `seeds/NAME` in this folder, each of which is a target's.
pub(crate) fn all(fuzz: &Path, targets: &[Target]) {
    let folders = fs::read_dir(fuzz.join("seeds")).expect("there are seeds");
    for folder in folders {
        let name = folder.expect("the folder can be read").file_name();
        assert!(targets.iter().any(|(target, _)| *target == name), "seeds of no target: {name:?}");
    }
    for (name, target) in targets {
        let program = fuzz.join("fuzz_targets").join(name).with_extension("rs");
        assert!(program.is_file(), "`make fuzz` does not know {name}: there is no {}", program.display());
        let folder = fs::read_dir(fuzz.join("seeds").join(name)).expect("each target has seeds");
        let mut seeds: Vec<Vec<u8>> = folder
            .map(|file| fs::read(file.expect("the folder can be read").path()).expect("a file"))
            .collect();
        // In whatever order the system names them: what is drawn by lot depends upon it.
        seeds.sort();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut lot = Lot(1);
        for (place, seed) in seeds.iter().enumerate() {
            bears(name, *target, seed);
            for _ in 0..COPIES {
                bears(name, *target, &lot.change(seed, &seeds[(place + 1) % seeds.len()]));
            }
        }
    }
}

/// A panic is told with the input: written to a file of this name it is the next seed.
fn bears(name: &str, target: fn(&[u8]), input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "{name} does not bear \"{}\"", input.escape_ascii());
}

/// Numbers that are the same each time (xorshift).
struct Lot(u64);

impl Lot {
    fn draw(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below.max(1)
    }

    /// The seed with one to four changes.
    fn change(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        const ODD: [u8; 16] = *b"\",;=:*-\t \n\\%09\x80\xff";
        let mut input = seed.to_vec();
        for _ in 0..=self.draw(4) {
            let at = self.draw(input.len());
            let end = (at + 1 + self.draw(8)).min(input.len());
            match self.draw(6) {
                0 if !input.is_empty() => input[at] = ODD[self.draw(ODD.len())],
                1 if !input.is_empty() => input[at] ^= 1 << self.draw(8),
                2 => input.insert(at, ODD[self.draw(ODD.len())]),
                3 if !input.is_empty() => drop(input.drain(at..end)),
                4 if !input.is_empty() => {
                    let piece = input[at..end].to_vec();
                    input.splice(at..at, piece);
                }
                _ => {
                    let from = self.draw(other.len());
                    input.truncate(at);
                    input.extend(&other[from..]);
                }
            }
        }
        input
    }
}
