//! Checkpoints that are taken by themselves, with a guest: taken, thinned out, gone on from.

mod support;

use std::fs;
use std::time::Duration;

use serde_json::Value;
use support::{World, eventually};

fn history(world: &World, name: &str) -> Vec<Value> {
    world.run("A", &["history", name]).ok().as_array().unwrap().clone()
}

fn autos(world: &World, name: &str) -> Vec<Value> {
    history(world, name).into_iter().filter(|line| line["auto"] == true).collect()
}

/// Waits until one was taken that has all that the guest did until now.
fn await_another(world: &World, name: &str) {
    let known: Vec<Value> = autos(world, name).iter().map(|line| line["id"].clone()).collect();
    for _ in 0..2 {
        eventually(Duration::from_secs(30), "another automatic checkpoint", || {
            autos(world, name).first().is_some_and(|line| !known.contains(&line["id"]))
        });
    }
}

#[test]
fn guest_of_a_dead_host_goes_on_from_its_last_automatic_checkpoint() {
    let world = World::with_nano("auto-killed");
    let every = ["run", "nano", "--name", "n1", "--every", "1s", "--keep", "last=3"];
    world.run("A", &every).ok();
    world.type_in("A", "n1", "abcd");
    await_another(&world, "n1");
    let lines = history(&world, "n1");
    assert_eq!((&lines[0]["why"], &lines[0]["head"]), (&"auto".into(), &true.into()), "{lines:?}");
    assert!(lines[0]["pause_ms"].as_f64().unwrap() > 0.0, "{lines:?}");
    // More are taken than are kept: three, and the one that the volumes here are based on.
    eventually(Duration::from_secs(30), "the first ones are thinned out", || {
        let now = autos(&world, "n1");
        assert!(now.len() <= 4, "{now:?}");
        now.iter().all(|line| lines.iter().all(|before| before["id"] != line["id"]))
    });
    let auto = &world.run("A", &["inspect", "n1"]).ok()["auto"];
    assert_eq!((&auto["every_s"], &auto["said_by"]), (&1.into(), &"instance".into()), "{auto}");

    world.kill("A", "n1", false);
    let held = autos(&world, "n1")[0]["id"].clone();
    let resumed = world.run("B", &["resume", "n1", "--take-over"]).ok();
    assert_eq!(resumed["how"], "continued");
    world.type_in("B", "n1", "\r");
    world.await_console("B", "n1", "keys=4");
    // B goes on as the instance says, and what A may have written on top of stays.
    await_another(&world, "n1");
    await_another(&world, "n1");
    await_another(&world, "n1");
    await_another(&world, "n1");
    assert!(autos(&world, "n1").iter().any(|line| line["id"] == held), "{held}");
    // A comes back: its disks had nothing new, and it is told where the instance is.
    assert_eq!(world.run("A", &["resume", "n1"]).error().0, "lease");

    world.run("B", &["suspend", "n1"]).ok();
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}

/// The maker's word holds where its user says nothing, also against the host's.
#[test]
fn guest_is_checkpointed_as_its_maker_says() {
    let world = World::empty("auto-maker");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let folder = world.root().join("saved");
    fs::create_dir(&folder).unwrap();
    let nano = std::path::PathBuf::from(support::appliance("nano"));
    fs::copy(nano.join("nano.img"), folder.join("nano.img")).unwrap();
    let recipe = fs::read_to_string(nano.join("appliance.yaml")).unwrap();
    let policy = "checkpoints: {every: 1s, dirtied: 64MiB, keep: {last: 2}}\n";
    fs::write(folder.join("appliance.yaml"), recipe + policy).unwrap();
    world.run("A", &["build", &folder.to_string_lossy()]).ok();
    world.run("A", &["config", "auto", "1d,last=1"]).ok();
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    await_another(&world, "n1");
    let auto = |name| world.run("A", &["inspect", name]).ok()["auto"].clone();
    let said = auto("n1");
    assert_eq!((&said["every_s"], &said["said_by"]), (&1.into(), &"maker".into()), "{said}");
    assert_eq!((&said["dirtied_bytes"], &said["keep"]), (&(64 << 20).into(), &"last=2".into()));
    // What its user changes is the user's, the rest stays; and back.
    world.run("A", &["run", "nano", "--name", "n2", "--every", "1h"]).ok();
    let said = auto("n2");
    assert_eq!((&said["every_s"], &said["said_by"]), (&3600.into(), &"instance".into()), "{said}");
    assert_eq!((&said["dirtied_bytes"], &said["keep"]), (&(64 << 20).into(), &"last=2".into()));
    let said = world.run("A", &["checkpoint", "n2", "--every", "default"]).ok();
    assert_eq!((&said["every_s"], &said["said_by"]), (&1.into(), &"maker".into()), "{said}");
    let said = world.run("A", &["checkpoint", "n1", "--every", "off"]).ok();
    assert_eq!((&said["every_s"], &said["said_by"]), (&Value::Null, &"instance".into()), "{said}");
}

