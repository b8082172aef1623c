//! Many hosts under one plane, by the command line: real processes, one machine.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::time::Duration;

use fleet::Fleet;
use serde_json::json;
use support::transcript::Transcript;
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
        // How busy this machine is when this runs, nobody knows.
        let busy = host["load"]["memory_percent"].as_u64().unwrap();
        assert!(busy <= 100 && host["load"]["cpu_percent"].is_u64(), "{host}");
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

#[test]
fn hosts_measure_the_way_to_each_others_sites_and_say_it() {
    let world = World::empty("distances");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", 6);
    let _agents = [fleet.join("home"), fleet.join("work")];
    fleet.await_hosts(2);
    for (here, there) in [("home", "work"), ("work", "home")] {
        eventually(Duration::from_secs(60), "the way is known", || {
            let host = fleet.host(here);
            let ways = host["load"]["round_trips_us"].as_object();
            ways.is_some_and(|ways| ways.keys().eq([there]) && ways[there].as_u64() > Some(0))
        });
    }
}

#[test]
fn who_may_do_what_reads_well() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::empty("access");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", 15);
    let mut seen = Transcript::of(&world);
    let file = |name: &str| world.host(name).with_extension("token").display().to_string();
    let (own, anna) = (world.host("P").join("plane.token").display().to_string(), file("anna"));
    let mut run = |token: &str, words: &[&str]| {
        let rest = ["--plane", &fleet.url, "--token-file", token];
        seen.run("A", &[words, &rest].concat())
    };
    run(&own, &["whoami"]);
    run(&own, &["user", "add", "anna"]);
    run(&own, &["user", "add", "olaf", "--role", "operator"]);
    run(&own, &["user", "add", "anna"]);
    run(&own, &["user", "add", "administrator"]);
    run(&own, &["user", "add", "Anna B"]);
    run(&own, &["project", "add", "blue"]);
    run(&own, &["project", "add", "blue"]);
    run(&own, &["project", "grant", "blue", "anna", "admin"]);
    run(&own, &["project", "grant", "green", "anna", "user"]);
    run(&own, &["token", "create", "--user", "anna", "--expires", "30d", "-o", &anna]);
    run(&own, &["token", "create", "--user", "anna", "-o", &anna]);
    run(&own, &["token", "create", "--user", "nobody"]);
    run(&own, &["token", "create"]);
    run(&own, &["token", "create", "--user", "anna", "--expires", "soon"]);
    assert_eq!(std::fs::metadata(&anna).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&anna).unwrap();
    run(&own, &["project", "quota", "blue", "--instances", "10", "--memory", "8GiB"]);

    run(&anna, &["whoami"]);
    run(&anna, &["host", "list"]);
    run(&anna, &["user", "list"]);
    run(&anna, &["project", "list"]);
    run(&anna, &["project", "grant", "blue", "olaf", "user"]);
    run(&anna, &["project", "withdraw", "blue", "olaf"]);
    run(&anna, &["project", "withdraw", "blue", "olaf"]);
    let said = run(&anna, &["token", "create", "--project", "blue", "--read-only"]);
    let reading = file("reading");
    std::fs::write(&reading, said.stdout).unwrap();
    run(&reading, &["whoami"]);
    run(&reading, &["project", "grant", "blue", "olaf", "user"]);
    run(&reading, &["token", "create"]);
    let id = token.split('.').nth(1).unwrap().to_owned();
    let listed = run(&own, &["token", "list"]);
    run(&own, &["user", "list"]);
    run(&anna, &["token", "revoke", &id]);
    run(&anna, &["whoami"]);
    run(&own, &["user", "remove", "anna"]);
    run(&reading, &["whoami"]);
    run(&own, &["project", "remove", "blue"]);
    run(&own, &["project", "remove", "default"]);
    run(&anna, &["audit", "list"]);
    run(&own, &["audit", "list", "--last", "3"]);
    run(&own, &["audit", "list", "--project", "blue"]);
    run(&own, &["audit", "verify"]);
    run(&own, &["audit", "verify", "--expect", "5"]);
    let other = format!("3:{}", "ab".repeat(32));
    run(&own, &["audit", "verify", "--expect", &other]);
    let later = format!("1000:{}", "ab".repeat(32));
    run(&own, &["audit", "verify", "--expect", &later]);
    seen.check("access");

    // Nothing that is shown is in the list, or in the state's file.
    let secret = token.split('.').nth(2).unwrap();
    assert!(listed.stdout.contains(&id) && !listed.stdout.contains(secret));
    let state = std::fs::read(world.host("P").join("plane-state/state.redb")).unwrap();
    let holds = |text: &str| state.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(&id) && !holds(secret));
}

#[test]
fn a_plane_goes_on_from_a_copy_of_its_state() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::empty("backup");
    let (mut first, fleet) = Fleet::start(&world, "127.0.0.1:0", 15);
    let at = |words: &[&str]| fleet.at("A", words);
    at(&["user", "add", "anna", "--role", "operator"]).ok();
    let token = world.root().join("anna.token").display().to_string();
    at(&["token", "create", "--user", "anna", "-o", &token]).ok();
    let head = at(&["audit", "verify"]).ok()["head"].as_str().unwrap().to_owned();
    let copy = world.root().join("copy").display().to_string();
    at(&["plane", "backup", &copy]).ok();
    assert_eq!(at(&["plane", "backup", &copy]).error().0, "exists");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(world.host("P").join("plane.token")).unwrap();
    assert!(!std::fs::read_to_string(&copy).unwrap().contains(secret.trim()));

    // Not over a state that is there, nor under a plane that runs; and not from half a file.
    let restore = |file: &str| world.run("P", &["plane", "restore", file]);
    assert_eq!(restore(&copy).error().0, "state");
    first.kill();
    assert_eq!(restore(&copy).error().0, "state");
    std::fs::remove_dir_all(world.host("P").join("plane-state")).unwrap();
    let whole = std::fs::read(&copy).unwrap();
    let half = world.root().join("half").display().to_string();
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(restore(&half).error().0, "damaged");
    restore(&copy).ok();
    let (_again, again) = Fleet::start(&world, "127.0.0.1:0", 15);
    let whoami = world.run("B", &["whoami", "--plane", &again.url, "--token-file", &token]).ok();
    assert_eq!(whoami["user"], "anna");
    again.at("A", &["audit", "verify", "--expect", &head]).ok();
}
