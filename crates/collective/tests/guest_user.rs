//! An ordinary user: no root, no group, only `fusermount3` and a `/dev/fuse` that users may open.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::transcript::Transcript;
use support::{PROGRAM, World, appliance, copy_tree, said};

/// `nobody`: an ordinary user that every Debian has.
const USER: &str = "65534";

/// A world whose commands an ordinary user runs. Where the tests run as root, that user lives in a mount
/// namespace of its own, in which `/dev/fuse` may be opened as on most systems: it may not on all.
struct Users {
    world: World,
    namespace: Option<Child>,
}

impl Users {
    fn of(world: World) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { world, namespace: None };
        }
        // The program may lie where this user cannot go.
        let program = world.root().join("collective");
        if fs::hard_link(PROGRAM, &program).is_err() {
            fs::copy(PROGRAM, &program).unwrap();
        }
        let device = world.root().join("fuse");
        run("mknod", &["-m", "0666", device.to_str().unwrap(), "c", "10", "229"]);
        run("chown", &["-R", &format!("{USER}:{USER}"), world.root().to_str().unwrap()]);
        run("chown", &["0:0", device.to_str().unwrap(), program.to_str().unwrap()]);
        let mut namespace = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
            // Says when it is ready; ends with this process, which holds its input.
            .arg("mount --bind \"$0\" /dev/fuse && echo ready && exec cat >/dev/null")
            .arg(&device)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(namespace.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let enter = format!("--mount=/proc/{}/ns/mnt", namespace.id());
        let mut starter: Vec<_> = [
            "/usr/bin/nsenter",
            &enter,
            "--",
            "/usr/bin/setpriv",
            "--reuid",
            USER,
            "--regid",
            USER,
        ]
        .map(Into::into)
        .into();
        starter.extend(["--clear-groups", "--"].map(Into::into));
        starter.push(program.into());
        Self { world: world.started_by(starter), namespace: Some(namespace) }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        // Its mounts go with it: nobody else has seen them. The shims end before, with the world's
        // files, or now at the latest.
        if let Some(mut namespace) = self.namespace.take() {
            drop(namespace.stdin.take());
            let _ = namespace.wait();
        }
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {done:?}");
}

#[test]
fn guest_of_an_ordinary_user_lives_a_whole_life() {
    let users = Users::of(World::with_tiny("user"));
    let world = &users.world;
    let started = world.run("A", &["run", "tiny", "--name", "t1", "-p", "0:80"]).ok();
    assert_eq!(started["how"], "booted");
    let boot = world.exec("A", "t1", "cat /proc/sys/kernel/random/boot_id");
    world.exec("A", "t1", "echo in memory > /tmp/note; echo on disk > /data/note; sync");
    world.run("A", &["checkpoint", "t1"]).ok();
    world.run("A", &["fork", "t1", "--name", "f1"]).ok();
    assert_eq!(world.exec("A", "f1", "cat /tmp/note"), "in memory");
    world.run("A", &["rm", "f1", "--force"]).ok();
    world.run("A", &["suspend", "t1"]).ok();
    let resumed = world.run("B", &["resume", "t1"]).ok();
    assert_eq!(resumed["how"], "continued");
    assert_eq!(world.exec("B", "t1", "cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(world.exec("B", "t1", "cat /tmp/note /data/note"), "in memory\non disk");
    // A killed shim leaves a mount, which an ordinary user cannot unmount alone.
    world.kill("B", "t1", false);
    world.await_state("B", "t1", "failed");
    assert_eq!(world.run("B", &["resume", "t1"]).ok()["how"], "booted");
    assert_eq!(world.exec("B", "t1", "cat /data/note"), "on disk");
    world.run("B", &["stop", "t1"]).ok();
    world.run("B", &["rm", "t1"]).ok();
}

#[test]
fn guest_of_an_ordinary_user_is_refused_what_it_may_not_have() {
    let users = Users::of(World::with_nano("user-refused"));
    let world = &users.world;
    let mut seen = Transcript::of(world);
    let device = world.root().join("fuse");
    if users.namespace.is_some() {
        // As on a system where only root may open it.
        fs::set_permissions(&device, PermissionsExt::from_mode(0o600)).unwrap();
        seen.run("A", &["run", "nano", "--name", "n1"]);
        let doctor = world.run("A", &["doctor"]);
        assert_eq!(doctor.code, 1, "{doctor:?}");
        let checks = doctor.json();
        let fuse = checks.as_array().unwrap().iter().find(|check| check["check"] == "fuse");
        let fuse = fuse.unwrap();
        assert_eq!(fuse["status"], "failed");
        assert!(fuse["hint"].as_str().unwrap().contains("chmod 0666 /dev/fuse"), "{fuse}");
        fs::set_permissions(&device, PermissionsExt::from_mode(0o666)).unwrap();

        // Somebody else's repository, and somebody else's folder.
        let theirs = world.root().join("theirs");
        copy_tree(Path::new(&world.repository()), &theirs);
        run("chown", &["-R", "0:0", theirs.to_str().unwrap()]);
        let place = theirs.to_str().unwrap();
        seen.run("A", &["--repo", place, "run", "nano"]);
        let key = theirs.join("key");
        fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        seen.run("A", &["--repo", place, "appliances"]);
        seen.run("A", &["--repo", place, "run", "nano"]);
        fs::set_permissions(&theirs, PermissionsExt::from_mode(0o700)).unwrap();
        seen.run("A", &["--repo", place, "run", "nano"]);
        seen.run("A", &["--dir", place, "ps"]);
        seen.run("A", &["build", &appliance("tiny")]);
    }
    // Without the program that mounts for users. (QEMU is found without a path.)
    let mut without = world.command("A", &["run", "nano", "--name", "n1"]);
    let (kind, message, hint) = said(without.env("PATH", "/nowhere").output().unwrap()).error();
    assert_eq!(kind, "permission", "{message}");
    assert!(
        message.contains("fusermount3") && hint.contains("install fuse3"),
        "{message} ({hint})"
    );
    let mut without = world.command("A", &["doctor"]);
    let doctor = said(without.env("PATH", "/nowhere").output().unwrap());
    assert!(doctor.stdout.contains("install fuse3"), "{doctor:?}");
    seen.run("A", &["run", "nano", "--name", "n1", "-p", "80:80"]);
    // And what it may have still works.
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    world.type_in("A", "n1", "ab\r");
    world.run("A", &["suspend", "n1"]).ok();
    world.run("A", &["resume", "n1"]).ok();
    world.type_in("A", "n1", "c\r");
    world.await_console("A", "n1", "keys=3");
    if users.namespace.is_some() {
        seen.check("ordinary-user");
    }
}
