//! Guests that are no Debian: memtest86+ is no Linux at all, runs from nothing but its own file and
//! draws its own screen; Alpine is a Linux without the GNU C library, and without our agent. They go on
//! elsewhere like any other.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::vnc::{Picture, ask_for, look};
use support::{World, appliance, copy_tree, eventually};

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

/// What a desktop does when the card says that the window has another size: draws in the size that the
/// card prefers. (modetest draws for as long as something may come on its standard input.)
const FOLLOW: &str =
    "echo detect > /sys/class/drm/card0-Virtual-1/status; killall modetest 2>/dev/null
    id=$(modetest -M virtio_gpu -c 2>/dev/null | awk '/Virtual-1/ { print $1; exit }')
    (sleep 9999 | modetest -M virtio_gpu -s $id:#0 >/tmp/drawn 2>&1) >/dev/null 2>&1 &";

/// Tells a screen the size of a window until it has it.
#[track_caller]
fn await_size(world: &World, host: &str, name: &str, width: u16, height: u16) {
    let viewed = Viewed::of(world, host, name);
    assert!(ask_for(&viewed.address, width, height), "its card is told");
    let first = "echo detect > /sys/class/drm/card0-Virtual-1/status
        head -n 1 /sys/class/drm/card0-Virtual-1/modes";
    let mut said = String::new();
    eventually(Duration::from_secs(20), "the guest is told by its card", || {
        said = world.exec(host, name, first);
        said.trim() == format!("{width}x{height}")
    });
    world.exec(host, name, FOLLOW);
    eventually(Duration::from_secs(30), "its screen has the size of the window", || {
        let now = look(&viewed.address);
        (now.width, now.height) == (width.into(), height.into())
    });
}

#[test]
fn guest_screen_follows_the_window_of_its_viewer() {
    let world = World::with_tiny("window");
    world.share_tools("A");
    let folder = world.root().join("screen");
    copy_tree(Path::new(&appliance("tiny")), &folder);
    let recipe = std::fs::read_to_string(folder.join("appliance.yaml")).unwrap();
    let recipe = recipe
        .replace("name: tiny", "name: screen")
        .replace("memory: 128MiB", "memory: 192MiB\n  display: {card: virtio}")
        // The cloud kernel has no driver for a screen.
        .replace("linux-image-cloud-amd64", "linux-image-amd64")
        .replace("modules: [", "modules: [virtio_gpu, ")
        .replace("packages: [", "packages: [libdrm-tests, ")
        .replace("programs: [", "programs: [/usr/bin/modetest, ");
    std::fs::write(folder.join("appliance.yaml"), recipe).unwrap();
    world.run("A", &["build", folder.to_str().unwrap()]).ok();
    world.run("A", &["run", "screen", "--name", "s1"]).ok();
    eventually(Duration::from_secs(30), "its driver draws", || {
        let now = screen(&world, "A", "s1");
        (now.width, now.height) == (1280, 800)
    });
    await_size(&world, "A", "s1", 1008, 700);
    let png = world.root().join("s1.png");
    world.run("A", &["screenshot", "s1", "-o", png.to_str().unwrap()]).ok();
    // (QEMU tells viewers widths in whole sixteens first.) Width and height of the picture, from its header.
    assert_eq!(std::fs::read(png).unwrap()[16..24], [0, 0, 3, 240, 0, 0, 2, 188]);

    world.run("A", &["suspend", "s1"]).ok();
    world.run("B", &["resume", "s1"]).ok();
    let now = screen(&world, "B", "s1");
    assert_eq!((now.width, now.height), (1008, 700));
    await_size(&world, "B", "s1", 1200, 800);
    world.run("B", &["fork", "s1", "--name", "s2"]).ok();
    await_size(&world, "B", "s2", 800, 600);
    let now = screen(&world, "B", "s1");
    assert_eq!((now.width, now.height), (1200, 800));

    // A card that has no word for it says so.
    world.run("B", &["build", &appliance("nano")]).ok();
    world.run("B", &["run", "nano", "--name", "n1"]).ok();
    assert!(!ask_for(&Viewed::of(&world, "B", "n1").address, 800, 600));
}

/// Types a command at the prompt, and gives what the console says until it ends with `mark`.
#[track_caller]
fn at_prompt(world: &World, host: &str, name: &str, command: &str, mark: &str) -> String {
    let before = world.console(host, name).len();
    // Typed in two pieces, so that what is echoed is not what is waited for.
    let (one, two) = mark.split_at(1);
    world.type_in(host, name, &format!("{command}; echo {one}''{two}\r"));
    let mut said = String::new();
    eventually(Duration::from_secs(60), command, || {
        said = world.console(host, name).get(before..).unwrap_or_default().to_owned();
        said.contains(mark)
    });
    said
}

#[test]
fn guest_with_musl_and_openrc_goes_on_there_and_forks() {
    let world = World::with_tiny("alpine");
    world.share_tools("A");
    let folder = world.root().join("alpine");
    copy_tree(Path::new(&appliance("alpine")), &folder);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/fetch-alpine");
    let fetched = Command::new(script).arg(&folder).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    world.run("A", &["build", folder.to_str().unwrap()]).ok();
    world.run("A", &["run", "alpine", "--name", "a1"]).ok();
    eventually(Duration::from_secs(60), "a prompt", || {
        world.console("A", "a1").contains("alpine:~#")
    });
    let said = at_prompt(&world, "A", "a1", "ls /lib/ld-*; cat /etc/alpine-release", "ONE");
    assert!(said.contains("/lib/ld-musl-x86_64.so.1") && said.contains("3.23."), "{said}");
    let notes = "echo in memory > /run/note; echo on disk > /data/note; grep /data /proc/mounts";
    assert!(at_prompt(&world, "A", "a1", notes, "TWO").contains("/dev/vdb /data ext4"));

    world.run("A", &["suspend", "a1"]).ok();
    let resumed = world.run("B", &["resume", "a1"]).ok();
    assert_eq!(resumed["how"], "continued", "{resumed}");
    let said = at_prompt(&world, "B", "a1", "cat /run/note /data/note", "THREE");
    assert!(said.contains("in memory") && said.contains("on disk"), "{said}");

    world.run("B", &["fork", "a1", "--name", "a2"]).ok();
    at_prompt(&world, "B", "a2", "echo of the fork > /data/note; sync", "FOUR");
    let said = at_prompt(&world, "B", "a1", "cat /run/note /data/note", "FIVE");
    assert!(said.contains("on disk") && !said.contains("of the fork"), "{said}");
    // Its power button works without an agent, and it writes what it had not.
    at_prompt(&world, "B", "a2", "echo at last > /data/last", "SIX");
    world.run("B", &["stop", "a2"]).ok();
    let last = world.root().join("last");
    world.run("B", &["cp", "a2:data:/last", last.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(last).unwrap(), "at last\n");
}
