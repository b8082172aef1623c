//! The house's own tool: `cargo xtask ci` runs everything CI runs, `cargo xtask tidy` tests what
//! can be tested about the house itself.
//!
//! **Invariant:** nothing here is part of the product; no crate depends on it.

mod ci;
mod fuzz;
mod leaks;
mod plots;
mod soak;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask ci [--quick]         everything CI runs; --quick leaves out guests, docs, licences
       cargo xtask tidy [--bless-new]   the rules of the house; --bless-new locks new golden files
       cargo xtask plots                docs/plots, from what bench/results has
       cargo xtask fuzz [--seconds N] [TARGET...]   every parser under a guided fuzzer, N seconds each (60)
       cargo xtask simulate [...]       hosts, a repository and faults, by the seed: docs/RELIABILITY.md
       cargo xtask soak [--hours N] [--seed S]      random verbs on real guests, N virtual hours (24)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let done = match args[..] {
        ["ci"] => ci::run(root, ci::Extent::Everything),
        ["ci", "--quick"] => ci::run(root, ci::Extent::Quick),
        ["simulate", ..] => simulate(root, &args[1..]),
        ["plots"] => plots::run(root),
        ["tidy"] => tidy::run(root, tidy::NewGolden::Refuse),
        ["tidy", "--bless-new"] => tidy::run(root, tidy::NewGolden::Lock),
        ["fuzz", "--seconds", seconds, ref targets @ ..] => match seconds.parse() {
            Ok(seconds) => fuzz::run(root, seconds, targets),
            Err(_) => return usage(),
        },
        ["fuzz", ref targets @ ..] if targets.iter().all(|name| !name.starts_with('-')) => {
            fuzz::run(root, 60, targets)
        }
        ["soak", ref options @ ..] => match soak::options(options) {
            Some((hours, seed)) => soak::run(root, hours, seed),
            None => return usage(),
        },
        _ => return usage(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// The simulation is a program of its own: nothing of the product is linked into this one.
fn simulate(root: &Path, args: &[&str]) -> anyhow::Result<bool> {
    let mut command = std::process::Command::new("cargo");
    command.args(["run", "--quiet", "--locked", "--package", "simulation", "--"]).args(args);
    Ok(command.current_dir(root).status()?.success())
}
