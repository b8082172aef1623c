//! Live moves: what a guest wrote last is on its next host before the repository has it. Real hosts with
//! networks of their own, and a repository that takes nothing large for a while.

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/lan.rs"]
mod lan;
mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use fleet::{Fleet, Running};
use lan::Lan;
use s3_server::S3Server;
use support::{READ_NOISE, Said, World, eventually, noise, said};

/// What a host may be away.
const LEASE_S: u32 = 6;
/// Long enough for what must come, whatever else the machine does.
const SOON: Duration = Duration::from_secs(180);
/// Where everything goes that is large.
const PACKS: &str = "/packs/";

/// A repository `R`, whoever asks `U`, a plane and two hosts.
fn world(name: &str) -> (Lan, World, S3Server) {
    let lan = Lan::of_neighbours(&["R", "U", "P", "A", "B"]);
    let (world, store) = World::with_tiny_behind(name, &["A", "B", "U"], |world, folder| {
        let address = format!("{}:9000", lan.address("R"));
        let serve = || S3Server::start(folder, &["bucket"], &address).unwrap();
        (world.entered_by(lan.entrances()), lan.inside("R", serve))
    });
    (lan, world, store)
}

/// A plane, and `t1` on `A` with something in its memory and on its disk.
fn start<'a>(lan: &Lan, world: &'a World, lease_s: u32) -> (Running, Fleet<'a>, [Running; 2]) {
    let listen = format!("{}:7070", lan.address("P"));
    let (plane, fleet) = Fleet::start_on(world, "P", &listen, lease_s, &[]);
    let agents = [fleet.join("A"), fleet.join("B")];
    fleet.await_hosts(2);
    let words = ["run", "tiny", "--name", "t1", "--on", &fleet.id("A"), "--restart", "on-failure"];
    fleet.run("U", &words).ok();
    eventually(SOON, "the guest's agent answers", || {
        world.run("A", &["exec", "t1", "--", "/bin/true"]).json()["exit_code"] == 0
    });
    know_each_other(world);
    put_noise(world);
    (plane, fleet, agents)
}

/// A move whose shim is killed at a step, on either host, by turns. Whatever was offered or taken has the
/// memory, or the guest goes on from its disks as after a power cut; it arrives, and nothing is left lying.
#[test]
fn guest_killed_while_it_moves_arrives_all_the_same() {
    let world = World::with_nano("killed-moves");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", 60);
    let told = |host: &str| world.root().join(format!("{host}-dies-at"));
    let _agents = ["A", "B"].map(|host| {
        let by = format!("@{}", told(host).display());
        fleet.join_with(host, &[("COLLECTIVE_DIE_AT", by.as_str())])
    });
    fleet.await_hosts(2);
    let ids = ["A", "B"].map(|host| fleet.id(host));
    know_each_other(&world);

    let steps = [
        ("A", "seal: frozen", false),
        ("A", "part: packed", false),
        ("A", "part: offered", true),
        ("B", "claim: held", true),
        ("B", "start: runs", false),
        ("B", "landing: visible", false),
    ];
    for (round, (host, step, has_memory)) in steps.into_iter().enumerate() {
        // A shim is born with its death: where it comes from has it already.
        let arms = |on: &str| {
            if host == on {
                fs::write(told(on), step).unwrap();
            }
        };
        arms("A");
        if round == 0 {
            let on = ["--on", &ids[0], "--restart", "on-failure"];
            fleet.run("P", &[&["run", "nano", "--name", "n1"][..], &on].concat()).ok();
        } else {
            fleet.run("P", &["move", "n1", "--to", &ids[0], "--timeout", "180"]).ok();
        }
        let arrived = || world.run("A", &["inspect", "n1"]).ok()["arriving"].is_null();
        eventually(SOON, "all of it has come", arrived);
        let before = world.lines_after("A", "n1", "a");
        arms("B");
        // It may be told that something went wrong on the way.
        let moves = fleet.run("P", &["move", "n1", "--to", &ids[1], "--timeout", "180"]);
        eventually(SOON, &format!("a shim dies at {step}: {moves:?}"), || !told(host).exists());
        fleet.await_placed("n1", Some("B"), "running");
        eventually(SOON, "it runs", || world.state("B", "n1") == "running");
        let after = world.lines_after("B", "n1", "a");
        let boots = !has_memory && after == 1;
        assert!(boots || after == before + 1, "{step}: {after} lines, and before {before}");
        for host in ["A", "B"] {
            eventually(SOON, "nothing is left lying", || parcels(&world, host) == 0);
        }
    }
    let check = world.run("P", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
    let ended = fleet.run("P", &["suspend", "n1"]).ok();
    assert_eq!(ended["state"], "suspended");
}

/// Puts what no compression makes smaller into the guest's memory.
fn put_noise(world: &World) {
    let mut put =
        world.command("A", &["exec", "-i", "t1", "--", "/bin/sh", "-c", "cat > /tmp/noise"]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&noise()).unwrap();
    said(put.wait_with_output().unwrap()).ok();
    world.exec("A", "t1", "md5sum /tmp/noise > /tmp/sum");
}

/// Both know where the other gives.
fn know_each_other(world: &World) {
    for host in ["A", "B"] {
        let file = world.host(host).join("plane/peers.json");
        eventually(SOON, "it knows its peer", || {
            let said = fs::read_to_string(&file).unwrap_or_default();
            said.contains("parcels")
        });
    }
}

fn write(world: &World, host: &str, work: &str) {
    world.exec(host, "t1", &format!("echo {work} > /data/work; cp /data/work /tmp/work; sync"));
}

fn reads(world: &World, host: &str, work: &str) {
    assert_eq!(world.exec(host, "t1", "cat /data/work /tmp/work"), format!("{work}\n{work}"));
}

fn is_ok(read: &Said) {
    assert_eq!(read.code, 0, "{read:?}");
    assert!(read.json()["stdout"].as_str().unwrap().contains("OK"), "{read:?}");
}

/// Parcels that lie on a host.
fn parcels(world: &World, host: &str) -> usize {
    let files = fs::read_dir(world.host(host).join("parcels"));
    files.map_or(0, |files| {
        files
            .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "json"))
            .count()
    })
}

