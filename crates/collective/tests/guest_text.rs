//! What the program says through a life of a guest, on two hosts: the words that people read.

mod support;

use support::World;
use support::transcript::Transcript;

#[test]
fn guest_lives_a_life_that_reads_well() {
    let world = World::with_tiny("life");
    // One that nobody can publish on, here or elsewhere.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("{}:80", taken.local_addr().unwrap().port());
    let mut seen = Transcript::of(&world);

    seen.run("A", &["run", "tiny", "--name", "t1", "-p", &port]);
    let start = seen.run("A", &["run", "tiny", "--name", "t1", "-p", "0:80", "--accel", "tcg"]);
    assert_eq!(start.code, 0, "{start:?}");
    seen.run("A", &["run", "tiny", "--name", "t1"]);
    seen.run("A", &["ps"]);
    seen.run("A", &["inspect", "t1"]);
    seen.run("A", &["exec", "t1", "--", "cat", "/data/www/index.html"]);
    seen.run("A", &["exec", "t1", "--", "false"]);
    seen.run("A", &["exec", "t1", "--", "nosuchprogram"]);
    seen.run("A", &["exec", "t1", "--timeout", "1", "--", "sleep", "60"]);
    seen.run("A", &["pause", "t1"]);
    seen.run("A", &["exec", "t1", "--", "true"]);
    seen.run("A", &["resume", "t1"]);
    seen.run("A", &["unpause", "t1"]);
    seen.run("A", &["undo", "t1"]);
    seen.run("A", &["checkpoint", "t1", "--label", "before the mistake"]);
    world.exec("A", "t1", "echo mistake > /data/mistake; sync");
    seen.run("A", &["undo", "t1", "--to", "before the mistake"]);
    seen.run("A", &["undo", "t1", "--to", "another"]);
    seen.run("A", &["history", "t1"]);
    seen.run("A", &["rm", "t1@before the mistake"]);
    seen.run("A", &["rm", "t1@undone"]);
    seen.run("A", &["fork", "t1", "--count", "2", "--name", "try"]);
    seen.run("A", &["fork", "t1", "--name", "try-1"]);
    seen.run("A", &["fork", "t1", "--at", "nothing"]);
    seen.run("A", &["fork", "try-1", "--at", "before the mistake", "--no-start"]);
    seen.run("A", &["stop", "try-2", "--force"]);
    seen.run("A", &["stop", "try-2"]);
    seen.run("A", &["exec", "try-2", "--", "true"]);
    seen.run("A", &["ps"]);
    seen.run("A", &["rm", "try-1"]);
    seen.run("A", &["rm", "try-1", "--force"]);
    seen.run("A", &["rm", "try-2"]);
    seen.run("A", &["rm", "try-1-fork-1"]);

    // Another host may not, until this one lets go of it.
    seen.run("B", &["ps"]);
    seen.run("B", &["resume", "t1"]);
    seen.run("B", &["suspend", "t1"]);
    seen.run("B", &["undo", "t1"]);
    seen.run("B", &["fork", "t1"]);
    seen.run("B", &["rm", "t1"]);
    seen.run("B", &["logs", "t1"]);
    seen.run("A", &["suspend", "t1", "--label", "for the train"]);
    seen.run("A", &["suspend", "t1"]);
    seen.run("A", &["stop", "t1"]);
    seen.run("A", &["console", "t1"]);
    seen.run("B", &["inspect", "t1"]);
    seen.run("B", &["resume", "t1", "-p", "0:80", "--accel", "tcg"]);
    seen.run("A", &["ps"]);
    seen.run("A", &["exec", "t1", "--", "true"]);

    // A taken-over one's first host is told, and loses nothing.
    seen.run("A", &["resume", "t1", "--take-over", "--accel", "tcg"]);
    seen.run_once("B", &["checkpoint", "t1"]);
    seen.run("B", &["ps", "--local"]);
    world.exec("A", "t1", "echo flushed > /data/flushed; sync");
    world.kill("A", "t1", false);
    world.await_state("A", "t1", "failed");
    seen.run("A", &["ps"]);
    seen.run("A", &["doctor"]);
    seen.run("A", &["checkpoint", "t1"]);
    seen.run("A", &["undo", "t1"]);
    seen.run("A", &["undo", "t1"]);
    seen.run("A", &["resume", "t1", "--no-wait", "--accel", "tcg"]);
    seen.run("A", &["rm", "t1", "--force"]);
    seen.run("A", &["ps"]);
    seen.run("A", &["repo", "stats"]);
    seen.run("A", &["repo", "check", "--read-data"]);
    seen.run("A", &["repo", "gc"]);
    seen.check("life");
}