#[test]
fn guest_that_writes_much_is_checkpointed_sooner() {
    let world = World::with_tiny("auto-dirtied");
    world.run("A", &["run", "tiny", "--name", "t1", "--every", "1d", "--dirtied", "4MiB"]).ok();
    for round in ["one", "two"] {
        let known = autos(&world, "t1").len();
        world.exec("A", "t1", &format!("head -c 8000000 /dev/urandom > /data/{round}; sync"));
        eventually(Duration::from_secs(20), "one is taken", || autos(&world, "t1").len() > known);
    }
    world.run("A", &["checkpoint", "t1", "--dirtied", "off"]).ok();
    let known = autos(&world, "t1").len();
    world.exec("A", "t1", "head -c 8000000 /dev/urandom > /data/three; sync");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(autos(&world, "t1").len(), known);
}

#[test]
fn guest_undo_means_what_somebody_took_and_keeps_automatic_checkpoints() {
    let world = World::with_nano("auto-undo");
    world.run("A", &["config", "auto", "1s,last=9"]).ok();
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    // Nobody has taken one yet: `undo` says how automatic ones are named.
    await_another(&world, "n1");
    let (kind, _, hint) = world.run("A", &["undo", "n1"]).error();
    assert_eq!(kind, "not_found");
    assert!(hint.contains("10 minutes ago"), "{hint}");

    world.type_in("A", "n1", "ab");
    let good = world.run("A", &["checkpoint", "n1", "--label", "good"]).ok()["checkpoint"].clone();
    world.type_in("A", "n1", "cd");
    await_another(&world, "n1");
    world.type_in("A", "n1", "ef");
    await_another(&world, "n1");
    // An automatic one is the head, and is not what `undo` means.
    let undone = world.run("A", &["undo", "n1"]).ok();
    assert_eq!(undone["checkpoint"], good);
    assert!(undone["autos"].as_u64().unwrap() >= 2, "{undone}");
    world.run("A", &["checkpoint", "n1", "--every", "off"]).ok();
    world.type_in("A", "n1", "\r");
    world.await_console("A", "n1", "keys=2");

    // Those of the branch stay on it, where it left the line, above what it left.
    let lines = history(&world, "n1");
    let branch = undone["branch"].as_str().unwrap();
    let on_branch: Vec<&Value> =
        lines.iter().filter(|line| line["branch"] == branch[..12]).collect();
    assert_eq!(on_branch[0]["id"], branch);
    assert_eq!(
        on_branch.iter().filter(|line| line["auto"] == true).count() as u64,
        undone["autos"]
    );
    assert!(on_branch.iter().all(|line| line["left"] == good), "{lines:?}");
    let at = |id: &Value| lines.iter().position(|line| line["id"] == *id).unwrap();
    assert!(at(&on_branch[0]["id"]) < at(&good), "{lines:?}");

    // Back to an automatic one on the branch, and a fork from another, by their ids.
    let last_auto = on_branch[1]["id"].as_str().unwrap();
    world.run("A", &["suspend", "n1"]).ok();
    let back = world.run("A", &["undo", "n1", "--to", &last_auto[..12]]).ok();
    assert_eq!(back["checkpoint"], last_auto);
    world.run("A", &["resume", "n1"]).ok();
    world.type_in("A", "n1", "\r");
    world.await_console("A", "n1", "keys=6");
    world.run("A", &["fork", "n1", "--at", "good", "--name", "n2", "--no-start"]).ok();
    let fork = world.run("A", &["fork", "n1", "--at", last_auto, "--name", "n3", "--no-start"]);
    assert_eq!(fork.ok()["checkpoint"], last_auto);
    assert_eq!(world.run("A", &["undo", "n1", "--to", "9 weeks ago"]).error().0, "not_found");
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}

