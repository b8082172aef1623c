//! What `doctor` finds, each really caused, and what `doctor --fix` removes and leaves.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Said, World, said};

/// The line about one thing; the whole must be a list of such lines.
#[track_caller]
fn finding(said: &Said, check: &str) -> Value {
    let document = said.json();
    let lines = document.as_array().unwrap();
    for line in lines {
        for field in ["check", "status", "detail", "hint"] {
            assert!(line[field].is_string(), "{line}");
        }
        let status = line["status"].as_str().unwrap();
        assert!(
            status == "ok" || !line["hint"].as_str().unwrap().is_empty(),
            "no next step: {line}"
        );
    }
    let failed = lines.iter().any(|line| line["status"] == "failed");
    assert_eq!(said.code, i32::from(failed), "{said:?}");
    let line = lines.iter().find(|line| line["check"] == check);
    line.cloned().unwrap_or_else(|| panic!("no {check} in {document}"))
}

#[track_caller]
fn expect(said: &Said, check: &str, status: &str, detail: &str) {
    let line = finding(said, check);
    assert_eq!(line["status"], status, "{line}");
    assert!(line["detail"].as_str().unwrap().contains(detail), "{line}");
}

fn doctor(world: &World) -> Said {
    world.run("A", &["doctor"])
}

#[test]
fn programs_that_are_missing_or_old_are_found() {
    let world = World::empty("doctor-programs");
    let bin = world.root().join("bin");
    fs::create_dir(&bin).unwrap();
    let with_path =
        |path: &Path| said(world.command("A", &["doctor"]).env("PATH", path).output().unwrap());
    let bare = with_path(&bin);
    expect(&bare, "qemu", "failed", "qemu-system-x86_64");
    expect(&bare, "qemu-img", "warning", "not found");
    // Fakes that say what a real one of that age says.
    let qemu = bin.join("qemu-system-x86_64");
    let fake = |version: &str| {
        let text = format!("#!/bin/sh\necho 'QEMU emulator version {version} (Debian)'\n");
        fs::write(&qemu, text).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    };
    fake("7.2.11");
    expect(&with_path(&bin), "qemu", "failed", "7.2.11");
    fake("10.0.2");
    expect(&with_path(&bin), "qemu", "ok", "10.0.2");
}

/// `doctor` in a mount namespace of its own, after a script has changed what lies there.
fn doctor_after(world: &World, script: &str) -> Said {
    let doctor = world.command("A", &["doctor"]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{script}\nexec \"$@\""))
        .arg("sh")
        .arg(doctor.get_program())
        .args(doctor.get_args());
    for (name, value) in doctor.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    said(command.output().unwrap())
}

#[test]
fn devices_that_are_missing_or_false_are_found() {
    let world = World::empty("doctor-devices");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let bare =
        "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 444 /dev/urandom c 1 9";
    let without = doctor_after(&world, bare);
    expect(&without, "accelerator", "warning", "there is no /dev/kvm");
    expect(&without, "fuse", "failed", "there is no /dev/fuse");
    // Something that is there, and runs nothing.
    let false_kvm = format!("{bare}; mknod -m 666 /dev/fuse c 10 229; mknod -m 666 /dev/kvm c 1 3");
    let with_false = doctor_after(&world, &false_kvm);
    expect(&with_false, "accelerator", "warning", "TCG");
    expect(&with_false, "fuse", "ok", "opens");
    let hint = finding(&with_false, "accelerator")["hint"].to_string();
    assert!(hint.contains("software"), "{hint}");
}

/// An ordinary user whom `/dev/fuse` does not let in, or who has nothing that mounts.
#[test]
fn fuse_that_is_not_for_this_user_is_found() {
    let world = World::empty("doctor-user");
    let host = world.host("A");
    fs::create_dir(&host).unwrap();
    // The program may lie where this user cannot go.
    let program = world.root().join("collective");
    if fs::hard_link(support::PROGRAM, &program).is_err() {
        fs::copy(support::PROGRAM, &program).unwrap();
    }
    std::os::unix::fs::chown(&host, Some(65534), Some(65534)).unwrap();
    let as_nobody = |mode: &str, path: &str| {
        let script = format!(
            "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 444 /dev/urandom c 1 9
             mknod -m {mode} /dev/fuse c 10 229; mknod -m {mode} /dev/kvm c 1 3; shift; PATH=$PATH:/sbin:/usr/sbin
             set -- setpriv --reuid 65534 --regid 65534 --clear-groups env PATH={path} {} \"$@\"",
            program.display()
        );
        doctor_after(&world, &script)
    };
    let shut = as_nobody("600", "/usr/bin:/bin");
    expect(&shut, "fuse", "failed", "Permission denied");
    assert!(finding(&shut, "fuse")["hint"].to_string().contains("chmod 0666 /dev/fuse"));
    expect(&shut, "accelerator", "warning", "may not open /dev/kvm");
    assert!(finding(&shut, "accelerator")["hint"].to_string().contains("usermod -aG kvm"));
    let bare = as_nobody("666", "/nonexistent");
    expect(&bare, "fuse", "failed", "fusermount3");
    let open = as_nobody("666", "/usr/bin:/bin");
    expect(&open, "fuse", "ok", "opens");
    // Who is let in need not wait for the next boot.
    expect(&open, "accelerator", "warning", "/dev/kvm is there but runs no 64-bit guest");
    expect(&bare, "confinement", "warning", "as you");
}

