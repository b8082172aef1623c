//! What goes wrong while real guests run: nothing acknowledged is lost, nothing wrong is shown.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::surgery::packs;
use support::{READ_NOISE, Small, World, appliance, eventually, said};

#[test]
fn guest_whose_shim_is_killed_keeps_what_it_flushed() {
    let world = World::with_tiny("kill-shim");
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.exec("A", "t1", "echo one > /data/one; sync");
    world.run("A", &["checkpoint", "t1"]).ok();
    world.exec("A", "t1", "echo two > /data/two; sync");
    world.kill("A", "t1", false);
    world.await_state("A", "t1", "failed");
    let (kind, _, hint) = world.run("A", &["exec", "t1", "--", "true"]).error();
    assert_eq!(kind, "state");
    assert!(hint.contains("resume"), "{hint}");
    let resumed = world.run("A", &["resume", "t1"]).ok();
    assert_eq!(resumed["how"], "booted");
    assert_eq!(world.exec("A", "t1", "cat /data/one /data/two"), "one\ntwo");

    // The same for QEMU; and undo goes back to the checkpoint instead.
    world.kill("A", "t1", true);
    world.await_state("A", "t1", "failed");
    let undone = world.run("A", &["undo", "t1"]).ok();
    assert!(!undone["branch"].is_null(), "what was written since is kept: {undone}");
    world.run("A", &["resume", "t1"]).ok();
    assert_eq!(world.exec("A", "t1", "cat /data/one; ls /data | grep -c two || true"), "one\n0");
}

#[test]
fn guest_taken_over_fences_its_old_host_out() {
    let world = World::with_nano("take-over");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    world.run("A", &["checkpoint", "n1"]).ok();
    world.type_in("A", "n1", "abc\r");
    world.run("B", &["resume", "n1", "--take-over"]).ok();
    // A learns of it when it wants to move the head; its work is kept.
    let (kind, message, hint) = world.run("A", &["suspend", "n1"]).error();
    assert_eq!(kind, "fenced", "{message}");
    assert!(hint.contains("fork n1 --at"), "{hint}");
    assert_eq!(world.state("B", "n1"), "running");
    let at = hint.split("--at ").nth(1).unwrap().split('`').next().unwrap();
    world.run("A", &["fork", "n1", "--at", at, "--name", "rescued"]).ok();
    world.type_in("A", "rescued", "d\r");
    world.await_console("A", "rescued", "keys=4");
}

#[test]
fn guest_of_a_dead_host_leaves_a_branch_when_it_was_taken_over() {
    let world = World::with_tiny("dead-host");
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.run("A", &["checkpoint", "t1"]).ok();
    world.exec("A", "t1", "echo unsaved > /data/unsaved; sync");
    world.kill("A", "t1", false);
    world.run("B", &["resume", "t1", "--take-over"]).ok();
    world.run("B", &["suspend", "t1"]).ok();
    // A comes back: it goes on from B's work, and its own is a branch.
    world.run("A", &["resume", "t1"]).ok();
    assert_eq!(world.exec("A", "t1", "ls /data | grep -c unsaved || true"), "0");
    let history = world.run("A", &["history", "t1"]).ok();
    let branch = history.as_array().unwrap().iter().find(|line| !line["branch"].is_null());
    let branch = branch.expect("a branch")["id"].as_str().unwrap().to_owned();
    world.run("A", &["fork", "t1", "--at", &branch, "--name", "t2"]).ok();
    assert_eq!(world.exec("A", "t2", "cat /data/unsaved"), "unsaved");
}

#[test]
fn guest_resumed_by_two_hosts_at_once_runs_on_one() {
    let world = World::with_nano("race");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    for _ in 0..3 {
        let host = if world.run("A", &["suspend", "n1"]).code == 0 { "A" } else { "B" };
        if host == "B" {
            world.run("B", &["suspend", "n1"]).ok();
        }
        let both = [world.spawn("A", &["resume", "n1"]), world.spawn("B", &["resume", "n1"])];
        let both = both.map(|child| said(child.wait_with_output().unwrap()));
        let won = both.iter().filter(|said| said.code == 0).count();
        assert_eq!(won, 1, "{both:?}");
        let lost = both.iter().find(|said| said.code != 0).unwrap();
        assert_eq!(lost.error().0, "lease");
    }
}