/// What is said of what `t1` came with, on the host where it runs.
fn arriving(world: &World, host: &str) -> serde_json::Value {
    world.run(host, &["inspect", "t1"]).ok()["arriving"].clone()
}

fn history(world: &World) -> Vec<serde_json::Value> {
    world.run("U", &["history", "t1"]).ok().as_array().unwrap().clone()
}

fn is_whole(world: &World) {
    let check = world.run("U", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}

#[test]
fn guest_moves_before_the_repository_has_what_it_wrote_last() {
    let (lan, world, store) = world("straight");
    let (_plane, fleet, _agents) = start(&lan, &world, LEASE_S);
    write(&world, "A", "first");

    store.hold(Some(PACKS));
    fleet.run("U", &["move", "t1", "--to", &fleet.id("B")]).ok();
    reads(&world, "B", "first");
    is_ok(&world.run("B", READ_NOISE));
    // Nothing of it is in the repository: its host has it, and nothing leads to it.
    assert_eq!(parcels(&world, "A"), 1);
    assert_eq!(history(&world).len(), 0);
    assert!(arriving(&world, "B")["from"].is_string());
    write(&world, "B", "second");

    // Then it comes there by itself, and the source forgets it.
    store.hold(None);
    eventually(SOON, "the repository has it", || arriving(&world, "B").is_null());
    assert_eq!(history(&world).len(), 1);
    eventually(SOON, "its source forgets it", || parcels(&world, "A") == 0);
    is_whole(&world);
    reads(&world, "B", "second");

    // And back, at once followed by what needs all of it to be stored.
    fleet.run("U", &["move", "t1", "--to", &fleet.id("A")]).ok();
    assert_eq!(fleet.run("U", &["suspend", "t1"]).ok()["state"], "suspended");
    assert_eq!(history(&world).len(), 3);
    eventually(SOON, "its source forgets it", || parcels(&world, "B") == 0);
    is_whole(&world);
    fleet.run("U", &["resume", "t1"]).ok();
    let host = if fleet.placed("t1")["host"] == fleet.id("A").as_str() { "A" } else { "B" };
    reads(&world, host, "second");
    is_ok(&world.run(host, READ_NOISE));
}

#[test]
fn guest_whose_source_dies_goes_on_when_all_has_come() {
    let (lan, world, store) = world("straight-dies");
    let (_plane, fleet, mut agents) = start(&lan, &world, LEASE_S);
    write(&world, "A", "first");
    store.hold(Some(PACKS));
    fleet.run("U", &["move", "t1", "--to", &fleet.id("B")]).ok();
    eventually(SOON, "all has come", || arriving(&world, "B")["left_chunks"] == 0);
    agents[0].kill();
    is_ok(&world.run("B", READ_NOISE));
    write(&world, "B", "second");
    store.hold(None);
    world.run("B", &["checkpoint", "t1"]).ok();
    assert!(arriving(&world, "B").is_null());
    // What the source still has is known to be there, when that comes back.
    assert_eq!(parcels(&world, "A"), 1);
    is_whole(&world);
    agents[0] = fleet.join("A");
    eventually(SOON, "its source forgets it", || parcels(&world, "A") == 0);
    assert_eq!(history(&world).iter().filter(|row| row["branch"].is_string()).count(), 0);
    reads(&world, "B", "second");
}

#[test]
fn guest_whose_source_dies_waits_and_says_what_is_missing() {
    let (lan, world, _store) = world("straight-lacks");
    let (_plane, fleet, mut agents) = start(&lan, &world, LEASE_S);
    write(&world, "A", "first");
    world.run("A", &["checkpoint", "t1"]).ok();
    write(&world, "A", "second");
    put_much(&world);
    // What the guest needs to go on comes soon; all of the rest would take minutes.
    lan.slow("A", "3mbit");
    fleet.run("U", &["move", "t1", "--to", &fleet.id("B"), "--timeout", "300"]).ok();
    agents[0].kill();
    let left = arriving(&world, "B")["left_chunks"].clone();
    assert!(left.is_null() || left.as_u64().unwrap() > 0, "{left}");

    // It is said what is missing, and nothing of it is stored as if it were whole.
    let (kind, why, hint) = world.run("B", &["checkpoint", "t1"]).error();
    assert_eq!(kind, "unavailable", "{why}");
    assert!(why.contains("only there") && hint.contains("--take-over"), "{why} {hint}");
    let mut reading = world.spawn("B", READ_MUCH);
    eventually(SOON, "it says what it waits for", || {
        let shown = world.run("B", &["inspect", "t1"]).ok();
        shown["state"] == "paused" && shown.to_string().contains("only there")
    });
    assert_eq!(reading.try_wait().unwrap(), None, "it read what nobody gave it");
    assert_eq!(history(&world).len(), 1, "the last durable checkpoint is the head");
    is_whole(&world);

    // With its source it goes on as if nothing had been.
    lan.quick("A");
    agents[0] = fleet.join("A");
    is_ok(&said(reading.wait_with_output().unwrap()));
    reads(&world, "B", "second");
    world.run("B", &["checkpoint", "t1"]).ok();
    eventually(SOON, "its source forgets it", || parcels(&world, "A") == 0);
    is_whole(&world);
}

/// More than comes in a minute on a slow line.
const READ_MUCH: &[&str] = &["exec", "t1", "--", "md5sum", "-c", "/tmp/much.sum"];

fn put_much(world: &World) {
    let script = "dd if=/dev/urandom of=/tmp/much bs=1M count=40 2>/dev/null; md5sum /tmp/much > /tmp/much.sum";
    world.exec("A", "t1", script);
}

#[test]
fn guest_that_nobody_takes_is_stored_by_its_source() {
    let (lan, world, _store) = world("straight-unclaimed");
    let (_plane, fleet, _agents) = start(&lan, &world, 600);
    write(&world, "A", "first");
    // Its next host is there and can be reached, and does not hear that it is to take it.
    lan.cut("P", "B");
    let moves = fleet.spawn("U", &["move", "t1", "--to", &fleet.id("B"), "--timeout", "300"]);
    eventually(SOON, "it has left", || parcels(&world, "A") == 1);
    eventually(SOON, "it is stored", || parcels(&world, "A") == 0);
    assert!(!runs(&world, "A") && !runs(&world, "B"));
    assert_eq!(world.state("U", "t1"), "suspended");
    is_whole(&world);
    lan.heal("P", "B");
    said(moves.wait_with_output().unwrap()).ok();
    reads(&world, "B", "first");
    is_ok(&world.run("B", READ_NOISE));
    assert!(arriving(&world, "B").is_null());
}

/// Whether `t1` runs on this host, by what is there.
fn runs(world: &World, host: &str) -> bool {
    let rows = world.run(host, &["ps", "--local"]).ok();
    let rows = rows.as_array().unwrap();
    rows.iter().any(|row| row["name"] == "t1" && row["state"] == "running")
}