#[test]
fn guest_is_left_alone_while_checkpoints_cannot_be_taken() {
    let world = World::with_nano("auto-away");
    world.run("A", &["run", "nano", "--name", "n1", "--every", "1s"]).ok();
    await_another(&world, "n1");
    let log = || fs::read_to_string(world.instance("A", "n1").join("shim.log")).unwrap();
    // Never while it is paused.
    world.run("A", &["pause", "n1"]).ok();
    let known = autos(&world, "n1").len();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(autos(&world, "n1").len(), known);
    world.run("A", &["unpause", "n1"]).ok();

    // While the repository is away it is tried, said once, and the guest goes on.
    let (there, away) = (world.repository(), format!("{}-away", world.repository()));
    fs::rename(&there, &away).unwrap();
    eventually(Duration::from_secs(20), "it is said", || log().contains("it is tried again"));
    world.type_in("A", "n1", "xyz\r");
    world.await_console("A", "n1", "keys=3");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(log().matches("it is tried again").count(), 1, "{}", log());
    fs::rename(&away, &there).unwrap();
    eventually(Duration::from_secs(60), "they are taken again", || {
        log().contains("checkpoints are taken by themselves again")
    });
    await_another(&world, "n1");
    assert!(world.run("A", &["inspect", "n1"]).ok()["auto"]["failing"].is_null());
}

/// What somebody took goes while the guest runs: one that is named, and by the instance's own policy. What stays is
/// gone back to with all that the guest had, and what went is known.
#[test]
fn guest_goes_back_to_what_stays_of_what_somebody_took() {
    let world = World::empty("taken-thinned");
    world.run("A", &["repo", "init", &world.repository(), "--grace", "1"]).ok();
    world.run("A", &["build", &support::appliance("nano")]).ok();
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    let mut taken = Vec::new();
    for keys in ["ab", "cd", "ef", "gh", "ij", "kl"] {
        world.type_in("A", "n1", keys);
        let done = world.run("A", &["checkpoint", "n1"]).ok();
        taken.push(done["checkpoint"].as_str().unwrap().to_owned());
    }
    let at = |number: usize| format!("n1@{}", &taken[number][..12]);
    assert_eq!(world.run("A", &["rm", &at(0), "--yes"]).ok()["state"], "removed");
    let (kind, message, _) = world.run("A", &["rm", &at(5), "--yes"]).error();
    assert!(kind == "state" && message.contains("n1 is at"), "{kind}: {message}");
    let (kind, message, _) = world.run("B", &["rm", &at(1), "--yes"]).error();
    assert!(kind == "lease" && message.contains("runs on host"), "{kind}: {message}");

    // Two before the head stay while it runs: its disks and memory may rest on them.
    let said = world.run("A", &["checkpoint", "n1", "--keep-taken", "last=1"]).ok();
    assert_eq!(said["keep_taken"], "last=1");
    assert_eq!(world.run("A", &["inspect", "n1"]).ok()["auto"]["keep_taken"], "last=1");
    let collected = world.run("A", &["repo", "gc"]).ok();
    assert_eq!(collected["dropped"], serde_json::json!(["n1: 2 that somebody took"]));
    let gone = || {
        let lines = history(&world, "n1");
        let gone = lines.into_iter().filter(|line| line["gone"] == true);
        gone.map(|line| line["id"].as_str().unwrap().to_owned()).rev().collect::<Vec<_>>()
    };
    assert_eq!(gone(), taken[..3]);
    assert_eq!(world.run("A", &["undo", "n1", "--to", &taken[1][..12]]).error().0, "gone");
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");

    assert_eq!(
        world.run("A", &["undo", "n1", "--to", &taken[3][..12]]).ok()["checkpoint"],
        *taken[3]
    );
    world.type_in("A", "n1", "\r");
    world.await_console("A", "n1", "keys=8");
    assert_eq!(gone(), taken[..3]);
    world.run("A", &["suspend", "n1"]).ok();
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
}
