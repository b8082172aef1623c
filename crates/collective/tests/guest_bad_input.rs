//! What a repository may hold that a guest cannot go on from: each is refused or waited for with the
//! right words, and when it is put right the same guest goes on.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use support::surgery::{Surgery, packs, parse};
use support::{READ_NOISE, Said, World, eventually, noise, said};

/// Resumes on `host`, which must refuse and leave everything as it was.
#[track_caller]
fn refused(world: &World, host: &str, name: &str, kind: &str, words: &[&str]) -> String {
    let (found, message, hint) = world.run(host, &["resume", name, "--accel", "tcg"]).error();
    assert_eq!(found, kind, "{message} ({hint})");
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
    assert!(!hint.is_empty(), "{message}");
    assert_eq!(world.state(host, name), "suspended", "after {message:?}");
    hint
}

#[test]
fn guest_is_not_loaded_from_a_checkpoint_that_does_not_fit() {
    let world = World::with_nano("misfit");
    world.run("A", &["run", "nano", "--name", "n1", "--accel", "tcg"]).ok();
    world.type_in("A", "n1", "ab\r");
    world.run("A", &["suspend", "n1"]).ok();
    let surgery = Surgery::on(&world.repository(), "n1");
    let check = |kind: &str, words: &[&str], change: &dyn Fn(&mut serde_json::Value)| {
        let before = surgery.change_checkpoint(change);
        // On the host that stored it, and on one that has nothing yet.
        let hint = refused(&world, "A", "n1", kind, words);
        refused(&world, "B", "n1", kind, words);
        surgery.put_head(&before.payload);
        hint
    };

    let newer = "written by a newer Collective";
    let hint =
        check("format", &["checkpoint", "format 3", "up to 2"], &|body| body["format"] = 3.into());
    assert!(hint.contains(newer), "{hint}");
    let ram = parse(&surgery.checkpoint_body(&surgery.head().checkpoint)["memory"]["ram"]);
    // Its version, and a feature without which it cannot be read.
    for (offset, value, says) in [(8, 9, "version 9"), (32, 2, "incompatible features bit 1")] {
        let copy = surgery.changed_copy(&ram, |bytes| bytes[offset] = value);
        let hint = check("format", &["ram", says, "newer Collective"], &|body| {
            body["memory"]["ram"] = copy.to_string().into();
        });
        assert!(hint.contains(newer), "{hint}");
    }
    let torn = surgery.changed_copy(&ram, |bytes| bytes.truncate(30));
    check("damaged", &["ram"], &|body| body["memory"]["ram"] = torn.to_string().into());
    let large = surgery.empty_volume(32 << 20);
    check("damaged", &["ram", "base is larger"], &|body| {
        body["memory"]["ram"] = large.to_string().into();
    });
    let hint = check("hypervisor", &["memory of 32.0 MiB", "16.0 MiB"], &|body| {
        body["memory"]["memory_bytes"] = (32 << 20).into();
    });
    assert!(hint.contains("resume it where") && hint.contains("fork n1 --at"), "{hint}");
    check("hypervisor", &["accelerator kvm", "tcg"], &|body| {
        body["memory"]["accel"] = "kvm".into();
    });
    check("hypervisor", &["CPU model host"], &|body| body["memory"]["cpu_model"] = "host".into());
    check("damaged", &["why"], &|body| body["why"] = "whim".into());
    check("damaged", &["it is a \"head\""], &|body| body["kind"] = "head".into());
    check("damaged", &["not a checkpoint"], &|body| body["memory"]["device_state"] = json!(7));

    // The verbs that only look say the same; the list of instances still works.
    let before = surgery.change_checkpoint(|body| body["format"] = 3.into());
    for verb in ["history", "inspect", "undo", "fork"] {
        assert_eq!(world.run("A", &[verb, "n1"]).error().0, "format", "{verb}");
    }
    assert_eq!(world.state("B", "n1"), "suspended");
    surgery.put_head(&before.payload);

    world.run("B", &["resume", "n1", "--accel", "tcg"]).ok();
    world.type_in("B", "n1", "c\r");
    world.await_console("B", "n1", "keys=3");
}

