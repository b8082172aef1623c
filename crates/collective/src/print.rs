//! How results and failures reach a terminal or a program.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use api::{ErrorBody, ErrorPrint};
use clap::error::ErrorKind;
use comfy_table::{Table, presets};
use host::Failure;
use serde::Serialize;

use crate::cli::Global;

/// Prints a verb's result: the document with `--json`, else the text.
pub fn result<T: Serialize>(global: &Global, document: &T, text: impl FnOnce() -> String) {
    if global.json {
        let line = serde_json::to_string(document).expect("our own documents encode");
        out(&line);
        if !global.quiet {
            note(global, &text());
        }
    } else {
        let text = text();
        if !text.is_empty() {
            out(&text);
        }
    }
}

/// Prints a line for people: on standard error, unless `--quiet`.
pub fn note(global: &Global, text: &str) {
    if !global.quiet && !text.is_empty() {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn out(text: &str) {
    // A reader that went away (`| head`) is no error of ours.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What a long way says on its parts: at most once a second.
pub fn progress(global: &Global) -> impl FnMut(&str) + use<'_> {
    let mut last = 0;
    move |text| {
        let now = ambient::unix_ms() / 1000;
        if now > last {
            note(global, text);
            last = now;
        }
    }
}

/// Prints a failure and gives the exit code: 2 for usage, 124 for a timeout, else 1.
pub fn failure(failure: &Failure, json: bool) -> ExitCode {
    if json {
        let document = ErrorPrint { error: failure.body() };
        out(&serde_json::to_string(&document).expect("our own documents encode"));
    }
    let mut text = format!("{}: {}", paint("error", "31;1"), failure.message);
    if !failure.hint.is_empty() {
        text.push_str(&format!("\n{}: {}", paint("hint", "36"), failure.hint));
    }
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(match failure.kind {
        "usage" => 2,
        _ => 1,
    })
}

/// What clap has to say: help and version go to standard output; a wrong word is a usage error.
pub fn usage(error: clap::Error, arguments: &[OsString]) -> ExitCode {
    let wanted = !error.use_stderr();
    if !wanted && arguments.iter().any(|word| word == "--json") {
        let document = ErrorPrint { error: usage_body(&error) };
        out(&serde_json::to_string(&document).expect("our own documents encode"));
    }
    let _ = error.print();
    if wanted { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Clap's text as a message and a next step: its first paragraph says what is wrong, later lines how
/// it is meant.
fn usage_body(error: &clap::Error) -> ErrorBody {
    let text = error.to_string();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "there is no verb".to_owned(),
        _ => {
            let words = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            words.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
        }
    };
    let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start));
    let hint = match (line("tip: "), line("Usage: ")) {
        (Some(tip), _) => format!("{tip}; `--help` says more"),
        (None, Some(usage)) => format!("write `{usage}`; `--help` says more"),
        (None, None) => "`collective VERB --help` says what it understands".to_owned(),
    };
    ErrorBody { kind: "usage".to_owned(), message, hint }
}

/// A table without borders, as `ps` and `history` print it.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Milliseconds for people: `840 ms`, `3.2 s`.
pub fn duration(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

fn paint(text: &str, code: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if plain || !std::io::stderr().is_terminal() {
        text.to_owned()
    } else {
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
