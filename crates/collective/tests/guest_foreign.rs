//! Computers that go out and come back: exported, imported, run; and run by QEMU alone.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{World, eventually};

/// A QEMU of nobody's but this test's.
struct Plain(Child, std::path::PathBuf);

impl Plain {
    /// Starts a PC from this disk, its serial port into a file.
    fn boot(world: &World, drive: &str) -> Self {
        let log = world.root().join("plain.log");
        let mut command = Command::new("qemu-system-x86_64");
        command.args("-nodefaults -display none -m 32 -accel tcg -drive".split(' ')).arg(drive);
        command.arg("-serial").arg(format!("file:{}", log.display()));
        Self(command.stdin(Stdio::null()).spawn().unwrap(), log)
    }

    #[track_caller]
    fn await_line(&self, line: &str) {
        eventually(Duration::from_secs(60), line, || {
            std::fs::read_to_string(&self.1).is_ok_and(|said| said.contains(line))
        });
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn await_console(world: &World, name: &str, line: &str) {
    eventually(Duration::from_secs(60), line, || world.console("A", name).contains(line));
}

/// The system counts its boots on its disk: what it says tells whose disk it is.
#[test]
fn guest_goes_out_and_comes_back() {
    let world = World::with_nano("out");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    let file = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    let (raw, qcow2) = (file("n1.raw"), file("n1.qcow2"));
    let running = world.run("A", &["export", "n1", &raw, "--format", "raw"]).error();
    assert_eq!(running.0, "state", "{running:?}");
    world.run("A", &["checkpoint", "n1", "--label", "first"]).ok();
    let there = world.run("A", &["export", "n1@first", &raw, "--format", "raw"]).ok();
    assert!(there["notes"][0].as_str().unwrap().contains("memory"), "{there}");
    world.run("A", &["stop", "n1", "--force"]).ok();
    let exported = world.run("A", &["export", "n1", &qcow2, "--format", "qcow2"]).ok();
    assert_eq!(exported["what"], "instance");

    // Under plain QEMU it boots the second time.
    let check = Command::new("qemu-img").args(["check", &qcow2]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    Plain::boot(&world, &format!("file={raw},format=raw,if=ide")).await_line("nano: boots=2");
    let copy = file("copy.qcow2");
    std::fs::copy(&qcow2, &copy).unwrap();
    Plain::boot(&world, &format!("file={copy},format=qcow2,if=virtio")).await_line("nano: boots=2");

    // And here as an appliance of its own, whatever its disk is plugged into.
    for bus in ["virtio", "sata"] {
        let name = format!("back-{bus}");
        let imported = world
            .run("A", &["import", &qcow2, "--name", &name, "--memory", "32MiB", "--disk-bus", bus])
            .ok();
        assert_eq!(imported["volumes"][0]["manifest"], exported["disks"][0]["manifest"]);
        world.run("A", &["run", &name, "--name", &name]).ok();
        await_console(&world, &name, "nano: boots=2");
    }
    // Foreign hardware suspends and goes on as any.
    world.type_in("A", "back-sata", "ab\r");
    await_console(&world, "back-sata", "keys=2");
    world.run("A", &["suspend", "back-sata"]).ok();
    world.run("B", &["resume", "back-sata"]).ok();
    world.type_in("B", "back-sata", "c\r");
    assert!(world.console("B", "back-sata").contains("keys=3"));
}
