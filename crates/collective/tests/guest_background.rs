//! What a host does for its guests in the background, with real guests.

mod support;

use std::fs;
use std::time::Duration;

use support::{World, eventually};

/// Most of this lies in memory and on disk, and nothing looks at it by itself.
const FILL: &str = "dd if=/dev/urandom of=/tmp/blob bs=1M count=24 2>/dev/null; \
    dd if=/dev/urandom of=/data/blob bs=1M count=8 2>/dev/null; sync; \
    echo 3 > /proc/sys/vm/drop_caches; md5sum /tmp/blob /data/blob > /tmp/sum; \
    echo 3 > /proc/sys/vm/drop_caches";

#[test]
fn guest_goes_on_without_its_repository_once_it_is_scrubbed() {
    let world = World::with_tiny("scrub");
    assert_eq!(world.run("A", &["config"]).ok()["scrub"], "on");
    world.run("A", &["config", "scrub", "off"]).ok();
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.exec("A", "t1", FILL);
    assert_eq!(world.run("A", &["inspect", "t1"]).ok()["scrub"]["state"], "off");
    // As before the machine is shut down.
    let rested = world.run("A", &["host", "suspend", "--within", "120"]).ok();
    assert_eq!(rested, serde_json::json!([{"name": "t1", "suspended": true, "error": null}]));
    assert_eq!(world.state("A", "t1"), "suspended");

    assert!(world.run("A", &["inspect", "t1"]).ok()["scrub"].is_null(), "it does not run");

    world.run("B", &["resume", "t1"]).ok();
    eventually(Duration::from_secs(120), "the scrub is done", || {
        world.run("B", &["inspect", "t1"]).ok()["scrub"]["state"] == "done"
    });
    let scrub = world.run("B", &["inspect", "t1"]).ok()["scrub"].clone();
    assert_eq!(scrub["percent"], 100, "{scrub}");
    assert_eq!(scrub["missing_bytes"], 0, "{scrub}");
    assert!(scrub["fetched_bytes"].as_u64().unwrap() > 30 << 20, "{scrub}");

    // The host goes offline: everything is read for the first time here.
    let away = world.root().join("away");
    fs::rename(world.repository(), &away).unwrap();
    let read = world.exec("B", "t1", "md5sum -c /tmp/sum");
    assert_eq!(read.matches("OK").count(), 2, "{read}");
    world.exec("B", "t1", "echo offline > /data/note; sync");
    assert_eq!(world.row_without_repository("B", "t1")["state"], "running");
    // What would have to reach the repository fails, and the guest goes on.
    let (kind, message, _) = world.run("B", &["suspend", "t1"]).error();
    assert!(["repository", "unavailable", "io"].contains(&kind.as_str()), "{kind}: {message}");
    assert_eq!(world.exec("B", "t1", "cat /data/note"), "offline");
    fs::rename(&away, world.repository()).unwrap();
    world.run("B", &["suspend", "t1"]).ok();
    world.run("A", &["resume", "t1"]).ok();
    assert_eq!(
        world.exec("A", "t1", "cat /data/note; md5sum -c /tmp/sum | grep -c OK"),
        "offline\n2"
    );

    // What it boots from is here too, although it went on from memory and touched hardly any of it.
    world.run("A", &["suspend", "t1"]).ok();
    world.run("B", &["resume", "t1"]).ok();
    eventually(Duration::from_secs(120), "the scrub is done", || {
        world.run("B", &["inspect", "t1"]).ok()["scrub"]["state"] == "done"
    });
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let before = world.exec("B", "t1", boot);
    fs::rename(world.repository(), &away).unwrap();
    world.run("B", &["exec", "t1", "--", "sh", "-c", "(sleep 1; reboot -f) >/dev/null 2>&1 &"]);
    eventually(Duration::from_secs(120), "it has started anew", || {
        let now = world.run("B", &["exec", "t1", "--", "sh", "-c", boot]);
        now.code == 0 && now.ok()["stdout"].as_str().is_some_and(|now| now.trim() != before)
    });
    assert_eq!(world.exec("B", "t1", "cat /data/note"), "offline");
    fs::rename(&away, world.repository()).unwrap();
}

/// What `inspect` says of the start, once its recording has ended and the version has learned, or
/// as it stands.
fn trace(world: &World, host: &str, name: &str) -> (u64, u64, u64, u64) {
    let trace = world.run(host, &["inspect", name]).ok()["trace"].clone();
    let field = |name: &str| trace[name].as_u64().unwrap_or_else(|| panic!("{trace}"));
    (field("recorded"), field("prefetched"), field("hits"), field("misses"))
}

