//! `cargo xtask fuzz`: the targets of `crates/fuzz` under libFuzzer, guided by coverage.
//!
//! Stable Rust is enough: the compiler's own coverage pass is asked for by flags, and there is no
//! address sanitizer (this code has no `unsafe` to look into; overflow checks and debug assertions
//! are on). Only what is built for `--target` gets the flags, so build scripts do without.
//!
//! What it learns stays in `target/fuzz/corpus`, and what does harm in `target/fuzz/found`: its
//! place is `crates/fuzz/regressions/TARGET/`, where CI runs it ever after.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg=fuzzing";
/// An input that takes longer has found something too.
const INPUT_SECONDS_MAX: u32 = 20;
const MEMORY_MIB_MAX: u32 = 2048;

/// Runs the targets (all, when none is named), each for so many seconds; true when none found
/// anything.
pub fn run(root: &Path, seconds: u64, wanted: &[&str]) -> Result<bool> {
    let folder = root.join("target/fuzz");
    println!("building the targets (some minutes the first time)");
    // The product's own versions of everything; cargo adds libFuzzer to them.
    std::fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock"))?;
    let built = Command::new("cargo")
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", TRIPLE, "--target-dir"])
        .arg(folder.join("build"))
        .env("RUSTFLAGS", FLAGS)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    if !built.success() {
        bail!(
            "the targets cannot be built; they need a C++ compiler: `scripts/install-deps --fuzz`"
        );
    }
    let program = folder.join("build").join(TRIPLE).join("release/fuzz-guided");
    let known = Command::new(&program).env("COLLECTIVE_FUZZ", "list").output()?.stdout;
    let known = String::from_utf8(known)?;
    if let Some(unknown) = wanted.iter().find(|name| !known.lines().any(|known| known == **name)) {
        bail!("there is no target {unknown}; there are: {}", known.replace('\n', " "));
    }
    let seeds = folder.join("seeds");
    let mut make_seeds = Command::new(&program);
    make_seeds.env("COLLECTIVE_FUZZ", "seeds").env("COLLECTIVE_FUZZ_SEEDS", &seeds);
    if !make_seeds.status()?.success() {
        bail!("the examples cannot be written to {}", seeds.display());
    }
    let found = folder.join("found");
    std::fs::create_dir_all(&found)?;
    let mut clean = true;
    println!("{:<14} {:>12} {:>9} {:>8}  found", "target", "executions", "features", "corpus");
    for name in known.lines().filter(|name| wanted.is_empty() || wanted.contains(name)) {
        let corpus = folder.join("corpus").join(name);
        std::fs::create_dir_all(&corpus)?;
        let output = Command::new(&program)
            .args([&corpus, &seeds.join(name)])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-artifact_prefix={}/{name}-", found.display()))
            .args(["-print_final_stats=1", "-max_len=65536"])
            .env("COLLECTIVE_FUZZ", name)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let Counted { executions, features, corpus } = counted(&said);
        let verdict = if output.status.success() { "nothing" } else { "SOMETHING" };
        println!("{name:<14} {executions:>12} {features:>9} {corpus:>8}  {verdict}");
        if !output.status.success() {
            clean = false;
            let lines: Vec<&str> = said.lines().collect();
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| println!("  {line}"));
        }
    }
    Ok(clean)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    executions: u64,
    features: u64,
    corpus: u64,
}

/// What libFuzzer said at its end.
fn counted(said: &str) -> Counted {
    let mut counted = Counted::default();
    for line in said.lines() {
        let mut words = line.split_whitespace();
        if line.starts_with("stat::number_of_executed_units:") {
            counted.executions = words.nth(1).and_then(|w| w.parse().ok()).unwrap_or(0);
        } else if line.starts_with('#') {
            while let Some(word) = words.next() {
                let number = |word: Option<&str>| {
                    word.and_then(|w| w.split('/').next()?.parse().ok()).unwrap_or(0)
                };
                match word {
                    "ft:" => counted.features = number(words.next()),
                    "corp:" => counted.corpus = number(words.next()),
                    _ => {}
                }
            }
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_counted() {
        let said = "INFO: Seed: 1\n#2 INITED cov: 9 ft: 10 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                    #131072 DONE   cov: 40 ft: 77 corp: 12/345b lim: 11 exec/s: 65536 rss: 40Mb\n\
                    stat::number_of_executed_units: 131072\n";
        assert_eq!(counted(said), Counted { executions: 131_072, features: 77, corpus: 12 });
    }
}
