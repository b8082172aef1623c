//! What the program says where no guest is needed: help, wrong usage, an empty host.

mod support;

use std::fs;

use support::transcript::{self, Transcript};
use support::{World, appliance, said};

/// The help of a verb and of all verbs below it.
fn help(world: &World, verb: &[&str], text: &mut String) {
    let said = said(world.program("A").args(verb).arg("--help").output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.stderr, "");
    let words = [verb, &["--help"]].concat().join(" ");
    // The options that are the same everywhere are shown once.
    let (own, common) = said.stdout.split_once("Options of every verb:\n").expect("they are named");
    text.push_str(&format!("$ collective {words}\n{own}"));
    if verb.is_empty() {
        text.push_str(&format!("Options of every verb:\n{common}\n"));
    }
    let below = own.split_once("Verbs:\n").map_or("", |(_, list)| list);
    // A longer text goes on further to the right.
    let verbs = below.lines().take_while(|line| !line.is_empty());
    for line in verbs.filter(|line| !line.starts_with("   ")) {
        let name = line.split_whitespace().next().expect("a verb has a name");
        help(world, &[verb, &[name]].concat(), text);
    }
}

#[test]
fn every_verb_explains_itself() {
    let world = World::empty("help");
    let mut text = String::new();
    help(&world, &[], &mut text);
    transcript::check(&world, "help", &text);
}

#[test]
fn wrong_usage_is_explained() {
    let world = World::empty("usage");
    let mut seen = Transcript::of(&world);
    for arguments in [
        &[][..],
        &["rnu", "tiny"],
        &["run"],
        &["run", "tiny", "--nmae", "t1"],
        &["run", "tiny", "--accel", "xen"],
        &["run", "a tiny one"],
        &["run", "tiny", "--name", "Tiny One"],
        &["run", "tiny", "-p", "http"],
        &["suspend", "-x"],
        &["exec", "t1", "ls"],
        &["fork", "t1", "--count", "0"],
        &["pause", "T1"],
        &["repo"],
        &["repo", "init", "r", "--public", "--key", "host"],
        &["repo", "key", "import"],
    ] {
        let said = seen.run("A", arguments);
        assert_eq!(said.code, 2, "{said:?}");
    }
    seen.check("usage");
}

#[test]
fn a_host_without_instances_explains_itself() {
    let world = World::empty("first-steps");
    let mut seen = Transcript::of(&world);
    fs::create_dir(world.root().join("empty")).unwrap();
    // The repository that is named is made first.
    seen.run("A", &["ps"]);
    seen.run("A", &["run", "nano"]);
    seen.run("A", &["repo", "init", "repository", "--key", "host"]);
    seen.run("A", &["repo", "init", "repository"]);
    seen.run("A", &["doctor"]);
    seen.run("A", &["ps"]);
    seen.run("A", &["appliances"]);
    seen.run("A", &["build", "empty"]);
    seen.run("A", &["build", "--validate", &appliance("nano")]);
    seen.run("A", &["build", &appliance("nano")]);
    seen.run("A", &["appliances"]);
    seen.run("A", &["ps"]);
    for verb in ["inspect", "history", "pause", "suspend", "resume", "stop", "checkpoint", "undo"] {
        seen.run("A", &[verb, "n1"]);
    }
    for verb in ["fork", "console", "screenshot", "logs", "rm"] {
        seen.run("A", &[verb, "n1"]);
    }
    seen.run("A", &["exec", "n1", "--", "true"]);
    seen.run("A", &["repo", "stats"]);
    seen.run("A", &["repo", "check"]);
    seen.run("A", &["repo", "check", "--read-data"]);
    seen.run("A", &["repo", "gc"]);
    // Another host has no key.
    seen.run("B", &["repo", "stats"]);
    seen.run("A", &["repo", "key", "export", "-o", "key"]);
    seen.run("A", &["repo", "key", "export", "-o", "key"]);
    seen.run("B", &["repo", "key", "import", "key"]);
    seen.run("B", &["repo", "use", "repository"]);
    seen.run("B", &["repo", "use", "elsewhere"]);
    seen.run("B", &["repo", "use", "ftp://host/path"]);
    seen.run("B", &["repo", "source", "empty"]);
    seen.run("B", &["appliances"]);
    seen.run("B", &["ps", "-q"]);
    seen.check("first-steps");
}
