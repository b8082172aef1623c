//! Everything CI runs, step by step, with what each took.
//!
//! A failed step does not stop the others: one run tells all that is wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::leaks::Watch;
use crate::tidy;

/// The tests that boot real guests, as `.config/nextest.toml` knows them.
const WITHOUT_GUESTS: &str = "not test(/(^|::)guest_/)";

/// The demonstration takes a minute; a machine may be ten times as slow.
const DEMO_SECONDS_MAX: u32 = 900;

/// Where nextest's `ci` profile writes its report.
const REPORT: &str = "target/nextest/ci/junit.xml";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Everything,
    /// What a developer runs between two edits: no guests, no documents, no licences.
    Quick,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Passed,
    Failed,
    Skipped(&'static str),
}

struct Done {
    step: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs the steps; true when none failed.
pub fn run(root: &Path, extent: Extent) -> Result<bool> {
    let on_ci = std::env::var_os("CI").is_some();
    let everything = extent == Extent::Everything;
    let mut done = Vec::new();
    let mut step = |name: &'static str, act: &mut dyn FnMut() -> Result<Outcome>| {
        println!("\n==> {name}");
        let start = ambient::now();
        let outcome = act().with_context(|| name.to_owned())?;
        done.push(Done { step: name, outcome, took: ambient::now() - start });
        anyhow::Ok(outcome)
    };

    step("format", &mut || cargo(root, &["fmt", "--all", "--check"]))?;
    step("tidy", &mut || tidy::run(root, tidy::NewGolden::Refuse).map(outcome))?;
    // Twice: the product may not call the clock, its tests may.
    step("clippy", &mut || {
        cargo(root, &["clippy", "--workspace", "--keep-going", "--", "-Dwarnings"])
    })?;
    step("clippy, tests", &mut || {
        let strict = ["-Dwarnings", "-Aclippy::disallowed_methods"];
        let clippy = ["clippy", "--workspace", "--keep-going", "--all-targets", "--"];
        cargo(root, &[&clippy[..], &strict].concat())
    })?;
    if everything {
        step("licences", &mut || deny(root, on_ci))?;
        step("documents", &mut || {
            let mut command = Command::new("cargo");
            // With what is private: these documents are for who works on the code.
            command.args(["doc", "--workspace", "--no-deps", "--locked", "--keep-going"]);
            // Not the CLI: its doc comments are its help, in another language.
            command.args(["--document-private-items", "--exclude", "collective"]);
            command.env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private_intra_doc_links");
            status(root, &mut command)
        })?;
    }
    let built = step("build tests", &mut || {
        cargo(root, &["nextest", "run", "--workspace", "--locked", "--no-run"])
    })?;
    let unless_built = |act: &dyn Fn() -> Result<Outcome>| match built {
        Outcome::Passed => act(),
        _ => Ok(Outcome::Skipped("nothing to run")),
    };
    let report = root.join(REPORT);
    let _ = std::fs::remove_file(&report);
    let watch = Watch::start(root, on_ci)?;
    step("tests", &mut || {
        unless_built(&|| {
            let mut command = Command::new("cargo");
            command.args(["nextest", "run", "--workspace", "--locked", "--profile", "ci"]);
            if !everything {
                command.args(["-E", WITHOUT_GUESTS]);
            }
            watch.mark(&mut command);
            status(root, &mut command)
        })
    })?;
    if everything {
        step("examples in documents", &mut || {
            unless_built(&|| {
                let mut command = Command::new("cargo");
                command.args(["test", "--quiet", "--workspace", "--doc", "--locked"]);
                watch.mark(&mut command);
                status(root, &mut command)
            })
        })?;
    }
    if everything {
        step("bytes and counts", &mut || {
            unless_built(&|| {
                let mut command = Command::new("scripts/bench-guard");
                watch.mark(&mut command);
                status(root, &mut command)
            })
        })?;
        step("three hosts", &mut || {
            unless_built(&|| {
                let mut command = within(DEMO_SECONDS_MAX, "scripts/demo-hosts");
                command.env("COLLECTIVE", root.join("target/debug/collective"));
                watch.mark(&mut command);
                status(root, &mut command)
            })
        })?;
    }
    let mut watch = Some(watch);
    step("leaks", &mut || {
        let left = watch.take().map(Watch::finish).unwrap_or_default();
        for leak in &left {
            println!("left behind by a test: {leak}");
        }
        Ok(outcome(left.is_empty()))
    })?;

