//! Computers that boot by UEFI: whose its variables are, and what secure boot refuses.

mod support;

use std::time::Duration;

use support::{World, appliance, eventually};

#[track_caller]
fn await_console(world: &World, host: &str, name: &str, line: &str) {
    eventually(Duration::from_secs(120), line, || world.console(host, name).contains(line));
}

/// The guest keeps one count in its memory and two in the firmware's variables.
#[test]
fn guest_of_uefi_keeps_its_variables() {
    let world = World::empty("uefi");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.run("A", &["build", &appliance("nano-uefi")]).ok();
    world.run("A", &["run", "nano-uefi", "--name", "u1"]).ok();
    await_console(&world, "A", "u1", "nano-uefi: boots=1 writes=0 secure=0");
    world.type_in("A", "u1", "abw\r");
    await_console(&world, "A", "u1", "writes=1");
    await_console(&world, "A", "u1", "keys=3");

    // Another host goes on with memory and variables, and has no need of the package.
    world.run("A", &["suspend", "u1"]).ok();
    world.run("B", &["resume", "u1"]).ok();
    world.type_in("B", "u1", "\r");
    await_console(&world, "B", "u1", "keys=3");
    world.type_in("B", "u1", "w");
    await_console(&world, "B", "u1", "writes=2");

    // A fork has them from there on as its own.
    world.run("B", &["fork", "u1", "--name", "f1"]).ok();
    world.type_in("B", "f1", "w");
    await_console(&world, "B", "f1", "writes=3");
    for (name, line) in [("u1", "boots=2 writes=2"), ("f1", "boots=2 writes=3")] {
        world.run("B", &["stop", name, "--force"]).ok();
        world.run("B", &["resume", name]).ok();
        await_console(&world, "B", name, line);
    }

    // The variables are nobody's disk.
    world.run("B", &["stop", "u1", "--force"]).ok();
    let raw = world.root().join("u1.raw").to_string_lossy().into_owned();
    let exported = world.run("B", &["export", "u1", &raw, "--format", "raw"]).ok();
    assert_eq!(exported["disks"].as_array().unwrap().len(), 1, "{exported}");

    // What nobody signed does not start where that is asked for.
    let arguments = ["import", &raw, "--format", "raw", "--name", "locked", "--memory", "128MiB"];
    let secure = ["--firmware", "uefi", "--secure-boot"];
    let refused = world.run("B", &[&arguments[..], &secure[2..]].concat());
    assert_eq!((refused.code, &refused.json()["error"]["kind"]), (2, &"usage".into()));
    world.run("B", &[&arguments[..], &secure].concat()).ok();
    world.run("B", &["run", "locked", "--name", "l1"]).ok();
    await_console(&world, "B", "l1", "Access Denied");
    assert!(!world.console("B", "l1").contains("boots="));
}
