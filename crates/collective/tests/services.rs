//! As services: what a plane and an agent tell who started them, and the units that do.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fleet::Fleet;
use serde_json::json;
use support::World;

/// What is said until something is.
#[track_caller]
fn hears(socket: &UnixDatagram, what: &str) {
    let ends = Instant::now() + Duration::from_secs(30);
    let mut said = [0; 64];
    while Instant::now() < ends {
        if let Ok(bytes) = socket.recv(&mut said)
            && said[..bytes] == *what.as_bytes()
        {
            return;
        }
    }
    panic!("nobody said {what}");
}

fn listening(address: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

#[test]
fn a_plane_and_an_agent_say_that_they_serve_and_that_they_are_alive() {
    let world = World::empty("services");
    let file = world.root().join("notify");
    let by_file = listening(&SocketAddr::from_pathname(&file).unwrap());
    let (_plane, fleet) = Fleet::start_with(
        &world,
        &[("NOTIFY_SOCKET", file.to_str().unwrap()), ("WATCHDOG_USEC", "600000")],
    );
    hears(&by_file, "READY=1");
    hears(&by_file, "WATCHDOG=1");
    hears(&by_file, "WATCHDOG=1");

    let name = format!("collective-test-{}", std::process::id());
    let abstractly = listening(&SocketAddr::from_abstract_name(&name).unwrap());
    let _agent = fleet.join_with("A", &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    hears(&abstractly, "READY=1");
    hears(&abstractly, "WATCHDOG=1");
    // A machine on which nothing runs can be shut down.
    assert_eq!(world.run("A", &["host", "suspend"]).ok(), json!([]));
}

#[test]
fn units_are_what_systemd_reads() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let world = World::empty("units");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(units).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let file = world.root().join(entry.file_name());
        let program = env!("CARGO_BIN_EXE_collective");
        std::fs::write(&file, text.replace("/usr/bin/collective", program)).unwrap();
        files.push(file);
    }
    assert_eq!(files.len(), 3);
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&files)
        .output()
        .expect("systemd-analyze is there: scripts/install-deps --test");
    let said = String::from_utf8_lossy(&verified.stderr);
    // Of other units of the machine it may say what it likes.
    let about =
        |file: &std::path::PathBuf| said.contains(&*file.file_name().unwrap().to_string_lossy());
    assert!(verified.status.success() && !files.iter().any(about), "{said}");
}
