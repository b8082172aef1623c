//! Files out of checkpoints, by `cp` and `mount`, from guests that do not run.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{World, eventually};

/// Whether something is mounted on a directory.
fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// A mount, which goes also when the test fails.
struct Seen(PathBuf);

impl Seen {
    fn umount(&self) {
        let done = Command::new("umount").arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        eventually(Duration::from_secs(20), "the mount is gone", || !is_mounted(&self.0));
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
}

#[test]
fn guest_files_come_out_of_checkpoints() {
    let world = World::with_tiny("files");
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.exec(
        "A",
        "t1",
        "mkdir -p /data/letters; echo dear >/data/letters/one; ln -s one /data/letters/link; sync",
    );
    world.run("A", &["checkpoint", "t1", "--label", "first: dear"]).ok();
    // Without sync: what the guest has only in its journal or its memory is not on its disk yet.
    world.exec(
        "A",
        "t1",
        "echo changed >/data/letters/one; head -c 300000 /dev/urandom >/data/big; sync",
    );
    let sum = world.exec("A", "t1", "sha256sum /data/big");
    world.run("A", &["suspend", "t1"]).ok();

    // On a host that never ran it.
    let out = world.root().join("out");
    fs::create_dir(&out).unwrap();
    let to = out.to_str().unwrap();
    let copied = world.run("B", &["cp", "t1@first: dear:/data/letters/one", to]).ok();
    assert_eq!(copied["files"], 1);
    assert_eq!(copied["disk"], "data");
    assert_eq!(fs::read_to_string(out.join("one")).unwrap(), "dear\n");
    let again = world.run("B", &["cp", "t1:/data/letters/one", to]).error();
    assert_eq!(again.0, "exists", "{again:?}");
    world.run("B", &["cp", "t1:data:/letters/one", to, "--force"]).ok();
    assert_eq!(fs::read_to_string(out.join("one")).unwrap(), "changed\n");
    let all = world.run("B", &["cp", "t1:data:/", out.join("all").to_str().unwrap()]).ok();
    assert!(all["files"].as_u64().unwrap() >= 2, "{all}");
    assert_eq!(fs::read_link(out.join("all/letters/link")).unwrap(), Path::new("one"));

    let (kind, message, hint) = world.run("B", &["cp", "t1:/data/nothing", to]).error();
    assert_eq!(kind, "not_found", "{message}");
    assert!(message.contains("/data/nothing") || message.contains("/nothing"), "{message}");
    assert!(hint.contains("mount"), "{hint}");
    assert_eq!(world.run("B", &["cp", "t1@never:/x", to]).error().0, "not_found");
    assert_eq!(world.run("B", &["cp", "t1", to]).code, 2);
    assert_eq!(world.run("B", &["cp", "t2:/x", to]).error().0, "not_found");

    // The same by a mount.
    let dir = world.root().join("seen");
    let mounted = world.run("B", &["mount", "t1", dir.to_str().unwrap()]).ok();
    let seen = Seen(dir.clone());
    assert_eq!(mounted["disks"][0], "data");
    let big = fs::read(dir.join("data/big")).unwrap();
    fs::write(out.join("big"), &big).unwrap();
    let ours = Command::new("sha256sum").arg(out.join("big")).output().unwrap();
    let ours = String::from_utf8(ours.stdout).unwrap();
    assert_eq!(ours.split(' ').next(), sum.split(' ').next());
    assert_eq!(fs::read_link(dir.join("data/letters/link")).unwrap(), Path::new("one"));
    assert_eq!(fs::read_to_string(dir.join("data/letters/link")).unwrap(), "changed\n");
    let raw = fs::metadata(dir.join("data.raw")).unwrap();
    assert!(raw.len() >= 1 << 20);
    assert!(fs::metadata(dir.join("memory.raw")).unwrap().len() >= 1 << 20);
    let refused = fs::write(dir.join("data/letters/one"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(
        fs::read(dir.join("data/none")).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    );
    let twice = world.run("B", &["mount", "t1", dir.to_str().unwrap()]).error();
    assert_eq!(twice.0, "exists", "{twice:?}");
    seen.umount();

    // Nothing of that changed it.
    world.run("A", &["resume", "t1"]).ok();
    assert_eq!(world.exec("A", "t1", "cat /data/letters/one"), "changed");
}
