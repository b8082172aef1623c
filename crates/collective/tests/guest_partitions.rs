//! Any two of a plane, its state, its hosts, their repository and their peers cannot reach each other: real
//! ones, each with a network of its own, between which packets vanish without a word.
//!
//! In all of these a plane and the repository cannot reach each other from the beginning: they never need to.

#[path = "../../kv/tests/support/mod.rs"]
mod etcd;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/lan.rs"]
mod lan;
mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use etcd::{Cluster, Seat};
use fleet::Fleet;
use lan::Lan;
use s3_server::S3Server;
use support::{READ_NOISE, World, eventually, noise, said};

/// What a host may be away.
const LEASE_S: u32 = 6;
/// Long enough for what must come, whatever else the machine does.
const SOON: Duration = Duration::from_secs(180);
/// Lets the guest say on its console, again and again, that it runs.
const TICK: &str = "(while :; do echo tick > /dev/ttyS0; sleep 0.2; done >/dev/null 2>&1 &)";

/// A repository `R`, whoever asks `U`, planes and hosts.
fn world(name: &str, planes: &[&str], hosts: &[&str], others: &[&str]) -> (Lan, World, S3Server) {
    let lan = Lan::of_neighbours(&[&["R", "U"], planes, hosts, others].concat());
    planes.iter().for_each(|plane| lan.cut(plane, "R"));
    let with_key = [hosts, &["U"]].concat();
    let (world, store) = World::with_tiny_behind(name, &with_key, |world, folder| {
        let address = format!("{}:9000", lan.address("R"));
        let serve = || S3Server::start(folder, &["bucket"], &address).unwrap();
        (world.entered_by(lan.entrances()), lan.inside("R", serve))
    });
    (lan, world, store)
}

fn listen(lan: &Lan, plane: &str) -> String {
    format!("{}:7070", lan.address(plane))
}

fn await_agent(world: &World, host: &str) {
    eventually(SOON, "the guest's agent answers", || {
        world.run(host, &["exec", "t1", "--", "/bin/true"]).json()["exit_code"] == 0
    });
}

/// Whether `t1` runs on this host, by what is there.
fn runs(world: &World, host: &str) -> bool {
    // Without a repository, which may be out of reach: this host says what it knows.
    let mut ps = world.program(host);
    ps.env_remove("COLLECTIVE_REPO").args(["--json", "--repo", "/nowhere", "ps", "--local"]);
    let rows = said(ps.output().unwrap()).ok();
    let rows = rows.as_array().unwrap();
    rows.iter().any(|row| row["name"] == "t1" && row["state"] == "running")
}

/// Of `t1`, as its plane knows it.
fn generation(fleet: &Fleet<'_>) -> u64 {
    fleet.placed("t1")["generation"].as_u64().unwrap()
}

/// Waits until `t1` runs on `target`, at a generation after `before`. From then on it stands still on `source`: what it has said there by
/// then is all that it says, until the answer is called.
fn await_only_on<'a>(
    fleet: &Fleet<'a>,
    before: u64,
    target: &str,
    source: &'a str,
) -> impl Fn() + use<'a> {
    let world = fleet.world;
    eventually(SOON, &format!("it runs on {target}"), || runs(world, target));
    let said = world.console(source, "t1").len();
    assert!(!runs(world, source), "it runs on {source} too");
    eventually(SOON, "its plane knows", || {
        let now = generation(fleet);
        assert!(now >= before, "{now} after {before}");
        now > before && fleet.placed("t1")["host"] == fleet.id(target).as_str()
    });
    move || {
        assert!(!runs(world, source), "it runs on {source} too");
        // (What ended there has no console any more.)
        assert!(world.console(source, "t1").len() <= said, "it ran on {source} too");
    }
}

/// What the guest wrote on its disk and in its memory is in `t1` as it runs on this host, or in a branch.
fn is_kept(world: &World, host: &str, work: &str) {
    const LOOK: &str = "cat /data/work /tmp/work 2>/dev/null || true";
    let both = format!("{work}\n{work}");
    if world.exec(host, "t1", LOOK) == both {
        return;
    }
    let mut looked_at = Vec::new();
    eventually(SOON, &format!("{work} is kept"), || {
        let history = world.run(host, &["history", "t1"]).ok();
        let branches = history.as_array().unwrap().iter().filter(|row| row["branch"].is_string());
        let ids: Vec<_> = branches.map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids.into_iter().any(|id| {
            if looked_at.contains(&id) {
                return false;
            }
            world.run(host, &["fork", "t1", "--at", &id, "--name", "t2"]).ok();
            let found = world.exec(host, "t2", LOOK) == both;
            world.run(host, &["rm", "t2", "--force"]).ok();
            looked_at.push(id);
            found
        })
    });
}