#[test]
fn guest_waits_while_its_repository_is_away() {
    let world = World::with_noisy_sleeper("vanish");
    world.run("B", &["resume", "t1"]).ok();
    let away = world.root().join("away");
    fs::rename(world.repository(), &away).unwrap();
    let reading = world.spawn("B", READ_NOISE);
    // The repository is asked for nothing here: `ps` of what is on the host still works.
    eventually(Duration::from_secs(60), "ps says what the guest waits for", || {
        let rows = world.run("B", &["ps"]).ok();
        let note = rows[0]["note"].as_str().unwrap_or_default().to_owned();
        rows[0]["state"] == "paused" && note.contains("page") && note.contains("ram")
    });
    fs::rename(&away, world.repository()).unwrap();
    let read = said(reading.wait_with_output().unwrap());
    assert_eq!(read.code, 0, "{read:?}");
    assert!(read.json()["stdout"].as_str().unwrap().contains("OK"), "{read:?}");
    world.await_state("B", "t1", "running");
}

#[test]
fn guest_is_never_fed_a_damaged_page() {
    let world = World::with_noisy_sleeper("damage");
    world.run("B", &["resume", "t1"]).ok();
    // One bit in every kilobyte of every pack: nothing of it can be what it says.
    let mut saved = Vec::new();
    for pack in packs(Path::new(&world.repository())) {
        let whole = fs::read(&pack).unwrap();
        let mut damaged = whole.clone();
        damaged.iter_mut().step_by(1024).for_each(|byte| *byte ^= 0x10);
        fs::write(&pack, damaged).unwrap();
        saved.push((pack, whole));
    }
    let reading = world.spawn("B", READ_NOISE);
    eventually(Duration::from_secs(60), "the guest is paused, and ps names the page", || {
        let row = world.row_without_repository("B", "t1");
        row["state"] == "paused"
            && row["note"].as_str().is_some_and(|note| note.contains("damaged"))
    });
    let check = world.run("A", &["repo", "check", "--read-data"]);
    assert_eq!(check.code, 1);
    assert_eq!(check.json()["ok"], false);
    for (pack, whole) in saved {
        fs::write(pack, whole).unwrap();
    }
    let read = said(reading.wait_with_output().unwrap());
    assert_eq!(read.code, 0, "{read:?}");
    assert!(read.json()["stdout"].as_str().unwrap().contains("OK"), "{read:?}");
}

#[test]
fn guest_goes_on_when_the_repository_is_full() {
    let world = World::empty("full");
    let folder = PathBuf::from(world.repository());
    fs::create_dir_all(&folder).unwrap();
    let small = Small::mount(&folder, 3 << 20);
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.run("A", &["build", &appliance("nano")]).ok();
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    world.type_in("A", "n1", "abc\r");
    small.fill(64 << 10);
    let (kind, message, _) = world.run("A", &["suspend", "n1"]).error();
    assert_eq!(kind, "no_space", "{message}");
    assert_eq!(world.state("A", "n1"), "running");
    world.type_in("A", "n1", "d\r");
    world.await_console("A", "n1", "keys=4");
    small.resize(16 << 20);
    world.run("A", &["suspend", "n1"]).ok();
    world.run("A", &["resume", "n1"]).ok();
    world.type_in("A", "n1", "e\r");
    world.await_console("A", "n1", "keys=5");
    world.run("A", &["rm", "n1", "--force"]).ok();
}

#[test]
fn guest_survives_a_killed_command_in_the_middle_of_every_verb() {
    let world = World::with_nano("kill-cli");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    let verbs: [&[&str]; 5] = [
        &["checkpoint", "n1"],
        &["suspend", "n1"],
        &["resume", "n1"],
        &["fork", "n1", "--no-start"],
        &["stop", "n1", "--force"],
    ];
    for (round, verb) in verbs.iter().cycle().take(15).enumerate() {
        let mut child = world.spawn("A", verb);
        std::thread::sleep(Duration::from_millis(13 * round as u64));
        support::kill_9(child.id().into());
        let _ = child.wait();
        // The shim finishes what it was asked; then the instance is there, and the next command
        // works.
        eventually(Duration::from_secs(60), "the guest answers", || {
            match world.state("A", "n1").as_str() {
                "suspended" | "stopped" => {
                    world.run("A", &["resume", "n1"]);
                    false
                }
                "running" => {
                    let before = world.console("A", "n1").len();
                    world.try_type_in("A", "n1", "x\r");
                    world.console("A", "n1").get(before..).is_some_and(|new| new.contains("keys="))
                }
                other => panic!("{other} after {verb:?}"),
            }
        });
    }
    world.run("A", &["rm", "n1", "--force"]).ok();
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}
