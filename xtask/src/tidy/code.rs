//! Rules about Rust source.

use super::Finding;
use super::source;
use super::tree::Tree;

/// Calls that bring in time or chance, and what stands for them.
const DOORS: &[(&str, &str)] = &[
    ("SystemTime::now", "use ambient::unix_ms()"),
    ("Instant::now", "use ambient::now()"),
    ("getrandom", "use ambient::random()"),
    ("OsRng", "use ambient::random()"),
    ("thread_rng", "use ambient::random()"),
    ("rand::", "use ambient::random()"),
    ("Utc::now", "use ambient::unix_ms()"),
    ("Local::now", "use ambient::unix_ms()"),
];

/// Crates that may read environment variables, and what for. Everyone else is given values: what
/// decides how a host behaves, and every secret, has one place where it comes in.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("collective", "COLLECTIVE_DIR and the terminal"),
    ("host", "the state directory"),
    ("objects", "credentials of stores"),
    ("build", "proxies, handed on to apt"),
    ("vmm", "PATH, to find QEMU"),
    ("xtask", "CI"),
];

/// Files that hold unsafe code, each with the reason. Keep them small.
const UNSAFE: &[(&str, &str)] = &[
    (
        "crates/export/src/fdtable.rs",
        "a thread leaves the shared table of files: no safe call does it",
    ),
    ("crates/vmm/src/bin/vmm-jail.rs", "a test's prisoner tries what has no safe call"),
    ("crates/vmm/src/jail/inherited.rs", "closes descriptors that nobody owns"),
    ("crates/export/tests/support/mod.rs", "a test maps a file as QEMU does"),
];

/// A file that grows beyond this has become two.
const LINES_MAX: usize = 700;

/// Files that may be longer, each with the reason.
const LONG: &[(&str, &str)] = &[];

/// The reason that lets a function be ignored: it is no test, but what a test starts and kills.
const HELPER: &str = "#[ignore = \"a child process of other tests\"]";

pub fn doors(tree: &Tree) -> Vec<Finding> {
    found_in_product(tree, |krate, code| {
        let doors = if krate == "ambient" { &[][..] } else { DOORS };
        all_lines(code, doors.iter().map(|(call, instead)| (*call, (*instead).to_owned())))
    })
}

pub fn environment(tree: &Tree) -> Vec<Finding> {
    found_in_product(tree, |krate, code| {
        if ENVIRONMENT.iter().any(|(name, _)| *name == krate) {
            return Vec::new();
        }
        let readers: Vec<_> = ENVIRONMENT.iter().map(|(name, _)| *name).collect();
        let instead = format!("take it as an argument; only {} read it", readers.join(", "));
        let calls = ["env::var", "env::vars", "env::var_os", "env::vars_os"];
        all_lines(code, calls.into_iter().map(|call| (call, instead.clone())))
    })
}

pub fn unsafe_code(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension(".rs") {
        let uses = source::lines_with(&source::code(text), "unsafe");
        let listed = UNSAFE.iter().any(|(listed, _)| *listed == path);
        if let (Some(line), false) = (uses.first(), listed) {
            findings.push(Finding::at(
                format!("{path}:{line}"),
                "unsafe code outside the listed files (UNSAFE in xtask/src/tidy/code.rs)",
            ));
        }
    }
    for (path, _) in UNSAFE {
        let used = tree
            .text(path)
            .is_some_and(|t| !source::lines_with(&source::code(t), "unsafe").is_empty());
        if !used && !tree.files.is_empty() && tree.crate_of(path).is_some() {
            findings
                .push(Finding::at(*path, "no unsafe code is left here: strike it off the list"));
        }
    }
    findings
}

pub fn marks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension(".rs") {
        let code = source::code(text);
        for mark in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            for line in source::lines_with(&code, mark) {
                let text = text.lines().nth(line - 1).unwrap_or_default();
                if !text.contains(HELPER) {
                    let place = format!("{path}:{line}");
                    findings.push(Finding::at(place, format!("`{mark}`: finish it")));
                }
            }
        }
        // In comments too; spelt so that this file does not hold them.
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")] {
            for line in source::lines_with(text, mark) {
                findings.push(Finding::at(
                    format!("{path}:{line}"),
                    format!("`{mark}`: do it, or say what holds today and open an issue"),
                ));
            }
        }
    }
    findings
}

/// A file of tests called `guest...` has tests called so: nextest gives guests turns by that name.
pub fn guests(tree: &Tree) -> Vec<Finding> {
    tree.with_extension(".rs")
        .filter(|(path, _)| path.contains("/tests/guest"))
        .filter(|(_, text)| text.contains("#[test]") && !text.contains("fn guest_"))
        .map(|(path, _)| Finding::at(path, "call a test that boots a guest `guest_...`"))
        .collect()
}

pub fn length(tree: &Tree) -> Vec<Finding> {
    tree.with_extension(".rs")
        .filter(|(path, _)| !LONG.iter().any(|(long, _)| long == path))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| {
            Finding::at(
                path,
                format!(
                    "{lines} lines, more than {LINES_MAX}: split it where its doc needs \"and\""
                ),
            )
        })
        .collect()
}

