//! Many hosts under one plane, by the command line: real processes, one machine.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{World, eventually};

/// A process of a test's: a plane, or a host's agent.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a plane at an address of its own or at `listen`, and waits until it says where.
fn plane(world: &World, listen: &str) -> (Running, String) {
    let mut program = world.program("P");
    program.args(["plane", "--json", "--listen", listen]).stdout(Stdio::piped());
    let mut child = Running(program.spawn().unwrap());
    let mut document = String::new();
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    while serde_json::from_str::<Value>(&document).is_err() {
        assert!(lines.read_line(&mut document).unwrap() > 0, "it ended: {document}");
    }
    let document: Value = serde_json::from_str(&document).unwrap();
    (child, document["url"].as_str().unwrap().to_owned())
}

#[test]
fn hosts_join_a_plane_that_is_killed_and_begins_again() {
    let world = World::empty("hosts");
    let (mut first, url) = plane(&world, "127.0.0.1:0");
    let token = world.host("P").join("plane.token").display().to_string();
    let join = |host: &str, site: &str| {
        let label = format!("site={site}");
        let mut program = world.program(host);
        program.args(["host", "join", &url, "--token-file", &token, "--label", &label]);
        Running(program.stderr(Stdio::null()).spawn().unwrap())
    };
    let at = |words: &[&str]| {
        let rest = ["--plane", &url, "--token-file", &token];
        let words: Vec<_> = words.iter().copied().chain(rest).collect();
        world.run("A", &words)
    };
    let _agents = [join("A", "home"), join("B", "work")];
    let listed = || at(&["host", "list"]).ok();
    eventually(Duration::from_secs(20), "both have joined", || {
        listed().as_array().unwrap().len() == 2
    });
    let hosts = listed();
    for host in hosts.as_array().unwrap() {
        assert_eq!(host["state"], "ready");
        assert_eq!(host["instances"], 0);
        assert!(host["cache_bytes"].is_u64() && host["memory_bytes"].as_u64().unwrap() > 0);
    }
    let of = |site: &str| {
        let hosts = listed();
        let mut hosts = hosts.as_array().unwrap().iter();
        hosts.find(|host| host["labels"]["site"] == site).unwrap().clone()
    };
    let work = of("work")["id"].as_str().unwrap().to_owned();
    assert_eq!(at(&["host", "cordon", &work]).ok()["state"], "cordoned");
    let (kind, _, hint) = at(&["host", "remove", &work]).error();
    assert!(kind == "state" && !hint.is_empty());
    assert_eq!(at(&["host", "drain", "nobody"]).error().0, "not_found");
    assert_eq!(at(&["plan", "--dry-run"]).ok(), json!({"choices": [], "stay": 0}));

    // The plane is killed; the hosts go on trying, and the next one knows what was wished.
    first.kill();
    assert_eq!(at(&["host", "list"]).error().0, "unavailable");
    let (_second, again) = plane(&world, url.strip_prefix("http://").unwrap());
    assert_eq!(again, url);
    assert_eq!(of("work")["state"], "cordoned");
    assert_eq!(at(&["host", "uncordon", &work]).ok()["state"], "ready");

    // Two planes on one file would be two truths, and a plane that others can reach is refused.
    let second = world.run("P", &["plane", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.error().0, "state");
    let usage = |words: &[&str], host: &str| {
        let said = world.run(host, words);
        assert_eq!(said.json()["error"]["kind"], "usage", "{said:?}");
    };
    usage(&["plane", "--listen", "0.0.0.0:0"], "Q");
    usage(&["host", "join", "http://192.0.2.1:7070", "--token", "t"], "A");
    let wrong = world.run("A", &["host", "list", "--plane", &url, "--token", "guess"]);
    assert_eq!(wrong.error().0, "permission");
}