    println!("\n{}", table(&done));
    match std::fs::read_to_string(&report).ok().as_deref().and_then(counted) {
        Some((passed, failed)) => println!("{passed} passed, {failed} failed"),
        None => println!("the tests did not run"),
    }
    Ok(done.iter().all(|d| d.outcome != Outcome::Failed))
}

fn outcome(good: bool) -> Outcome {
    if good { Outcome::Passed } else { Outcome::Failed }
}

/// A script that is ended when it takes longer: asked to, so that it removes what it has made, and then not asked.
fn within(seconds: u32, script: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--verbose", "--kill-after=60", &seconds.to_string(), script]);
    command
}

fn cargo(root: &Path, args: &[&str]) -> Result<Outcome> {
    status(root, Command::new("cargo").args(args))
}

fn status(root: &Path, command: &mut Command) -> Result<Outcome> {
    let status = command.current_dir(root).status().context("cannot run cargo")?;
    Ok(outcome(status.success()))
}

/// Licences, banned crates and sources. Advisories need a git repository that the machines which
/// build this project do not reach: see deny.toml.
fn deny(root: &Path, on_ci: bool) -> Result<Outcome> {
    let found = Command::new("cargo").args(["deny", "--version"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return cargo(root, &["deny", "check", "bans", "licenses", "sources"]);
    }
    println!("cargo-deny is not installed; `scripts/install-deps --deny` installs it (minutes)");
    // CI installs it first: there, its absence is a fault.
    Ok(if on_ci { Outcome::Failed } else { Outcome::Skipped("cargo-deny is not installed") })
}

fn table(done: &[Done]) -> String {
    let total: Duration = done.iter().map(|d| d.took).sum();
    let row = |name: &str, took: Duration, outcome: &str| {
        format!("{name:<24}{:>8.1} s  {outcome}\n", took.as_secs_f64())
    };
    let mut text = String::new();
    for Done { step, outcome, took } in done {
        let outcome = match outcome {
            Outcome::Passed => "ok".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        text += &row(step, *took, &outcome);
    }
    text += &row("all", total, "");
    text
}

/// Tests passed and failed, from the root element of a JUnit report.
fn counted(report: &str) -> Option<(u64, u64)> {
    let start = report.find("<testsuites")?;
    let element = &report[start..start + report[start..].find('>')?];
    let attribute = |name: &str| -> Option<u64> {
        let value = element.split_once(&format!(" {name}=\""))?.1;
        value.split_once('"')?.0.parse().ok()
    };
    let failed = attribute("failures")? + attribute("errors")?;
    Some((attribute("tests")?.checked_sub(failed)?, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_counted() {
        let report = "<?xml?>\n<testsuites name=\"n\" tests=\"12\" failures=\"2\" errors=\"1\" \
                      uuid=\"u\"><testsuite tests=\"3\" failures=\"0\">";
        assert_eq!(counted(report), Some((9, 3)));
        assert_eq!(counted("<testsuites tests=\"1\">"), None);
        assert_eq!(counted(""), None);
    }

    #[test]
    fn the_table_tells_what_failed() {
        let second = Duration::from_secs(1);
        let text = table(&[
            Done { step: "one", outcome: Outcome::Passed, took: second },
            Done { step: "two", outcome: Outcome::Failed, took: second },
            Done { step: "three", outcome: Outcome::Skipped("absent"), took: second },
        ]);
        let rows: Vec<_> = text.lines().map(|l| l.split_whitespace().last()).collect();
        assert_eq!(rows, [Some("ok"), Some("FAILED"), Some("absent"), Some("s")]);
        assert!(text.contains("3.0 s"));
    }
}