pub fn invariants(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in tree.crates.iter().filter(|c| !tree.is_stub(c)) {
        let Some((path, text)) = tree.crate_root(member) else {
            findings.push(Finding::at(&member.dir, "neither src/lib.rs nor src/main.rs"));
            continue;
        };
        let doc: String = text.lines().filter(|l| l.starts_with("//!")).collect();
        if doc.is_empty() {
            findings.push(Finding::at(path, "the crate has no doc: say what it is"));
        } else if !doc.contains("Invariant") {
            findings.push(Finding::at(path, "the crate's doc names no invariant"));
        }
    }
    findings
}

/// Runs `check` on the code of each file that is part of a crate and no test.
fn found_in_product(
    tree: &Tree,
    check: impl Fn(&str, &str) -> Vec<(usize, String)>,
) -> Vec<Finding> {
    let tests = source::test_files(tree);
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension(".rs") {
        let Some(member) = tree.crate_of(path) else { continue };
        if tests.contains(path) {
            continue;
        }
        let code = source::without_tests(&source::code(text));
        for (line, message) in check(&member.name, &code) {
            findings.push(Finding::at(format!("{path}:{line}"), message));
        }
    }
    findings
}

/// The lines on which any of the words stands, with what to do instead.
fn all_lines<'a>(
    code: &str,
    words: impl Iterator<Item = (&'a str, String)>,
) -> Vec<(usize, String)> {
    words
        .flat_map(|(word, instead)| {
            let lines = source::lines_with(code, word);
            lines.into_iter().map(move |line| (line, format!("`{word}`: {instead}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::of(&[(path, text)])
            .with_crate("ambient", &[])
            .with_crate("volume", &[])
            .with_crate("collective", &[])
    }

    #[track_caller]
    fn check(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str, found: &[usize]) {
        let findings = rule(&tree(path, text));
        let found: Vec<_> = found.iter().map(|line| format!("{path}:{line}")).collect();
        assert_eq!(places(&findings), found, "{text}");
    }

    #[test]
    fn time_and_chance_outside_their_door_are_found() {
        let text = "fn a() {\n  std::time::SystemTime::now();\n}\n// Instant::now in a comment\n\
                    #[cfg(test)]\nmod tests { fn b() { Instant::now(); } }\n";
        check(doors, "crates/volume/src/lib.rs", text, &[2]);
        check(doors, "crates/ambient/src/lib.rs", text, &[]);
        check(doors, "crates/volume/tests/crash.rs", text, &[]);
    }

    #[test]
    fn a_crate_that_reads_the_environment_is_found() {
        check(environment, "crates/volume/src/lib.rs", "let a = std::env::var(\"A\");", &[1]);
        check(environment, "crates/volume/src/lib.rs", "let a = std::env::temp_dir();", &[]);
        check(environment, "crates/collective/src/main.rs", "let a = env::var_os(\"A\");", &[]);
    }

    #[test]
    fn unlisted_unsafe_code_is_found() {
        check(unsafe_code, "crates/volume/src/map.rs", "// unsafe\n\nunsafe { x() }", &[3]);
        check(unsafe_code, "crates/volume/src/map.rs", "#![deny(unsafe_code)]", &[]);
    }

    #[test]
    fn unfinished_work_is_found() {
        check(marks, "crates/volume/src/a.rs", "fn a() {\n    todo!()\n}", &[2]);
        check(marks, "crates/volume/src/a.rs", "#[ignore = \"slow\"]\nfn a() {}", &[1]);
        check(marks, "crates/volume/src/a.rs", concat!("\n// TO", "DO later"), &[2]);
        check(marks, "crates/volume/src/a.rs", &format!("{HELPER}\nfn a() {{}}"), &[]);
        check(marks, "crates/volume/src/a.rs", "let said = \"todo!\";", &[]);
    }

    #[test]
    fn a_guest_that_hides_is_found() {
        let path = "crates/volume/tests/guest.rs";
        assert_eq!(places(&guests(&tree(path, "#[test]\nfn it_boots() {}"))), [path]);
        assert_eq!(guests(&tree(path, "#[test]\nfn guest_boots() {}")), []);
    }

    #[test]
    fn a_long_file_is_found() {
        let path = "crates/volume/src/a.rs";
        assert_eq!(places(&length(&tree(path, &"\n".repeat(LINES_MAX + 1)))), [path]);
        assert_eq!(length(&tree(path, &"\n".repeat(LINES_MAX))), []);
    }

    #[test]
    fn a_crate_that_does_not_say_what_holds_is_found() {
        let path = "crates/volume/src/lib.rs";
        let only = |text| invariants(&Tree::of(&[(path, text)]).with_crate("volume", &[]));
        assert_eq!(places(&only("fn a() {}")), [path]);
        assert_eq!(places(&only("//! What it is.")), [path]);
        assert_eq!(only("//! What it is.\n//!\n//! **Invariant:** none."), []);
        assert_eq!(only("//! (being written)"), []);
    }
}
