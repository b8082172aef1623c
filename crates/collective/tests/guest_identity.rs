//! Who a guest believes to be, after each way in which its memory goes on: `docs/identity.md`.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::surgery::Surgery;
use support::{World, eventually, http_get};

/// How often the guest's kernel was told that its generation id may have changed.
fn notices(world: &World, host: &str, name: &str) -> u32 {
    let line = world.exec(host, name, "cat /sys/firmware/acpi/interrupts/gpe05");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How often it found another id there than before, and drew new randomness.
fn reseeds(world: &World, host: &str, name: &str) -> u32 {
    let script = "dmesg | grep -c 'crng reseeded due to virtual machine fork' || true";
    world.exec(host, name, script).parse().unwrap()
}

/// Waits until the kernel has been told so often, and checks how often it found another id.
#[track_caller]
fn check(world: &World, host: &str, name: &str, told: u32, changed: u32) {
    eventually(Duration::from_secs(60), "the guest is told", || notices(world, host, name) == told);
    // Told is not done: a change is waited for. What comes too late where none should come is found
    // by the next check, since the log keeps it.
    eventually(Duration::from_secs(60), "the guest's kernel has looked", || {
        reseeds(world, host, name) >= changed
    });
    assert_eq!(reseeds(world, host, name), changed, "after {told} notices");
}

#[test]
fn guest_hears_of_a_new_generation_when_its_memory_goes_on_twice_and_only_then() {
    let world = World::with_tiny("vmgenid");
    let id = |name: &str| Surgery::on(&world.repository(), name).head_body()["vmgenid"].to_string();
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    check(&world, "A", "t1", 0, 0);
    let first = id("t1");

    // Suspended and gone on with, here and there: the same computer.
    for (told, from, to) in [(1, "A", "A"), (2, "A", "B"), (3, "B", "A")] {
        world.run(from, &["suspend", "t1"]).ok();
        assert_eq!(world.run(to, &["resume", "t1"]).ok()["how"], "continued");
        check(&world, to, "t1", told, 0);
        assert_eq!(id("t1"), first);
    }

    // A fork is another one; its parent is not.
    world.run("A", &["fork", "t1", "--name", "f1"]).ok();
    check(&world, "A", "f1", 4, 1);
    check(&world, "A", "t1", 3, 0);
    assert_eq!(id("t1"), first);
    let forked = id("f1");
    // And stays that one.
    world.run("A", &["suspend", "f1"]).ok();
    world.run("B", &["resume", "f1"]).ok();
    check(&world, "B", "f1", 5, 1);
    assert_eq!(id("f1"), forked);

    // Undone: the memory of the checkpoint that the fork began with goes on again.
    world.run("A", &["undo", "t1"]).ok();
    check(&world, "A", "t1", 4, 1);
    let undone = id("t1");

    // Taken over: what the first host did since the checkpoint happens here a second time.
    world.run("A", &["checkpoint", "t1"]).ok();
    world.run("B", &["resume", "t1", "--take-over"]).ok();
    check(&world, "B", "t1", 5, 2);
    let taken = id("t1");
    assert_eq!(world.run("A", &["suspend", "t1"]).error().0, "fenced");

    let ids = BTreeSet::from([first, forked, undone, taken.clone()]);
    assert_eq!(ids.len(), 4, "{ids:?}");

    // And once more as the same computer; nothing came late.
    world.run("B", &["suspend", "t1"]).ok();
    world.run("A", &["resume", "t1"]).ok();
    check(&world, "A", "t1", 6, 2);
    assert_eq!(id("t1"), taken);
}

/// A server on this host, that greets whoever connects and reads all that it says; gives its port.
fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.write_all(b"hello guest\n");
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    port
}

#[test]
fn guest_fork_has_another_address_and_its_network_works() {
    let world = World::with_tiny("fork-network");
    let parent = world.run("A", &["run", "tiny", "--name", "t1", "-p", "0:80"]).ok();
    assert!(http_get(&parent, "/index.html").contains("tiny appliance"));
    // Somebody asks the fork from its first moment on, before it has an address of its own: then
    // the network has learnt its parent's.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let done = Arc::new(AtomicBool::new(false));
    let impatient = {
        let done = done.clone();
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                let _ = stream.read(&mut [0; 16]);
            }
        })
    };
    let published = format!("{port}:80");
    let forked = world.run("A", &["fork", "t1", "--name", "f1", "-p", &published]).ok();
    done.store(true, Ordering::Relaxed);
    impatient.join().unwrap();
    let fork = &forked["starts"][0];

    let mac = |name: &str| {
        let inside = world.exec("A", name, "cat /sys/class/net/eth0/address");
        let outside = world.run("A", &["inspect", name]).ok()["mac"][0].clone();
        assert_eq!(outside, inside.as_str(), "{name}: the guest uses the address that it has");
        inside
    };
    assert_ne!(mac("t1"), mac("f1"));

    // Who connects reaches each of the two, and both reach others.
    world.exec("A", "f1", "echo I am the fork > /data/www/index.html");
    let said = http_get(fork, "/index.html");
    assert!(said.contains("I am the fork"), "{said}");
    assert!(http_get(&parent, "/index.html").contains("tiny appliance"));
    let port = greeter();
    for name in ["t1", "f1"] {
        let greeting = world.exec("A", name, &format!("nc 10.0.2.2 {port} </dev/null"));
        assert_eq!(greeting, "hello guest", "{name}");
    }
}
