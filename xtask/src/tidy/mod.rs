//! Tests about the house: what a reviewer would otherwise have to remember.
//!
//! A rule is a pure function of the checkout that returns what it found. Each has a test that shows
//! it finding something, because a rule that cannot fail guards nothing.
//!
//! **Invariants:** no rule changes a file (`--bless-new` adds lines to the golden lock and touches
//! nothing else); a finding says where, what and what to do instead.

mod code;
mod edges;
mod golden;
mod markdown;
mod source;
mod tree;
mod words;

use std::path::Path;

use anyhow::Result;

use tree::Tree;

/// What a rule objects to.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// `path` or `path:line`.
    pub place: String,
    pub message: String,
}

impl Finding {
    pub fn at(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

/// The rules by name, with what each one holds.
const RULES: &[(&str, &str, Rule)] = &[
    ("edges", "crates know only whom ARCHITECTURE.md lets them know", edges::between_crates),
    ("libraries", "each outside library stays in the crates that need it", edges::to_libraries),
    ("lints", "every crate inherits the workspace's lints", edges::lints),
    ("doors", "time and chance enter through `ambient` alone", code::doors),
    ("environment", "only the outermost crates read environment variables", code::environment),
    ("unsafe", "unsafe code lies in the listed files", code::unsafe_code),
    ("marks", "no unfinished work, no ignored test", code::marks),
    ("guests", "tests that boot a guest are known by their names", code::guests),
    ("length", "a file is one noun or one verb", code::length),
    ("invariants", "every crate says what it is and what must hold", code::invariants),
    ("golden", "bytes of a published format stay forever", golden::locked),
    ("words", "no name of a registry or of a place on one machine", words::forbidden),
    ("links", "links between the documents lead somewhere", markdown::links),
    ("promises", "every promise in ARCHITECTURE.md has a test", markdown::promises),
    ("map", "every crate stands in ARCHITECTURE.md", markdown::map),
];

/// What to do with golden files that are not locked yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NewGolden {
    Refuse,
    Lock,
}

/// Runs every rule on the checkout at `root`; true when none found anything.
pub fn run(root: &Path, new_golden: NewGolden) -> Result<bool> {
    let mut tree = Tree::load(root)?;
    if new_golden == NewGolden::Lock {
        let lock = golden::with_new(&tree);
        std::fs::write(root.join(golden::LOCK), &lock)?;
        tree.files.insert(golden::LOCK.to_owned(), lock.into_bytes());
    }
    let mut clean = true;
    for (name, holds, rule) in RULES {
        let findings = rule(&tree);
        if !findings.is_empty() {
            clean = false;
            println!("tidy: {name}: {holds}");
            for Finding { place, message } in &findings {
                println!("  {place}: {message}");
            }
        }
    }
    let stubs: Vec<_> =
        tree.crates.iter().filter(|c| tree.is_stub(c)).map(|c| c.name.as_str()).collect();
    if !stubs.is_empty() {
        println!("tidy: not looked into, being written: {}", stubs.join(", "));
    }
    if clean {
        println!("tidy: {} rules hold over {} files", RULES.len(), tree.files.len());
    }
    Ok(clean)
}

/// For the tests of the rules: the places found, in order.
#[cfg(test)]
fn places(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|f| f.place.as_str()).collect()
}
