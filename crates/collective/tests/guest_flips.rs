//! One flipped bit in everything that is stored of a real instance, in its repository and on its
//! host: it is named, no guest is shown it, and a copy of the repository puts it back.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{World, copy_tree};

/// All files below a folder, but for what is only a hint.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() && fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What a killed shim leaves of its mounts.
fn unmount(host: &Path) {
    for mount in ["memory", "disks"] {
        let mount = host.join("instances/n1/run").join(mount);
        let _ = std::process::Command::new("umount").arg("-l").arg(mount).output();
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// The guest goes on where it was: three keys were typed before.
#[track_caller]
fn goes_on(world: &World, host: &str, what: &str) {
    world.type_in(host, "n1", "d\r");
    println!("after {what}");
    world.await_console(host, "n1", "keys=4");
}

#[test]
fn guest_is_never_shown_a_flipped_bit_of_its_repository_and_a_copy_mends_it() {
    let world = World::with_nano("flips");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    world.type_in("A", "n1", "abc\r");
    world.run("A", &["suspend", "n1"]).ok();
    let repository = PathBuf::from(world.repository());
    let copy = world.root().join("copy");
    copy_tree(&repository, &copy);
    let (mut refused, mut ran) = (0, 0);
    let objects = files(&copy).into_iter().map(|file| file.strip_prefix(&copy).unwrap().to_owned());
    let is_kept = |key: &PathBuf| {
        let key = key.to_str().unwrap();
        !key.ends_with("hint") && key != "key" && !key.starts_with("gc/")
    };
    for (number, key) in objects.filter(is_kept).enumerate() {
        let name = key.to_str().unwrap().to_owned();
        let bytes = fs::metadata(copy.join(&key)).unwrap().len() as usize;
        flip(&repository.join(&key), bytes / 2);
        // A host that has nothing.
        let host = format!("H{number}");
        let resumed = world.run(&host, &["resume", "n1"]);
        if resumed.code == 0 {
            // It needs nothing of it.
            ran += 1;
            goes_on(&world, &host, &name);
            world.kill(&host, "n1", false);
        } else {
            refused += 1;
            let (kind, message, hint) = resumed.error();
            assert_eq!(kind, "damaged", "{name}: {message}");
            assert!(message.contains(&name), "{name}: {message}");
            assert!(hint.contains("repo repair --from"), "{hint}");
        }
        let check = world.run("B", &["repo", "check", "--read-data"]);
        assert_eq!(check.code, 1, "{name}: {check:?}");
        assert!(check.stdout.contains(&name), "{name}: {check:?}");
        let repaired = world.run("B", &["repo", "repair", "--from", copy.to_str().unwrap()]).ok();
        assert_eq!(repaired["repaired"], serde_json::json!([name]), "{repaired}");
        let resumed = world.run("B", &["resume", "n1", "--take-over"]);
        assert_eq!(resumed.code, 0, "{name}: {resumed:?}");
        goes_on(&world, "B", &name);
        world.kill("B", "n1", false);
        // Everything as it was, for the next one.
        for folder in [repository.clone(), world.host(&host), world.host("B")] {
            unmount(&folder);
            fs::remove_dir_all(folder).unwrap();
        }
        copy_tree(&copy, &repository);
    }
    println!("{refused} damaged objects were refused at once, without {ran} it ran");
    assert!(refused >= 5 && refused + ran >= 8, "{refused} {ran}");
    let nothing = world.run("A", &["repo", "repair", "--from", copy.to_str().unwrap()]).ok();
    assert_eq!((&nothing["ok"], &nothing["repaired"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn guest_is_never_shown_a_flipped_bit_of_what_its_host_keeps() {
    let world = World::with_nano("flips-host");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    // Its disk says how often it booted, and that is flushed.
    world.kill("A", "n1", false);
    world.await_state("A", "n1", "failed");
    let host = world.host("A");
    unmount(&host);
    let (repository, saved) = (PathBuf::from(world.repository()), world.root().join("saved"));
    fs::create_dir(&saved).unwrap();
    copy_tree(&host, &saved.join("host"));
    copy_tree(&repository, &saved.join("repository"));
    let (mut refused, mut ran, mut flips) = (0, 0, 0);
    let volumes = files(&host.join("instances/n1/volumes"));
    let kept = volumes.iter().chain(&files(&host.join("cache"))).cloned().collect::<Vec<_>>();
    for file in kept {
        let name = file.strip_prefix(&host).unwrap().to_owned();
        let bytes = fs::metadata(&file).unwrap().len() as usize;
        for at in [9, bytes / 2, bytes - 1] {
            flips += 1;
            flip(&file, at);
            let resumed = world.run("A", &["resume", "n1", "--timeout", "5"]);
            if resumed.code == 0 {
                ran += 1;
                println!("{name:?} at {at}");
                world.await_console("A", "n1", "boots=2");
                world.kill("A", "n1", false);
            } else {
                refused += 1;
                let (kind, message, _) = resumed.error();
                if kind == "not_ready" {
                    // The page that it boots from: an error instead of it, and that is said.
                    assert!(message.contains("volume data, page 0"), "{name:?} at {at}: {message}");
                    let note = world.row("A", "n1")["note"].to_string();
                    assert!(note.contains("volume data, page 0"), "{name:?} at {at}: {note}");
                    let console = world.console("A", "n1");
                    assert!(!console.contains("boots=2"), "{name:?} at {at}: {console}");
                    world.kill("A", "n1", false);
                } else {
                    // A bit of a version number says that the file is newer.
                    let refused = ["damaged", "format"].contains(&kind.as_str());
                    assert!(refused, "{name:?} at {at}: {kind}: {message}");
                }
            }
            unmount(&host);
            fs::remove_dir_all(&host).unwrap();
            fs::remove_dir_all(&repository).unwrap();
            copy_tree(&saved.join("host"), &host);
            copy_tree(&saved.join("repository"), &repository);
        }
    }
    println!("{flips} flips: refused {refused} times, ran {ran} times");
    assert!(refused >= 3 && ran >= 3, "{refused} {ran}");
}
