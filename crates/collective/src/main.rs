//! `collective`: virtual appliances on this computer, from one repository.
//!
//! This crate parses what a person typed, calls `host`, and prints what came of it: for people, or
//! with `--json` one document on standard output.
//!
//! *Invariants.* No verb decides anything here; nothing but this crate prints or exits.

mod cli;
mod notify;
mod print;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let entry = arguments.get(1).and_then(|word| word.to_str());
    // What outlives a command keeps nothing open that whoever ran it had open: a lock, a pipe.
    if matches!(entry, Some("__shim" | "__mount" | "__updates"))
        && let Err(error) = vmm::close_inherited()
    {
        eprintln!("cannot close what was inherited: {error}");
        return ExitCode::FAILURE;
    }
    #[cfg(debug_assertions)]
    die_when_told();
    // The hidden entries: what this program runs itself as.
    match entry {
        Some("__shim") => return host::shim::main(&arguments[2..]),
        Some("__mount") => return host::mount_main(&arguments[2..]),
        Some("__updates") => return host::updates_main(&arguments[2..]),
        Some("__jail") => vmm::jail_main(arguments.into_iter().skip(2)),
        _ => {}
    }
    match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            start_logging(cli.global.verbose);
            let json = cli.global.json;
            verbs::execute(cli).unwrap_or_else(|failure| print::failure(&failure, json))
        }
        Err(error) => print::usage(error, &arguments),
    }
}

/// For tests of crashes: ends this process, as the power would, when it reaches the step that
/// `COLLECTIVE_DIE_AT` names (`seal: frozen`, or `local: instance.json#2` for the second time). Not
/// in a release.
#[cfg(debug_assertions)]
fn die_when_told() {
    let Ok(step) = std::env::var("COLLECTIVE_DIE_AT") else { return };
    let (name, occurrence) = step.rsplit_once('#').unwrap_or((&step, "1"));
    ambient::simulated::die_at(name, occurrence.parse().unwrap_or(1));
}

/// Diagnostics go to standard error, and only when asked for.
fn start_logging(verbose: u8) {
    let default = ["error", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let filter = tracing_subscriber::EnvFilter::try_from_env("COLLECTIVE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
