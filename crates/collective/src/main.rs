//! `collective`: virtual appliances on this computer, from one repository.
//!
//! This crate parses what a person typed, calls `host`, and prints what came of it: for people, or
//! with `--json` one document on standard output.
//!
//! *Invariants.* No verb decides anything here; nothing but this crate prints or exits.

mod cli;
mod followed;
mod notify;
mod print;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

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
        Some("__shim") => {
            let _followed = followed::shim();
            return host::shim::main(&arguments[2..]);
        }
        Some("__mount") => return host::mount_main(&arguments[2..]),
        Some("__updates") => return host::updates_main(&arguments[2..]),
        Some("__jail") => vmm::jail_main(arguments.into_iter().skip(2)),
        _ => {}
    }
    let words = cli::Cli::command().try_get_matches_from(&arguments);
    let cli = words.and_then(|words| Ok((cli::Cli::from_arg_matches(&words)?, words)));
    match cli {
        Ok((cli, words)) => {
            let followed = followed::verb(&cli.global, &cli.verb, &words);
            execute(cli, followed.span)
        }
        Err(error) => print::usage(error, &arguments),
    }
}

fn execute(cli: cli::Cli, mut span: Option<spans::Span>) -> ExitCode {
    let json = cli.global.json;
    let on = span.as_ref().map(spans::Span::enter);
    let done = verbs::execute(cli);
    drop(on);
    done.unwrap_or_else(|failure| {
        if let Some(span) = &mut span {
            span.failed(failure.kind);
        }
        print::failure(&failure, json)
    })
}

/// For tests of crashes: ends this process, as the power would, when it reaches the step that
/// `COLLECTIVE_DIE_AT` names (`seal: frozen`, or `local: instance.json#2` for the second time). `@FILE`: the
/// step that this file says now, if it is there; who dies removes it. Not in a release.
#[cfg(debug_assertions)]
fn die_when_told() {
    let Ok(mut step) = std::env::var("COLLECTIVE_DIE_AT") else { return };
    let file = step.strip_prefix('@').map(std::path::PathBuf::from);
    if let Some(file) = &file {
        let Ok(said) = std::fs::read_to_string(file) else { return };
        step = said;
    }
    let (name, occurrence) = step.rsplit_once('#').unwrap_or((&step, "1"));
    ambient::simulated::die_at(name, occurrence.parse().unwrap_or(1), file);
}
