//! Instances under a plane, with real guests on hosts that are state directories of one machine.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::time::Duration;

use fleet::Fleet;
use support::{World, eventually, said};

/// Of `tiny`.
const MEMORY_MIB: f64 = 128.0;
/// Short, for tests: what a host may be away.
const LEASE_S: u32 = 2;

fn await_agent(world: &World, host: &str) {
    eventually(Duration::from_secs(60), "its agent answers", || {
        world.run(host, &["exec", "t1", "--", "/bin/true"]).json()["exit_code"] == 0
    });
}

#[test]
fn guest_roams_and_is_stopped_where_a_plane_decides() {
    let world = World::with_tiny("roams");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", LEASE_S);
    let _agents = [fleet.join("A"), fleet.join("B")];
    fleet.await_hosts(2);
    let (a, b) = (fleet.id("A"), fleet.id("B"));

    // Whoever asks names no host, or one; the session is in memory and goes where its user goes.
    let run = fleet.run("P", &["run", "tiny", "--name", "t1", "--on", &a]).ok();
    assert_eq!((run["name"].as_str(), run["state"].as_str()), (Some("t1"), Some("running")));
    assert_eq!(fleet.run("P", &["run", "tiny", "--name", "t1"]).error().0, "exists");
    await_agent(&world, "A");
    world.exec("A", "t1", "echo session > /tmp/session");
    fleet.run("B", &["resume", "t1"]).ok();
    fleet.await_placed("t1", Some("B"), "running");
    assert_eq!(world.exec("B", "t1", "cat /tmp/session"), "session");
    assert_eq!(world.row("A", "t1")["host"], world.row("B", "t1")["host"]);
    let moved = fleet.run("P", &["move", "t1", "--to", &a]).ok();
    assert_eq!(world.exec("A", "t1", "cat /tmp/session"), "session");
    let cost = |field: &str| moved[field].as_u64().unwrap_or_else(|| panic!("{moved}"));
    assert!(0 < cost("pause_ms") && cost("pause_ms") < cost("total_ms"), "{moved}");
    assert!(cost("moved_bytes") > cost("peer_bytes"), "{moved}");
    // Asked again, nothing happens.
    let generation = fleet.placed("t1")["generation"].clone();
    let moved = fleet.run("P", &["move", "t1", "--to", &a]).ok();
    assert_eq!([&moved["pause_ms"], &moved["moved_bytes"]], [0, 0], "{moved}");
    assert_eq!(fleet.placed("t1")["generation"], generation);

    // A host is to be empty: it leaves.
    fleet.at("P", &["host", "drain", &a]).ok();
    fleet.await_placed("t1", Some("B"), "running");
    assert_eq!(world.exec("B", "t1", "cat /tmp/session"), "session");
    // The last one too, and no other takes it: it is suspended, and comes back with the first host
    // that does.
    fleet.at("P", &["host", "drain", &b, "--within", "1"]).ok();
    fleet.await_placed("t1", None, "suspended");
    let why = fleet.placed("t1")["next"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains("draining")), "{why}");
    fleet.at("P", &["host", "uncordon", &a]).ok();
    fleet.await_placed("t1", Some("A"), "running");
    assert_eq!(world.exec("A", "t1", "cat /tmp/session"), "session");

    // At rest it stays at rest; what it does by itself inside is what is wished.
    assert_eq!(fleet.run("P", &["suspend", "t1"]).ok()["state"], "suspended");
    assert_eq!(fleet.run("P", &["resume", "t1"]).ok()["state"], "running");
    assert_eq!(fleet.run("P", &["stop", "t1"]).ok()["state"], "stopped");
    let forced = fleet.run("P", &["stop", "t1", "--force"]);
    assert_eq!(forced.json()["error"]["kind"], "usage", "{forced:?}");
    assert_eq!(fleet.run("P", &["resume", "t1"]).ok()["state"], "running");
    await_agent(&world, "A");
    world.run("A", &["exec", "t1", "--", "/usr/sbin/poweroff"]);
    fleet.await_placed("t1", None, "stopped");
    eventually(Duration::from_secs(10), "it is wished so", || {
        fleet.placed("t1")["wish"]["state"] == "stopped"
    });
    // What it used on both hosts is counted, to its last moment and once.
    let left = |host: &str| std::fs::read_dir(world.host(host).join("meter")).map(Iterator::count);
    eventually(Duration::from_secs(60), "all of it is counted", || {
        ["A", "B"].iter().all(|host| left(host).is_ok_and(|files| files == 0))
    });
    let used = fleet.at("P", &["usage", "--by", "appliance"]).ok();
    let of = |what: &str| used[0][what].as_f64().unwrap_or_else(|| panic!("{used}"));
    assert_eq!(used[0]["name"], "tiny");
    for what in ["running_seconds", "cpu_seconds", "fetched_bytes", "stored_bytes"] {
        assert!(of(what) > 0.0, "{used}");
    }
    // Its memory, for at least as long as its CPUs ran.
    let least = of("running_seconds") / 3600.0 * MEMORY_MIB / 1024.0;
    assert!((least * 0.9..least * 3.0).contains(&of("memory_gib_hours")), "{used}");
    // Most of what a guest has of processors its QEMU has: that is seen, also after it has ended.
    assert!(of("cpu_seconds") > 0.5, "{used}");

    // Removed behind the plane's back, it is wished for no longer.
    world.run("A", &["rm", "t1"]).ok();
    assert_eq!(fleet.run("P", &["resume", "t1"]).error().0, "not_found");
}

