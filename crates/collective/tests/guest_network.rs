//! A guest on a network that its hosts share: it has an address of its own there, and keeps it and its
//! connections wherever it goes on.

mod support;

#[path = "support/lan.rs"]
mod lan;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lan::Lan;
use support::World;

/// What a connection to the guest's echo says back.
fn echo(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut said = vec![0; text.len()];
    stream.read_exact(&mut said).unwrap();
    String::from_utf8(said).unwrap()
}

#[test]
fn guest_keeps_its_connections_where_hosts_share_its_network() {
    // As udev leaves it, which not every container has.
    let tun = std::path::Path::new("/dev/net/tun");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(tun, open).unwrap();
    let lan = Lan::of(&["A", "B", "C"]);
    let world = World::with_tiny("lan").entered_by(lan.entrances());
    for host in ["A", "B"] {
        world.run(host, &["network", "add", "lan", "--bridge", "br0"]).ok();
    }
    let networks = world.run("A", &["network"]).ok();
    assert_eq!(networks[1]["name"], "lan");
    assert_eq!(networks[1]["state"], "ready");
    let refused = world.run("A", &["network", "add", "other", "--bridge", "lo"]).error();
    assert_eq!(refused.0, "network", "{refused:?}");

    // Ports are not published there, and nothing is left of the try.
    let refused = world.run("A", &["run", "tiny", "--network", "lan", "-p", "0:80"]).error();
    assert!(refused.0 == "network" && refused.2.contains("leave -p out"), "{refused:?}");
    assert_eq!(world.run("A", &["ps"]).ok().as_array().unwrap().len(), 0);

    world.run("A", &["run", "tiny", "--name", "t1", "--network", "lan"]).ok();
    assert_eq!(world.run("A", &["inspect", "t1"]).ok()["network"], "lan");
    world.exec("A", "t1", "ip address add 10.231.79.50/24 dev eth0");
    world.exec("A", "t1", "(nc -ll -p 7000 -e cat </dev/null >/dev/null 2>&1 &)");
    let mut stream = lan.connect("10.231.79.50:7000".parse().unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(echo(&mut stream, "here"), "here");

    world.run("A", &["suspend", "t1"]).ok();
    // A host that has not got this network does not start it in another one.
    let refused = world.run("C", &["resume", "t1"]).error();
    assert!(refused.0 == "network" && refused.1.contains("lan"), "{refused:?}");
    world.run("B", &["resume", "t1"]).ok();
    assert_eq!(echo(&mut stream, "there"), "there");

    // Whatever becomes of the shim, its device does not stay.
    let taps = |host: &str| lan.devices(host).lines().filter(|line| line.contains(": c")).count();
    assert_eq!((taps("A"), taps("B")), (0, 1));
    world.run("B", &["checkpoint", "t1"]).ok();
    world.kill("B", "t1", false);
    world.await_state("B", "t1", "failed");
    world.run("B", &["resume", "t1"]).ok();
    assert_eq!(taps("B"), 1);
    // It has booted: the connection has ended with what was in memory.
    world.run("B", &["suspend", "t1"]).ok();
    assert_eq!(taps("B"), 0);
    // It is plugged in elsewhere when somebody says so.
    world.run("C", &["resume", "t1", "--network", "user"]).ok();
    assert_eq!(world.run("C", &["inspect", "t1"]).ok()["network"], "user");
    assert_eq!(taps("C"), 0);
    // And back, with its memory.
    world.exec("C", "t1", "echo here > /tmp/session");
    world.run("C", &["suspend", "t1"]).ok();
    world.run("A", &["resume", "t1", "--network", "lan"]).ok();
    assert_eq!(world.exec("A", "t1", "cat /tmp/session"), "here");
    assert_eq!(taps("A"), 1);
    // A fork is let in once it is somebody of its own.
    world.run("A", &["fork", "t1", "--name", "t2"]).ok();
    assert_eq!(taps("A"), 2);
    let own = world.run("A", &["inspect", "t2"]).ok()["mac"][0].as_str().unwrap().to_owned();
    assert_eq!(world.exec("A", "t2", "cat /sys/class/net/eth0/address"), own);
    assert_ne!(world.exec("A", "t1", "cat /sys/class/net/eth0/address"), own);
    world.run("A", &["rm", "t2", "--force"]).ok();
    assert_eq!(taps("A"), 1);
}
