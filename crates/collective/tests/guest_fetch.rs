//! What a new version takes on the way to its users: which one, how fast, and after an interruption.

#[path = "support/market.rs"]
mod market;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use market::{Market, files_below, larger, noise, same};
use support::eventually;

/// A version that may not be left out is had first, also by who asks for a later one.
#[test]
fn guest_is_led_over_a_version_that_may_not_be_left_out() {
    let market = Market::new("least");
    let world = &market.world;
    let other = |text: String| text.replace("memory: 16MiB", "memory: 20MiB");
    market.publish("1", same, &[]);
    market.trusts("A");
    world.run("A", &["run", "acme/nano:stable", "--name", "n1"]).ok();
    world.await_console("A", "n1", "boots=1");
    market.publish("2", larger, &[]);
    market.publish("3", other, &["--least", "2"]);
    for more in [&["--check"][..], &["--check", "--to", "3"]] {
        let check = world.run("A", &[&["update", "n1"], more].concat()).ok();
        assert_eq!((&check["from"], &check["to"]), (&"1".into(), &"2".into()), "{check}");
    }
    for (version, boots) in [("2", "boots=2"), ("3", "boots=3")] {
        let updated = world.run("A", &["update", "n1", "--force"]).ok();
        assert_eq!((&updated["to"], &updated["applied"]), (&version.into(), &true.into()));
        world.await_console("A", "n1", boots);
        assert_eq!(market.version("A", "n1"), version);
    }
    // Who begins with it has not had any other.
    world.run("A", &["run", "acme/nano@3", "--name", "n2"]).ok();
    assert_eq!(market.version("A", "n2"), "3");
}

const MIB: u64 = 1 << 20;

#[test]
fn guest_fetches_no_faster_than_was_said_and_goes_on_where_it_was_interrupted() {
    let market = Market::new("rate");
    let world = &market.world;
    let files = world.root().join("files");
    fs::create_dir_all(&files).unwrap();
    let publish = |version: &str, content: &[u8], more: &[&str]| {
        fs::write(files.join("content"), content).unwrap();
        market.publish_disk(version, &files, more)
    };
    publish("1", b"little", &[]);
    market.trusts("A");
    world.run("A", &["run", "acme/work", "--name", "d1", "--no-wait"]).ok();
    world.run("A", &["stop", "d1", "--force"]).ok();
    // Pages, and then what differs.
    // Of the latter so much that it is more than one part.
    for (version, content, more, kept, halves) in [
        ("2", noise(6 << 20, 1), &["--no-delta"][..], ".chunks", 5),
        ("3", noise(7 << 20, 2), &[], "/documents/", 7),
    ] {
        let published = publish(version, &content, more);
        let has_delta = published["delta_bytes"].as_u64().unwrap() > 0;
        assert_eq!(has_delta, more.is_empty(), "{published}");
        let before = held(&world.host("A"), kept);
        let began = Instant::now();
        let mut fetch = world.spawn("A", &["update", "d1", "--fetch", "--rate", "512KiB"]);
        eventually(Duration::from_secs(60), "a part of it is here", || {
            held(&world.host("A"), kept) > before + halves * MIB / 2
        });
        let took = began.elapsed();
        fetch.kill().unwrap();
        fetch.wait().unwrap();
        assert!(took > Duration::from_secs(2), "{version}: {halves} times 512 KiB in {took:?}");

        let began = Instant::now();
        let rest = world.run("A", &["update", "d1", "--fetch", "--rate", "2MiB"]).ok();
        let (took, bytes) = (began.elapsed(), rest["fetched_bytes"].as_u64().unwrap());
        let all = content.len() as u64;
        assert!(bytes < all - MIB, "{version}: {bytes} of {all}; {rest}");
        // What came last is not waited for.
        let least = bytes.saturating_sub(5 * MIB / 2) as f64 / (2 * MIB) as f64;
        assert!(took > Duration::from_secs_f64(least), "{version}: {bytes} in {took:?}");
        let again = world.run("A", &["update", "d1", "--fetch"]).ok();
        assert!(again["fetched_bytes"].as_u64().unwrap() < 64 << 10, "{again}");
        let started = world.run("A", &["resume", "d1"]).ok();
        assert_eq!(started["update"]["to"], version, "{started}");
        world.run("A", &["stop", "d1", "--force"]).ok();
        let copy = market.path(&format!("copy-{version}"));
        world.run("A", &["cp", "d1:/content", &copy]).ok();
        assert!(fs::read(copy).unwrap() == content, "{version}: another content");
    }
}

/// What a host keeps in files whose paths have this in them, bytes.
fn held(host: &Path, what: &str) -> u64 {
    let files = files_below(host).into_iter().filter(|path| path.to_string_lossy().contains(what));
    let files = files.filter_map(|path| fs::symlink_metadata(path).ok());
    files.map(|metadata| metadata.blocks() * 512).sum()
}