fn write(world: &World, host: &str, work: &str) {
    world.exec(host, "t1", &format!("echo {work} > /data/work; cp /data/work /tmp/work; sync"));
}

fn await_ready(fleet: &Fleet<'_>, host: &str) {
    eventually(SOON, &format!("{host} is back"), || fleet.host(host)["state"] == "ready");
}

#[test]
fn guest_whose_host_is_cut_off_from_its_plane_runs_once_and_loses_nothing() {
    let (lan, world, _store) = world("cut-plane", &["P"], &["A", "B"], &[]);
    let (_plane, fleet) = Fleet::start_on(&world, "P", &listen(&lan, "P"), LEASE_S, &[]);
    let _agents = [fleet.join("A"), fleet.join("B")];
    fleet.await_hosts(2);
    let words = ["run", "tiny", "--name", "t1", "--on", &fleet.id("A"), "--restart", "on-failure"];
    fleet.run("U", &words).ok();
    await_agent(&world, "A");
    world.exec("A", "t1", TICK);

    // Nothing arrives in either direction; then only what the plane answers does not.
    for (host, other, work) in [("A", "B", "one"), ("B", "A", "two")] {
        write(&world, host, "stored");
        world.run(host, &["checkpoint", "t1"]).ok();
        write(&world, host, work);
        let before = generation(&fleet);
        lan.cut_one_way("P", host);
        if work == "one" {
            lan.cut(host, "P");
        }
        let only_there = await_only_on(&fleet, before, other, host);
        is_kept(&world, other, work);
        only_there();
        lan.heal("P", host);
        await_ready(&fleet, host);
        assert!(!runs(&world, host));
        await_agent(&world, other);
    }

    // It is back before anybody went on with it, or just then: in any case it is one, and all is there.
    write(&world, "A", "three");
    lan.cut("A", "P");
    eventually(SOON, "it is held", || !runs(&world, "A"));
    lan.heal("A", "P");
    let mut host = "";
    eventually(SOON, "it runs", || {
        let running = ["A", "B"].map(|host| runs(&world, host));
        host = if running[0] { "A" } else { "B" };
        running[0] != running[1]
    });
    is_kept(&world, host, "three");
    await_ready(&fleet, "A");
    let check = world.run("U", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}

#[test]
fn guest_of_a_host_that_nobody_reaches_runs_once_and_loses_nothing() {
    let (lan, world, _store) = world("cut-all", &["P"], &["A", "B"], &[]);
    let (_plane, fleet) = Fleet::start_on(&world, "P", &listen(&lan, "P"), LEASE_S, &[]);
    let _agents = [fleet.join("A"), fleet.join("B")];
    fleet.await_hosts(2);
    let words = ["run", "tiny", "--name", "t1", "--on", &fleet.id("B"), "--restart", "on-failure"];
    fleet.run("U", &words).ok();
    await_agent(&world, "B");
    world.exec("B", "t1", TICK);
    put_noise(&world, "B");
    fleet.run("U", &["move", "t1", "--to", &fleet.id("A")]).ok();
    write(&world, "A", "alone");

    // What it touches now is in the repository: it cannot even be stopped before it has that.
    let before = generation(&fleet);
    ["P", "R", "B"].iter().for_each(|other| lan.cut("A", other));
    let mut reading = world.spawn("A", READ_NOISE);
    let only_there = await_only_on(&fleet, before, "B", "A");
    // The repository comes back first: what the guest waited for is there, and it may not run.
    lan.heal("A", "R");
    is_kept(&world, "B", "alone");
    only_there();
    let _ = reading.kill();
    let _ = reading.wait();
    ["P", "B"].iter().for_each(|other| lan.heal("A", other));
    await_ready(&fleet, "A");
    assert!(!runs(&world, "A"));
    await_agent(&world, "B");
    is_ok(&world.run("B", READ_NOISE));
}

#[test]
fn guest_whose_plane_is_cut_off_from_its_state_goes_on_by_another_one_once() {
    let members = ["E0", "E1", "E2"];
    let (lan, world, _store) = world("cut-state", &["P", "Q"], &["A", "B"], &members);
    let seats = members.map(|member| Seat {
        words: lan.entrance(member).to_vec(),
        at: [2379, 2380].map(|port| (lan.address(member), port).into()),
    });
    let cluster = Cluster::of(&seats, "http", &[]);
    cluster.await_leader(|cluster| lan.inside("", || cluster.leader()));
    let state = ["--state", &cluster.location("plane")];
    let (_one, fleet) = Fleet::start_on(&world, "P", &listen(&lan, "P"), LEASE_S, &state);
    let (_two, beside) = Fleet::start_on(&world, "Q", &listen(&lan, "Q"), LEASE_S, &state);
    let _agents = [fleet.join("A"), beside.join("B")];
    fleet.await_hosts(2);
    let words = ["run", "tiny", "--name", "t1", "--on", &fleet.id("A"), "--restart", "on-failure"];
    fleet.run("U", &words).ok();
    await_agent(&world, "A");
    world.exec("A", "t1", TICK);
    world.run("A", &["checkpoint", "t1"]).ok();
    write(&world, "A", "alone");
    fleet.at("P", &["user", "add", "anna"]).ok();

    // A plane that reaches no state says so, and lets nobody run anything. (Its host would ask the other one.)
    let before = generation(&fleet);
    lan.cut("A", "Q");
    members.iter().for_each(|member| lan.cut("P", member));
    let only_there = await_only_on(&beside, before, "B", "A");
    // (So would who asks.)
    lan.cut("P", "Q");
    assert_eq!(fleet.at("P", &["user", "list"]).error().0, "unavailable");
    assert_eq!(fleet.at("P", &["user", "add", "nobody"]).error().0, "unavailable");
    lan.heal("P", "Q");
    beside.at("Q", &["user", "add", "berta"]).ok();
    is_kept(&world, "B", "alone");
    only_there();
    members.iter().for_each(|member| lan.heal("P", member));
    lan.heal("A", "Q");
    await_ready(&beside, "A");
    let users = |fleet: &Fleet<'_>, plane: &str| {
        let users = fleet.at(plane, &["user", "list"]).ok();
        let users = users.as_array().unwrap().iter();
        users.map(|user| user["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // (What was sent before it was cut may still arrive: nobody was told that it was done, or not.)
    eventually(SOON, "both say the same", || {
        let both = [users(&fleet, "P"), users(&beside, "Q")];
        let has = |user: &str| both.iter().all(|users| users.iter().any(|known| known == user));
        assert!(has("anna") && has("berta"), "{both:?}");
        both[0] == both[1]
    });
    fleet.at("P", &["audit", "verify"]).ok();

    // Of the members one is alone, and it leads: guests run on, and what is wished is done.
    let leader = cluster.await_leader(|cluster| lan.inside("", || cluster.leader()));
    let others = || (0..3).filter(|other| *other != leader).map(|other| members[other]);
    others().for_each(|other| lan.cut(members[leader], other));
    eventually(SOON, "it is written", || {
        let said = fleet.at("P", &["user", "add", "clara"]);
        said.code == 0 || said.error().0 == "exists"
    });
    eventually(SOON, "it moves", || {
        let to_a = ["move", "t1", "--to", &fleet.id("A")];
        beside.run("U", &to_a).code == 0
    });
    assert!(!runs(&world, "B"));
    await_agent(&world, "A");
    others().for_each(|other| lan.heal(members[leader], other));
    beside.at("Q", &["audit", "verify"]).ok();
}

/// Puts what no compression makes smaller into the guest's memory.
fn put_noise(world: &World, host: &str) {
    let mut put =
        world.command(host, &["exec", "-i", "t1", "--", "/bin/sh", "-c", "cat > /tmp/noise"]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&noise()).unwrap();
    said(put.wait_with_output().unwrap()).ok();
    world.exec(host, "t1", "md5sum /tmp/noise > /tmp/sum");
}

fn is_ok(read: &support::Said) {
    assert_eq!(read.code, 0, "{read:?}");
    assert!(read.json()["stdout"].as_str().unwrap().contains("OK"), "{read:?}");
}

#[test]
fn guest_whose_host_is_cut_off_from_the_repository_waits_and_goes_on() {
    let (lan, world, _store) = world("cut-repo", &["P"], &["A", "B"], &[]);
    let (_plane, fleet) = Fleet::start_on(&world, "P", &listen(&lan, "P"), LEASE_S, &[]);
    // What one has is of no use to the other.
    lan.cut("A", "B");
    let _agents = [fleet.join("A"), fleet.join("B")];
    fleet.await_hosts(2);
    let (a, b) = (fleet.id("A"), fleet.id("B"));
    let words = ["run", "tiny", "--name", "t1", "--on", &a, "--restart", "on-failure"];
    fleet.run("U", &words).ok();
    await_agent(&world, "A");
    put_noise(&world, "A");
    write(&world, "A", "first");

    // It goes to a host that is cut off while it fetches: it waits there, and nobody takes it away.
    fleet.run("U", &["move", "t1", "--to", &b]).ok();
    lan.cut("B", "R");
    let before = generation(&fleet);
    let mut reading = world.spawn("B", READ_NOISE);
    std::thread::sleep(Duration::from_secs(2 * u64::from(LEASE_S)));
    assert_eq!(reading.try_wait().unwrap(), None, "it read what nobody gave it");
    assert_eq!((&fleet.placed("t1")["host"], generation(&fleet)), (&b.as_str().into(), before));
    lan.heal("B", "R");
    is_ok(&said(reading.wait_with_output().unwrap()));
    write(&world, "B", "second");

    // What is to be stored cannot be: the guest runs on, and goes when it can.
    lan.cut("B", "R");
    let late = fleet.run("U", &["move", "t1", "--to", &a, "--timeout", "5"]);
    assert_eq!(late.error().0, "timeout", "{late:?}");
    assert!(!runs(&world, "A"));
    lan.heal("B", "R");
    eventually(SOON, "it has gone", || fleet.placed("t1")["host"] == a.as_str());
    await_agent(&world, "A");
    assert_eq!(world.exec("A", "t1", "cat /data/work /tmp/work"), "second\nsecond");
    is_ok(&world.run("A", READ_NOISE));

    // The host that is to have it cannot read: it sleeps in the repository until somebody can.
    lan.cut("B", "R");
    let late = fleet.run("U", &["move", "t1", "--to", &b, "--timeout", "5"]);
    assert_eq!(late.error().0, "timeout", "{late:?}");
    lan.heal("B", "R");
    eventually(SOON, "it runs there", || runs(&world, "B"));
    assert!(!runs(&world, "A"));
    await_agent(&world, "B");
    assert_eq!(world.exec("B", "t1", "cat /data/work /tmp/work"), "second\nsecond");
    is_ok(&world.run("B", READ_NOISE));
    assert!(generation(&fleet) > before);
}

#[test]
fn guest_whose_host_is_cut_off_from_its_peers_reads_from_the_repository() {
    let (lan, world, _store) = world("cut-peer", &["P"], &["A", "B", "C"], &[]);
    let (_plane, fleet) = Fleet::start_on(&world, "P", &listen(&lan, "P"), LEASE_S, &[]);
    let _agents = ["A", "B", "C"].map(|host| fleet.join(host));
    fleet.await_hosts(3);
    let told = |host: &str| {
        let file = world.host(host).join("plane/peers.json");
        eventually(SOON, "it knows its peers", || {
            let said = std::fs::read(&file).unwrap_or_default();
            let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
            said["peers"].as_array().map_or(0, Vec::len) == 2
        });
    };
    ["A", "B", "C"].iter().for_each(|host| told(host));
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    put_noise(&world, "A");
    write(&world, "A", "here");
    world.run("A", &["suspend", "t1"]).ok();

    // From the beginning: nobody is missed.
    lan.cut("B", "A");
    lan.cut("B", "C");
    let there = world.run("B", &["resume", "t1"]).ok();
    assert_eq!(there["peer_bytes"], 0, "{there}");
    is_ok(&world.run("B", READ_NOISE));
    assert_eq!(world.exec("B", "t1", "cat /data/work /tmp/work"), "here\nhere");
    world.run("B", &["suspend", "t1"]).ok();

    // In the middle: connections that are open say nothing any more.
    let there = world.run("C", &["resume", "t1"]).ok();
    assert!(there["peer_bytes"].as_u64().unwrap() > 0, "{there}");
    lan.cut("C", "A");
    lan.cut("C", "B");
    is_ok(&world.run("C", READ_NOISE));
    assert_eq!(world.exec("C", "t1", "cat /data/work /tmp/work"), "here\nhere");
    write(&world, "C", "there");
    world.run("C", &["suspend", "t1"]).ok();

    // When they are back they are asked again.
    for (one, other) in [("A", "B"), ("B", "C"), ("C", "A")] {
        lan.heal(one, other);
    }
    let mut peer_bytes = 0;
    eventually(SOON, "a peer gives something", || {
        peer_bytes += world.run("A", &["resume", "t1"]).ok()["peer_bytes"].as_u64().unwrap();
        assert_eq!(world.exec("A", "t1", "cat /data/work /tmp/work"), "there\nthere");
        world.run("A", &["suspend", "t1"]).ok();
        peer_bytes > 0
    });
}