#[test]
fn guest_finds_what_its_last_start_touched() {
    let hosts = ["A", "B", "C", "D"];
    let (world, server) = World::with_tiny_on_s3("trace", &hosts);
    for host in hosts {
        // Only what is asked for and what is foreseen comes.
        world.run(host, &["config", "scrub", "off"]).ok();
    }
    let refs = || fs::read_dir(world.root().join("s3/bucket/repository/refs")).unwrap().count();
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.run("A", &["suspend", "t1"]).ok();
    // Every request takes its time where somebody waits for pages, and only there.
    let slow = || server.delay(Duration::from_millis(25));
    let quick = || server.delay(Duration::ZERO);
    slow();

    // Nobody knows what it will touch: it waits for every frame.
    let before = refs();
    let cold = world.run("B", &["resume", "t1"]).ok();
    let (recorded, prefetched, hits, waited) = trace(&world, "B", "t1");
    assert!(recorded > 500 && waited > 100, "{recorded} {waited}");
    assert_eq!((prefetched, hits), (0, 0));
    // A moment after it was ready, its version has learned.
    eventually(Duration::from_secs(60), "the version learns", || refs() > before);
    quick();
    world.run("B", &["suspend", "t1"]).ok();

    // On a third host, which has nothing, it comes ahead of the guest.
    slow();
    let warm = world.run("C", &["resume", "t1"]).ok();
    let (recorded, prefetched, hits, missed) = trace(&world, "C", "t1");
    println!("waited for {waited} pages before, {missed} with a trace: {cold} {warm}");
    assert!(prefetched > 500 && hits > 500, "{recorded} {prefetched} {hits} {missed}");
    assert!(missed * 3 < waited, "{missed} of {waited}");

    // Another instance, that was never resumed, uses what its version knows.
    quick();
    world.run("A", &["run", "tiny", "--name", "t2"]).ok();
    world.run("A", &["suspend", "t2"]).ok();
    slow();
    world.run("D", &["resume", "t2"]).ok();
    let (_, prefetched, hits, missed) = trace(&world, "D", "t2");
    println!("another instance: {prefetched} came ahead, {hits} in time, waited for {missed}");
    assert!(prefetched > 300 && hits > 300, "{prefetched} {hits}");

    // Where everything is here already there is nothing to do, and no repository is asked what. How
    // much lies ready is a race with QEMU's start, that a busy machine may lose once.
    let placed = (0..4).any(|_| {
        quick();
        world.run("C", &["suspend", "t1"]).ok();
        slow();
        world.run("C", &["resume", "t1"]).ok();
        let (recorded, prefetched, _, missed) = trace(&world, "C", "t1");
        assert!(prefetched < 200 && missed < 20, "{prefetched} {missed}");
        let placed = world.run("C", &["inspect", "t1"]).ok()["trace"]["placed"].as_u64().unwrap();
        println!("here: {placed} of {recorded} lay ready, {prefetched} were fetched");
        placed > 300
    });
    assert!(placed, "it lies in the kernel's cache before QEMU opens it");
    quick();
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}

#[test]
fn guest_gives_free_memory_back_and_it_is_not_stored() {
    let world = World::with_tiny("reporting");
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.run("A", &["checkpoint", "t1"]).ok();
    let write = "dd if=/dev/urandom of=/tmp/blob bs=1M count=32 2>/dev/null";
    world.exec("A", "t1", write);
    let kept = world.run("A", &["checkpoint", "t1"]).ok();
    assert!(kept["dirty_bytes"].as_u64().unwrap() >= 32 << 20, "{kept}");
    world.exec("A", "t1", "rm /tmp/blob");
    let freed = || {
        let shown = world.run("A", &["inspect", "t1"]).ok();
        assert_eq!(shown["volumes"][0]["name"], "ram", "{shown}");
        shown["volumes"][0]["freed_bytes"].as_u64().unwrap()
    };
    eventually(Duration::from_secs(60), "the guest gives back what it freed", || {
        freed() >= 24 << 20
    });
    // Written, deleted and given back between two checkpoints: only what it left behind is stored.
    world.run("A", &["checkpoint", "t1"]).ok();
    assert!(freed() < 4 << 20);
    world.exec("A", "t1", &format!("{write}; rm /tmp/blob"));
    eventually(Duration::from_secs(60), "the guest gives it back again", || freed() >= 24 << 20);
    let taken = world.run("A", &["checkpoint", "t1"]).ok();
    println!("of 32 MiB written and freed, a checkpoint has {}", taken["dirty_bytes"]);
    assert!(taken["dirty_bytes"].as_u64().unwrap() < 16 << 20, "{taken}");
    // And it goes on elsewhere.
    world.run("A", &["suspend", "t1"]).ok();
    world.run("B", &["resume", "t1"]).ok();
    assert_eq!(world.exec("B", "t1", &format!("{write} && echo written")), "written");
}
