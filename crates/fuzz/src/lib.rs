//! Every parser of bytes that others made, as a function that must survive any bytes.
//!
//! A [`Target`] is a parser with examples of what it reads. The same targets run in two ways:
//! * in CI, as ordinary tests: examples, inputs that once did harm (`regressions/`), and a fixed
//!   number of mutations from a fixed seed ([`mutations`]). The same every time, and blind: nothing
//!   tells it which mutation reached new code.
//! * by `cargo xtask fuzz`, guided by coverage (libFuzzer): see the folder `fuzz`.
//!
//! What a target asserts: no panic (overflow checks are on in both ways); where a format has one
//! form for each meaning, what is read is written as it was; what a bound says.
//!
//! **Invariant:** no part of the product; what a target does is decided by its bytes alone.

mod mutations;
mod scratch;
mod targets;

pub use mutations::Mutations;
pub use targets::TARGETS;

use std::path::{Path, PathBuf};

/// A parser and examples for it.
pub struct Target {
    /// Its name in the table of docs/RELIABILITY.md, and for `cargo xtask fuzz`.
    pub name: &'static str,
    /// Reads bytes. Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// What it is made for.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations in CI: fewer where one takes longer.
    pub runs: u32,
}

/// The target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Inputs that once did harm.
    pub fn regressions(&self) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(self.name);
        files_in(&folder).into_iter().filter_map(|path| std::fs::read(path).ok()).collect()
    }
}

/// The files of a folder, sorted; none when it is not there.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A golden file of another crate.
fn golden(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