#[test]
fn guest_that_is_called_back_on_its_way_to_another_host_stays_and_goes_on() {
    let (world, server) = World::with_tiny_on_s3("called-back", &["P", "A", "B"]);
    // Nothing here is about its end.
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", 60);
    // By the repository: straight to the other host there is no way to call back.
    let _agents = [fleet.join_giving_nothing("A"), fleet.join("B")];
    fleet.await_hosts(2);
    let (a, b) = (fleet.id("A"), fleet.id("B"));
    fleet.run("P", &["run", "tiny", "--name", "t1", "--on", &a]).ok();
    await_agent(&world, "A");
    world.exec("A", "t1", "echo session > /tmp/session");
    let pid = world.row("A", "t1")["pid"].clone();

    // To store what it has takes a while: it is seen what is done, and called off.
    server.delay(Duration::from_secs(3));
    let moves = fleet.spawn("P", &["move", "t1", "--to", &b]);
    let shown = || fleet.run("P", &["operation", "show", "t1"]).ok();
    eventually(Duration::from_secs(60), "it is on its way", || {
        let shown = shown();
        let step = shown["step"].as_str().unwrap_or_default().to_owned();
        shown["kind"] == "move" && shown["state"] == "running" && step.contains("pass")
    });
    let id = shown()["id"].as_str().unwrap().to_owned();
    let cancelled = fleet.run("P", &["operation", "cancel", "t1"]).ok();
    assert_eq!(
        (&cancelled["id"], &cancelled["cancelled_by"]),
        (&shown()["id"], &"administrator".into())
    );
    server.delay(Duration::ZERO);
    eventually(Duration::from_secs(60), "it is over", || shown()["state"] == "cancelled");
    let (kind, why, _) = said(moves.wait_with_output().unwrap()).error();
    assert!(kind == "state" && why.contains("has cancelled it"), "{kind} {why}");
    // It never stood still for it: the same process has it.
    fleet.await_placed("t1", Some("A"), "running");
    assert_eq!(world.row("A", "t1")["pid"], pid);
    assert_eq!(world.exec("A", "t1", "cat /tmp/session"), "session");
    let again = fleet.run("P", &["operation", "cancel", "t1"]).ok();
    assert_eq!(again["state"], "cancelled", "it is already");

    // Asked once more it goes, and then it is too late.
    fleet.run("P", &["move", "t1", "--to", &b]).ok();
    assert_eq!(world.exec("B", "t1", "cat /tmp/session"), "session");
    eventually(Duration::from_secs(20), "it is done", || shown()["state"] == "done");
    let (kind, why, hint) = fleet.run("P", &["operation", "cancel", "t1"]).error();
    assert_eq!(kind, "state");
    assert!(why.contains("is over: done") && hint.contains("move"), "{why} {hint}");
    let listed = fleet.run("P", &["operation", "list", "--instance", "t1"]).ok();
    let listed: Vec<_> = listed.as_array().unwrap().iter().collect();
    let states: Vec<_> = listed.iter().map(|listed| listed["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "cancelled", "done"]);
    assert_eq!(listed[1]["id"].as_str(), Some(id.as_str()));
}

#[test]
fn guest_whose_start_is_called_off_never_ran() {
    let (world, server) = World::with_tiny_on_s3("called-off", &["P", "A"]);
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", 60);
    let _agent = fleet.join("A");
    fleet.await_hosts(1);
    fleet.run("P", &["run", "tiny", "--name", "t1"]).ok();
    await_agent(&world, "A");
    world.exec("A", "t1", "echo session > /tmp/session");
    fleet.run("P", &["suspend", "t1"]).ok();
    let log = world.instance("A", "t1").join("shim.log");
    let said_before = std::fs::read_to_string(&log).unwrap();

    // Its shim is there, and waits for the repository.
    let calls_off = |of: &str, words: &[&str]| {
        server.delay(Duration::from_millis(400));
        let starts = fleet.spawn("P", words);
        let shown = || fleet.run("P", &["operation", "show", of]).json();
        eventually(Duration::from_secs(120), "it starts", || {
            let shown = shown();
            let socket = world.instance("A", of).join("shim.sock");
            shown["kind"] == "start" && shown["state"] == "running" && socket.exists()
        });
        let cancelled = fleet.run("P", &["operation", "cancel", of]).ok();
        assert_eq!(cancelled["cancelled_by"], "administrator");
        server.delay(Duration::ZERO);
        eventually(Duration::from_secs(60), "it is over", || shown()["state"] == "cancelled");
        let (kind, why, _) = said(starts.wait_with_output().unwrap()).error();
        assert!(kind == "state" && why.contains("has cancelled it"), "{kind} {why}");
    };
    calls_off("t1", &["resume", "t1"]);
    fleet.await_placed("t1", None, "suspended");
    let said = std::fs::read_to_string(&log).unwrap();
    let said = said.strip_prefix(&said_before).unwrap();
    assert!(said.contains("called off before it ran"), "{said}");
    // All is as it was: it goes on from there.
    fleet.run("P", &["resume", "t1"]).ok();
    assert_eq!(world.exec("A", "t1", "cat /tmp/session"), "session");

    // Of one that is new nothing is left, and its name is free.
    calls_off("t2", &["run", "tiny", "--name", "t2"]);
    eventually(Duration::from_secs(20), "nobody knows it", || {
        fleet.run("P", &["ps"]).ok().as_array().unwrap().len() == 1
    });
    assert_eq!(world.run("A", &["inspect", "t2"]).error().0, "not_found");
    fleet.run("P", &["run", "tiny", "--name", "t2"]).ok();
}

#[test]
fn guest_outlives_its_host_and_what_that_one_did_alone_is_a_branch() {
    let world = World::with_tiny("outlives");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", LEASE_S);
    let (_a, mut b) = (fleet.join("A"), fleet.join("B"));
    fleet.await_hosts(2);
    let on_b = ["--on", &fleet.id("B"), "--restart", "on-failure"];
    fleet.run("P", &[&["run", "tiny", "--name", "t1"][..], &on_b].concat()).ok();
    await_agent(&world, "B");
    world.exec("B", "t1", "echo stored > /data/work; sync");
    world.run("B", &["checkpoint", "t1"]).ok();
    world.exec("B", "t1", "echo alone > /data/work; echo alone > /tmp/alone; sync");

    // The host is cut off: nobody there says that it is there, and the guest runs on for a moment.
    b.kill();
    fleet.await_placed("t1", Some("A"), "running");
    assert_eq!(world.exec("A", "t1", "cat /data/work"), "stored");
    // It was held before that, and what it did alone is kept.
    let log = || {
        let log = world.instance("B", "t1").join("shim.log");
        std::fs::read_to_string(log).unwrap_or_default()
    };
    eventually(Duration::from_secs(30), "it is a branch", || log().contains("kept as branch"));
    let log = log();
    assert!(log.contains("the guest is held"), "{log}");
    let history = world.run("A", &["history", "t1"]).ok();
    let rows = history.as_array().unwrap();
    let branch =
        rows.iter().find(|row| row["branch"].is_string()).unwrap_or_else(|| panic!("{history}"));
    let id = branch["id"].as_str().unwrap();
    world.run("A", &["fork", "t1", "--at", id, "--name", "t2"]).ok();
    assert_eq!(world.exec("A", "t2", "cat /data/work /tmp/alone"), "alone\nalone");
    world.run("A", &["rm", "t2", "--force"]).ok();

    // The plane goes away: its hosts hold their guests, and go on when it is back in time.
    drop(_plane);
    eventually(Duration::from_secs(30), "it is held", || world.state("A", "t1") == "paused");
    assert_eq!(world.run("A", &["unpause", "t1"]).error().0, "lease");
    let address = fleet.url.strip_prefix("https://").unwrap();
    let (_plane, _) = Fleet::start(&world, address, LEASE_S);
    eventually(Duration::from_secs(30), "it goes on", || world.state("A", "t1") == "running");
    assert_eq!(world.exec("A", "t1", "cat /data/work"), "stored");
    // It is away for long: they are suspended, and come back with it.
    drop(_plane);
    eventually(Duration::from_secs(60), "it is suspended", || {
        world.state("A", "t1") == "suspended"
    });
    let (_plane, _) = Fleet::start(&world, address, LEASE_S);
    eventually(Duration::from_secs(30), "it goes on", || world.state("A", "t1") == "running");
    assert_eq!(world.exec("A", "t1", "cat /data/work"), "stored");
}

#[test]
fn guest_pages_come_from_other_hosts_of_its_plane() {
    let world = World::with_tiny("peers");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", LEASE_S);
    let mut agents = [fleet.join("A"), fleet.join("B"), fleet.join("C")];
    fleet.await_hosts(3);
    assert!(fleet.host("A")["peer"]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    let told = |host: &str, peers: usize| {
        let file = world.host(host).join("plane/peers.json");
        eventually(Duration::from_secs(20), "it knows its peers", || {
            let said = std::fs::read(&file).unwrap_or_default();
            let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
            said["peers"].as_array().map_or(0, Vec::len) == peers
        });
    };
    ["A", "B", "C"].iter().for_each(|host| told(host, 2));

    let first = world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    assert_eq!(first["peer_bytes"], 0, "nobody else has anything: {first}");
    world.exec("A", "t1", "echo session > /tmp/session");
    world.run("A", &["suspend", "t1"]).ok();
    let there = world.run("B", &["resume", "t1"]).ok();
    assert_eq!(world.exec("B", "t1", "cat /tmp/session"), "session");
    let bytes = |field: &str| there[field].as_u64().unwrap();
    assert!(bytes("peer_bytes") > 1 << 20, "{there}");
    // What is read of its kernel is of the repository: such pieces are in no cache. Of its pages hardly
    // any are.
    let kernel = first["fetched_bytes"].as_u64().unwrap();
    let pages = bytes("fetched_bytes").saturating_sub(kernel);
    assert!(pages < bytes("peer_bytes") / 2, "{there} {first}");

    // Peers that are gone are missed by nobody.
    world.run("B", &["suspend", "t1"]).ok();
    agents[0].kill();
    agents[1].kill();
    let alone = world.run("C", &["resume", "t1"]).ok();
    assert_eq!(alone["peer_bytes"], 0);
    assert_eq!(world.exec("C", "t1", "cat /tmp/session"), "session");
    // Who gives nothing is nobody's peer.
    let _quiet = fleet.join_by("A", &["--peers", "off"]);
    eventually(Duration::from_secs(20), "it gives nothing", || fleet.host("A")["peer"].is_null());
}
