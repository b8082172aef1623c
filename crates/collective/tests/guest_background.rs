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
    world.run("A", &["suspend", "t1"]).ok();
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
}