/// A store that lets two hosts overwrite each other is no repository; one whose clock is off is told of.
#[test]
fn a_store_without_conditions_and_a_clock_that_is_off_are_found() {
    let (world, server) = World::on_s3("doctor-s3");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let seen = doctor(&world);
    expect(&seen, "repository", "ok", "opens");
    expect(&seen, "clock", "ok", "agrees");
    server.set_clock_ahead(std::time::Duration::from_secs(300));
    let seen = doctor(&world);
    expect(&seen, "clock", "warning", "s behind the repository's");
    assert!(finding(&seen, "clock")["hint"].to_string().contains("timesyncd"));
    server.ignore_conditions();
    let seen = doctor(&world);
    expect(&seen, "repository", "failed", "ignores conditional puts");
    let hint = finding(&seen, "repository")["hint"].to_string();
    assert!(hint.contains("If-None-Match"), "{hint}");
    // Nobody begins one there.
    let (kind, message, _) = world.run("B", &["repo", "init", "s3://bucket/another"]).error();
    assert_eq!((&*kind, message.contains("conditional puts")), ("repository", true), "{message}");
}

#[test]
fn firmware_and_tpm_that_are_missing_are_found() {
    let world = World::empty("doctor-firmware");
    let hide = "mount -t tmpfs tmpfs /usr/share/OVMF; mount --bind /dev/null /usr/bin/swtpm";
    let said = doctor_after(&world, hide);
    expect(&said, "uefi", "warning", "/usr/share/OVMF");
    expect(&said, "tpm", "warning", "swtpm");
    for check in ["uefi", "tpm"] {
        let line = finding(&said, check);
        assert!(line["hint"].as_str().unwrap().contains("scripts/install-deps"), "{line}");
    }
}

/// A mount that is gone when it is dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_small_disk_and_a_repository_that_does_not_open_are_found() {
    let world = World::empty("doctor-disk");
    let host = world.host("A");
    fs::create_dir(&host).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(&host)
        .status()
        .unwrap();
    assert!(mounted.success(), "this test mounts, as root");
    let _mounted = Mounted(host);
    let seen = doctor(&world);
    expect(&seen, "space", "warning", "64.0 MiB free");
    expect(&seen, "repository", "failed", "repository");
    expect(&seen, "clock", "ok", "not compared");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let seen = doctor(&world);
    expect(&seen, "repository", "ok", "opens");
    expect(&seen, "clock", "ok", "agrees");
    expect(&seen, "leftovers", "ok", "none");
}

#[test]
fn guest_leftovers_are_removed_and_what_is_only_here_stays() {
    let world = World::with_nano("doctor-crash");
    for name in ["n1", "n2"] {
        world.run("A", &["run", "nano", "--name", name]).ok();
    }
    // While they run nothing is anybody's but theirs.
    expect(&doctor(&world), "leftovers", "ok", "none");
    for name in ["n1", "n2"] {
        world.kill("A", name, false);
    }
    // A build and a temporary file of commands that were killed.
    let build = world.host("A").join("builds/0123456789abcdef");
    fs::create_dir_all(&build).unwrap();
    let temporary = world.host("A").join(".host.json.0123456789abcdef");
    fs::write(&temporary, "{").unwrap();
    let aged = Command::new("touch").args(["-d", "2 hours ago"]).arg(&temporary).status().unwrap();
    assert!(aged.success());
    // One of the two is removed elsewhere: its disks are nowhere else.
    world.run("B", &["rm", "n2", "--force"]).ok();

    let before = doctor(&world);
    expect(&before, "leftovers", "warning", "dead mounts of n1");
    for detail in ["dead sockets of n1", "1 folders of killed commands in builds/", "1 temporary"] {
        expect(&before, "leftovers", "warning", detail);
    }
    expect(&before, "leftovers", "warning", "disks of n2, which is gone");
    expect(&before, "instances", "warning", "n1");
    assert!(build.exists(), "only looked at");

    let fixed = world.run("A", &["doctor", "--fix"]);
    expect(&fixed, "leftovers", "warning", "only here: disks of n2");
    expect(&fixed, "leftovers", "warning", "removed: ");
    assert!(!build.exists() && !temporary.exists());
    assert!(world.instance("A", "n2").join("volumes").exists());
    assert!(world.instance("A", "n1").join("volumes").exists());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(world.host("A").to_str().unwrap()), "{table}");
    let after = doctor(&world);
    assert_eq!(finding(&after, "leftovers")["detail"].as_str().unwrap().matches("n1").count(), 0);

    // What was left of n1 is gone on from, and n2 is given up by who says so.
    assert_eq!(world.run("A", &["resume", "n1"]).ok()["how"], "booted");
    world.run("A", &["rm", "n1", "--force"]).ok();
    world.run("A", &["rm", "n2", "--force"]).ok();
    expect(&doctor(&world), "leftovers", "ok", "none");
}
