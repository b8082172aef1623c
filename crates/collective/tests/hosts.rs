//! Many hosts under one plane, by the command line: real processes, one machine.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::time::Duration;

use fleet::Fleet;
use serde_json::json;
use support::{World, eventually};

#[test]
fn hosts_join_a_plane_that_is_killed_and_begins_again() {
    let world = World::empty("hosts");
    let (mut first, fleet) = Fleet::start(&world, "127.0.0.1:0", 15);
    let at = |words: &[&str]| fleet.at("A", words);
    let _agents = [fleet.join("home"), fleet.join("work")];
    fleet.await_hosts(2);
    for host in fleet.hosts() {
        assert_eq!(host["state"], "ready");
        assert_eq!(host["instances"], 0);
        assert!(host["cache_bytes"].is_u64() && host["memory_bytes"].as_u64().unwrap() > 0);
    }
    let work = fleet.id("work");
    let (kind, _, hint) = at(&["host", "remove", &work]).error();
    assert!(kind == "state" && !hint.is_empty());
    assert_eq!(at(&["host", "cordon", &work]).ok()["state"], "cordoned");
    assert_eq!(at(&["host", "drain", "nobody"]).error().0, "not_found");
    assert_eq!(at(&["plan", "--dry-run"]).ok(), json!({"choices": [], "stay": 0}));

    // The plane is killed; the hosts go on trying, and the next one knows what was wished.
    first.kill();
    assert_eq!(at(&["host", "list"]).error().0, "unavailable");
    let (_second, again) = Fleet::start(&world, fleet.url.strip_prefix("https://").unwrap(), 15);
    assert_eq!(again.url, fleet.url);
    assert_eq!(fleet.host("work")["state"], "cordoned");
    assert_eq!(at(&["host", "uncordon", &work]).ok()["state"], "ready");

    // Two planes on one file would be two truths.
    let second = world.run("P", &["plane", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.error().0, "state");
    let usage = |words: &[&str], host: &str| {
        let said = world.run(host, words);
        assert_eq!(said.json()["error"]["kind"], "usage", "{said:?}");
    };
    let guess = "ab".repeat(32);
    usage(&["host", "join", "http://192.0.2.1:7070", "--token", &guess], "A");
    // Another plane's token is not even shown to this one.
    let wrong = |token: &str| {
        world.run("A", &["host", "list", "--plane", &fleet.url, "--token", token]).error().0
    };
    assert_eq!(wrong(&guess), "unavailable");
    assert_eq!(wrong("guess"), "permission");
    // A host that is not known needs a token, once; one that lets it join and nothing else will do.
    let url = fleet.url.as_str();
    assert_eq!(world.run("C", &["host", "join", url]).error().0, "permission");
    let token = world.run("P", &["host", "token"]).ok()["token"].as_str().unwrap().to_owned();
    assert_eq!(wrong(&token), "permission");
    let mut third = fleet.join_by("C", &["--token", &token]);
    fleet.await_hosts(3);
    third.kill();
    let _third = fleet.join_by("C", &[]);
    eventually(Duration::from_secs(20), "it is back", || {
        let path = world.host("C").join("plane/lease.json");
        let written = std::fs::metadata(path).and_then(|found| found.modified()).unwrap();
        written.elapsed().is_ok_and(|age| age < Duration::from_secs(2))
    });
}
