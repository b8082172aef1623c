//! Many hosts under one plane, by the command line: real processes, one machine.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use fleet::Fleet;
use serde_json::json;
use support::World;

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
    assert_eq!(at(&["host", "cordon", &work]).ok()["state"], "cordoned");
    let (kind, _, hint) = at(&["host", "remove", &work]).error();
    assert!(kind == "state" && !hint.is_empty());
    assert_eq!(at(&["host", "drain", "nobody"]).error().0, "not_found");
    assert_eq!(at(&["plan", "--dry-run"]).ok(), json!({"choices": [], "stay": 0}));

    // The plane is killed; the hosts go on trying, and the next one knows what was wished.
    first.kill();
    assert_eq!(at(&["host", "list"]).error().0, "unavailable");
    let (_second, again) = Fleet::start(&world, fleet.url.strip_prefix("http://").unwrap(), 15);
    assert_eq!(again.url, fleet.url);
    assert_eq!(fleet.host("work")["state"], "cordoned");
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
    let wrong = world.run("A", &["host", "list", "--plane", &fleet.url, "--token", "guess"]);
    assert_eq!(wrong.error().0, "permission");
}
