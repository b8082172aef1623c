//! What a person sees in a terminal, command by command, compared with what was agreed on.
//!
//! A transcript that differs fails its test. Look at the difference; when it is meant, run the test
//! once more with `INSTA_UPDATE=always` and commit the changed file in `tests/snapshots`.

use std::fs;
use std::path::Path;

use super::{Said, World, said};

/// Commands with what they printed and how they ended.
pub struct Transcript<'a> {
    world: &'a World,
    text: String,
}

/// What differs from run to run and from machine to machine, and what stands for it.
const VOLATILE: &[(&str, &str)] = &[
    // What a machine has is its own affair: that it is looked at is ours.
    (
        r"(?m)^(qemu|accelerator|fuse|space|build tools|uefi|tpm|confinement)  .*$",
        "$1  [as it is here]",
    ),
    (r"(?m)^(qemu|accelerator|fuse|space|build tools|uefi|tpm|confinement): .*\n?", ""),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "[mac]"),
    (r"\b[0-9a-f]{64}\b", "[id]"),
    (r"\b[0-9a-f]{32}\b", "[instance id]"),
    (r"\b[0-9a-f]{16}\b", "[token id]"),
    (r"\b[0-9a-f]{12}\b", "[short id]"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ?", "[time]"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:[port]"),
    (r"\bport \d{4,5}\b", "port [port]"),
    (r"-p [1-9]\d+:", "-p [port]:"),
    (r"\bin use by \S+ \(pid \d+\)", "in use by [program]"),
    (r"\b\d+(\.\d+)? (ms|s)\b", "[duration]"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "[size]"),
    (r"\b\d+ of \d+\b", "[n] of [n]"),
    (r"\b\d+ (chunks|objects|packs)\b", "[n] $1"),
    (r"\bsince \d+ min\b", "since [n] min"),
    (r"\btouched \d+ pages; \d+ lay ready, \d+ were", "touched [n] pages; [n] lay ready, [n] were"),
    (
        r"\bahead and \d+ of them in time; waited for \d+",
        "ahead and [n] of them in time; waited for [n]",
    ),
    (r"(?m)^scrub  .*$", "scrub  [how far it is]"),
    (r"(?m)^(\S+  \S+  \S+  \S+  tcg)  \d+", "$1  [pid]"),
];

impl<'a> Transcript<'a> {
    pub fn of(world: &'a World) -> Self {
        Self { world, text: String::new() }
    }

    /// Runs a command as a person would. One that fails is run again with `--json` for its kind: a
    /// failure changes nothing, so the second says the same.
    #[track_caller]
    pub fn run(&mut self, host: &str, arguments: &[&str]) -> Said {
        let said = self.run_once(host, arguments);
        if said.stderr.lines().any(|line| line.starts_with("error: ")) {
            let kind = self.kind(host, arguments, &said);
            let end = self.text.trim_end_matches("]\n\n").len();
            self.text.truncate(end);
            self.text.push_str(&format!(": {kind}]\n\n"));
        }
        said
    }

    /// The same for one that changes something although it fails.
    pub fn run_once(&mut self, host: &str, arguments: &[&str]) -> Said {
        let mut command = self.world.program(host);
        let said = said(command.args(arguments).output().unwrap());
        self.text.push_str(&format!("{host}$ collective {}\n", arguments.join(" ")));
        for stream in [&said.stdout, &said.stderr] {
            for line in stream.lines() {
                self.text.push_str(&squeezed(line));
                self.text.push('\n');
            }
        }
        if said.code != 0 {
            self.text.push_str(&format!("[exit {}]\n", said.code));
        }
        self.text.push('\n');
        said
    }

    #[track_caller]
    fn kind(&self, host: &str, arguments: &[&str], first: &Said) -> String {
        let mut command = self.world.program(host);
        let again = said(command.arg("--json").args(arguments).output().unwrap());
        assert_eq!((again.code, &again.stderr), (first.code, &first.stderr), "{arguments:?}");
        let error = &again.json()["error"];
        assert_ne!(error["hint"], "", "every error says what to do next: {again:?}");
        assert_eq!(error["message"].as_str().map(str::is_empty), Some(false), "{again:?}");
        error["kind"].as_str().expect("an error has a kind").to_owned()
    }

    /// Compares all of it with the file `name`.
    #[track_caller]
    pub fn check(self, name: &str) {
        check(self.world, name, &self.text);
    }
}

/// The columns of a table are as wide as what was in them: here all are two spaces apart. What begins
/// with a space is no line of a table.
fn squeezed(line: &str) -> String {
    if line.starts_with(' ') {
        return line.to_owned();
    }
    let columns = line.split("  ").map(str::trim).filter(|column| !column.is_empty());
    columns.collect::<Vec<_>>().join("  ")
}

/// Compares a text with the file `name`, apart from what is volatile.
#[track_caller]
pub fn check(world: &World, name: &str, text: &str) {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = literal(host.trim());
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    settings.add_filter(&literal(&world.root().to_string_lossy()), "[tmp]");
    settings.add_filter(&literal(&recipes.to_string_lossy()), "[source]");
    settings.add_filter(&format!(r"(?m)\b(host |host  |on ){host}( |$)"), "$1[host]$2");
    settings.add_filter(&format!(r"\({host}\)"), "([host])");
    for (pattern, stands_for) in VOLATILE {
        settings.add_filter(pattern, *stands_for);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A pattern that matches just this.
fn literal(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        c if c.is_alphanumeric() || c == '/' || c == '_' || c == '-' => c.to_string(),
        c => format!("\\{c}"),
    });
    escaped.collect()
}