/// Has the guest read its noise while something is wrong: it stands still and `ps` says why; then
/// `repair` puts it right, and the guest goes on with what it had.
///
/// What is wrong lies in its memory, of which it may touch the same bytes before it is ready: what
/// passed through a pipe on its way into the file is there twice. Then the start says what it waits for.
#[track_caller]
fn goes_on_after(world: &World, host: &str, started: &Said, words: &[&str], repair: impl FnOnce()) {
    let reading = if started.code == 0 {
        Some(world.spawn(host, READ_NOISE))
    } else {
        let (kind, message, hint) = started.error();
        assert_eq!(kind, "not_ready", "{message} ({hint})");
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message:?}");
        }
        assert!(hint.contains("repo check --repair"), "{hint}");
        None
    };
    eventually(Duration::from_secs(60), "the guest is paused, and ps says why", || {
        let row = world.row(host, "t1");
        let note = row["note"].as_str().unwrap_or_default();
        row["state"] == "paused" && words.iter().all(|word| note.contains(word))
    });
    repair();
    let read = match reading {
        Some(reading) => said(reading.wait_with_output().unwrap()),
        None => {
            world.await_state(host, "t1", "running");
            world.run(host, READ_NOISE)
        }
    };
    assert_eq!(read.code, 0, "{read:?}");
    assert!(read.json()["stdout"].as_str().unwrap().contains("OK"), "{read:?}");
    world.await_state(host, "t1", "running");
}

#[test]
fn guest_goes_on_after_one_flipped_bit_was_put_right() {
    let world = World::with_noisy_sleeper("flip");
    let surgery = Surgery::on(&world.repository(), "t1");
    let checkpoint = surgery.head().checkpoint;
    let body = surgery.checkpoint_body(&checkpoint);
    // What a start cannot do without. Each time on a host that has nothing.
    let needed = [
        ("record", checkpoint),
        ("version", parse(&body["version"])),
        ("memory", parse(&body["memory"]["ram"])),
        ("devices", parse(&body["memory"]["device_state"]["id"])),
    ];
    for (host, id) in &needed {
        let flipped = surgery.locate(id).flip();
        let hint = refused(&world, host, "t1", "damaged", &["damaged", "packs/"]);
        assert!(hint.contains("repo check --repair"), "{hint}");
        let check = world.run(host, &["repo", "check", "--read-data"]);
        assert_eq!(check.code, 1, "{check:?}");
        drop(flipped);
    }
    // One page of the guest's memory.
    let noise = noise();
    let page = chunk::id_of(&noise[noise.len() / 2..][..4096]);
    let flipped = surgery.locate(&page).flip();
    let words = ["volume ram", "page", "damaged", "packs/"];
    let started = world.run("B", &["resume", "t1", "--accel", "tcg"]);
    goes_on_after(&world, "B", &started, &words, || drop(flipped));
    let check = world.run("B", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");

    // A guest that touches it at once is not ready, and its user hears why, long before a timeout.
    let reader = "while :; do md5sum /tmp/noise; done";
    world.exec("B", "t1", &format!("setsid sh -c '{reader}' </dev/null >/dev/null 2>&1 &"));
    world.run("B", &["suspend", "t1"]).ok();
    let flipped = surgery.locate(&page).flip();
    let started = world.run("C", &["resume", "t1", "--accel", "tcg"]);
    goes_on_after(&world, "C", &started, &words, || drop(flipped));
}

#[test]
fn guest_goes_on_after_a_cut_pack_was_put_back() {
    let world = World::with_noisy_sleeper("cut");
    let surgery = Surgery::on(&world.repository(), "t1");
    let noise = noise();
    let byte = surgery.locate(&chunk::id_of(&noise[noise.len() / 2..][..4096]));
    let whole = fs::read(&byte.pack).unwrap();
    // Cut where the page lies: what comes before can be read, what comes after cannot.
    fs::write(&byte.pack, &whole[..byte.offset as usize]).unwrap();
    let check = world.run("A", &["repo", "check"]);
    assert_eq!(check.code, 1, "{check:?}");
    let problems = check.json()["problems"].to_string();
    assert!(problems.contains("packs/"), "{problems}");
    let put_back = || fs::write(&byte.pack, &whole).unwrap();
    let started = world.run("B", &["resume", "t1", "--accel", "tcg"]);
    if started.code == 0 || started.error().0 == "not_ready" {
        let words = ["volume ram", "page", "truncated", "packs/"];
        goes_on_after(&world, "B", &started, &words, put_back);
    } else {
        let (kind, message, hint) = started.error();
        assert_eq!(kind, "damaged", "{message} ({hint})");
        put_back();
        world.run("B", &["resume", "t1", "--accel", "tcg"]).ok();
        let read = world.run("B", READ_NOISE).ok();
        assert!(read["stdout"].as_str().unwrap().contains("OK"), "{read}");
    }

    // All packs away: the record cannot be read, and nothing is begun.
    world.run("B", &["suspend", "t1"]).ok();
    let folder = Path::new(&world.repository()).join("packs");
    assert!(!packs(Path::new(&world.repository())).is_empty());
    fs::rename(&folder, world.root().join("away")).unwrap();
    refused(&world, "C", "t1", "damaged", &["packs/"]);
    fs::rename(world.root().join("away"), folder).unwrap();
    world.run("C", &["resume", "t1", "--accel", "tcg"]).ok();
    let read = world.run("C", READ_NOISE).ok();
    assert!(read["stdout"].as_str().unwrap().contains("OK"), "{read}");
}
