//! Guests that are no Linux: memtest86+ runs from nothing but its own file, draws its screen, and
//! goes on elsewhere like any other.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use support::vnc::{Picture, look};
use support::{World, appliance, eventually};

/// `collective view`, as long as it is held.
struct Viewed {
    command: Child,
    address: String,
}

impl Viewed {
    fn of(world: &World, host: &str, name: &str) -> Self {
        let mut command = world.command(host, &["view", name]);
        let mut command = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(command.stdout.take().unwrap());
        // A document may have several lines; this one ends with its brace.
        while !said.trim_end().ends_with('}') && lines.read_line(&mut said).unwrap() > 0 {}
        let document: serde_json::Value = serde_json::from_str(&said).unwrap();
        let address = document["address"].as_str().unwrap().to_owned();
        Self { command, address }
    }
}

impl Drop for Viewed {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

fn screen(world: &World, host: &str, name: &str) -> Picture {
    look(&Viewed::of(world, host, name).address)
}

/// Waits until a screen is what another one was but for what moves in it: of its 288,000 pixels most
/// stay. (A viewer who comes before QEMU has drawn sees QEMU's own blank picture.)
#[track_caller]
fn await_like(world: &World, host: &str, name: &str, before: &Picture) -> Picture {
    let mut seen = None;
    eventually(Duration::from_secs(30), "the screen is as it was", || {
        let now = screen(world, host, name);
        let alike = now.is_as_large_as(before) && now.differs_by(before) < 20_000;
        seen = Some(now);
        alike
    });
    seen.unwrap()
}

#[test]
fn guest_without_linux_and_disk_is_seen_and_goes_on_there() {
    let world = World::with_tiny("memtest");
    world.share_tools("A");
    world.run("A", &["build", &appliance("memtest")]).ok();
    world.run("A", &["run", "memtest", "--name", "m1"]).ok();
    let mut first = screen(&world, "A", "m1");
    eventually(Duration::from_secs(30), "a text screen is drawn", || {
        first = screen(&world, "A", "m1");
        (first.width, first.height) == (720, 400)
    });
    // It draws how far it is.
    eventually(Duration::from_secs(60), "its screen changes", || {
        screen(&world, "A", "m1") != first
    });

    world.run("A", &["suspend", "m1"]).ok();
    world.run("B", &["resume", "m1"]).ok();
    let after = await_like(&world, "B", "m1", &first);
    eventually(Duration::from_secs(60), "its screen changes there too", || {
        screen(&world, "B", "m1") != after
    });
    world.run("B", &["fork", "m1", "--name", "m2"]).ok();
    await_like(&world, "B", "m2", &after);

    // What has no screen says so, and what does not run.
    world.run("B", &["stop", "m1", "--force"]).ok();
    assert_eq!(world.run("B", &["view", "m1"]).error().0, "state");
}
