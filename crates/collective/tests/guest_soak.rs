//! Days of use, one verb after the other, drawn from a seed: two hosts, a few `tiny` guests that
//! each know what they should remember, and nothing left over at the end.
//!
//! An hour is a verb; nobody waits for the clock. CI runs a day; `cargo xtask soak --hours N --seed S`
//! runs any other.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::World;

const HOSTS: [&str; 2] = ["A", "B"];
const GUESTS_MAX: usize = 3;
/// The repository's grace age, seconds.
const GRACE_S: u64 = 2;

/// What an instance has to remember.
#[derive(Debug, Clone)]
struct Guest {
    name: String,
    host: &'static str,
    disk: u32,
    /// None after it booted.
    memory: Option<u32>,
    /// The same at its last checkpoint.
    saved: Option<(u32, Option<u32>)>,
}

struct Soak {
    world: World,
    guests: Vec<Guest>,
    random: u64,
    /// Counts what is written, so that no two values are the same.
    written: u32,
    named: u32,
    /// How often each verb was used.
    used: std::collections::BTreeMap<&'static str, u32>,
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn guest_soak_of_a_day_forgets_nothing_and_leaves_nothing() {
    let hours = from_environment("COLLECTIVE_SOAK_HOURS", 24);
    let seed = from_environment("COLLECTIVE_SOAK_SEED", 1);
    let world = World::with_tiny("soak");
    let maker = world.repository();
    let own = world.root().join("own").to_string_lossy().into_owned();
    let world = world.at(&own, &[]);
    world.run("A", &["repo", "init", &own, "--grace", &GRACE_S.to_string()]).ok();
    for host in HOSTS {
        world.run(host, &["repo", "source", &maker]).ok();
    }
    let stored = || world_stored(&own);
    let before = stored();
    let mut soak = Soak {
        world,
        guests: Vec::new(),
        random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        written: 0,
        named: 0,
        used: Default::default(),
    };
    soak.start();
    for hour in 0..hours {
        let began = ambient::now();
        let done = soak.verb();
        println!("hour {hour}: {done}, {:.1} s", began.elapsed().as_secs_f64());
        soak.check_processes();
    }
    println!("seed {seed}: {:?}", soak.used);

    for guest in std::mem::take(&mut soak.guests) {
        soak.world.run(guest.host, &["rm", &guest.name, "--force"]).ok();
    }
    let root = soak.world.root().to_string_lossy().into_owned();
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        assert!(!line.contains(&root), "a mount is left: {line}");
    }
    support::eventually(Duration::from_secs(10), "no process is left", || {
        processes_with(&root).is_empty()
    });
    // A host that an instance has left does not hear of its end; this is how it does.
    for host in HOSTS {
        soak.world.run(host, &["doctor", "--fix"]).ok();
        let folder = soak.world.host(host);
        for work in ["instances", "builds", "imports", "exports"] {
            let left = fs::read_dir(folder.join(work)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "host {host} keeps {left} in {work}");
        }
    }
    let check = soak.world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
    // Condemned, then deleted.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(GRACE_S * 1000 + 100));
        soak.world.run("A", &["repo", "gc"]).ok();
    }
    let after = stored();
    println!("stored before: {before} bytes, after: {after}");
    assert!(after < before + (1 << 20), "{after} bytes stay of {before}");
}

/// Bytes of all objects of a repository in a folder.
fn world_stored(folder: &str) -> u64 {
    let done = Command::new("du").args(["-s", "--apparent-size", "-B1", folder]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Ids of processes that have this text in their command line.
fn processes_with(text: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(text)
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(has)
        .collect()
}

impl Soak {
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % below
    }

    fn start(&mut self) {
        let name = format!("s{}", self.named);
        self.named += 1;
        let host = HOSTS[self.random(HOSTS.len())];
        self.world.run(host, &["run", "tiny", "--name", &name]).ok();
        self.guests.push(Guest { name, host, disk: 0, memory: None, saved: None });
        let at = self.guests.len() - 1;
        self.write(at);
    }

    /// The guest is told something that it must remember.
    fn write(&mut self, at: usize) {
        self.written += 1;
        let guest = &mut self.guests[at];
        let n = self.written;
        let script = format!("echo {n} > /data/n; echo {n} > /tmp/n; sync");
        self.world.exec(guest.host, &guest.name, &script);
        (guest.disk, guest.memory) = (n, Some(n));
    }

    /// It remembers what it must, and nothing else.
    fn check(&self, at: usize, after: &str) {
        let guest = &self.guests[at];
        let said = self.world.exec(guest.host, &guest.name, "cat /data/n; cat /tmp/n || true");
        let memory = guest.memory.map_or(String::new(), |n| format!("\n{n}"));
        assert_eq!(said, format!("{}{memory}", guest.disk), "after {after}: {guest:?}");
    }

    fn verb(&mut self) -> String {
        let at = self.random(self.guests.len());
        let verb = self.random(16);
        let (name, host) = (self.guests[at].name.clone(), self.guests[at].host);
        let run = |words: &[&str]| self.world.run(host, words).ok();
        let point = |guest: &mut Guest| guest.saved = Some((guest.disk, guest.memory));
        let done = match verb {
            0..3 => {
                self.write(at);
                "write"
            }
            3 | 4 => {
                run(&["checkpoint", &name]);
                point(&mut self.guests[at]);
                "checkpoint"
            }
            5 | 6 => {
                run(&["suspend", &name]);
                let there = HOSTS[usize::from(host == HOSTS[0])];
                let resumed = self.world.run(there, &["resume", &name]).ok();
                assert_eq!(resumed["how"], "continued", "{resumed}");
                point(&mut self.guests[at]);
                self.guests[at].host = there;
                "move"
            }
            7 | 8 if self.guests.len() < GUESTS_MAX => {
                let new = format!("s{}", self.named);
                run(&["fork", &name, "--name", &new]);
                point(&mut self.guests[at]);
                self.named += 1;
                let fork = Guest { name: new, ..self.guests[at].clone() };
                self.guests.push(fork);
                self.check(self.guests.len() - 1, "fork");
                "fork"
            }
            9 if self.guests[at].saved.is_some() => {
                run(&["undo", &name]);
                let guest = &mut self.guests[at];
                (guest.disk, guest.memory) = guest.saved.unwrap();
                "undo"
            }
            10 => {
                run(&["stop", &name]);
                let booted = run(&["resume", &name]);
                assert_eq!(booted["how"], "booted", "{booted}");
                let guest = &mut self.guests[at];
                guest.memory = None;
                // What the stop stored is a point to come back to.
                point(guest);
                "stop"
            }
            11 => {
                // One after the other, so that a day has both.
                let crashes = self.used.get("crash").copied().unwrap_or(0);
                self.world.kill(host, &name, crashes % 2 == 0);
                self.world.await_state(host, &name, "failed");
                run(&["resume", &name]);
                self.guests[at].memory = None;
                "crash"
            }
            12 | 13 => {
                run(&["pause", &name]);
                run(&["unpause", &name]);
                "pause"
            }
            14 if self.guests.len() > 1 => {
                run(&["rm", &name, "--force"]);
                self.guests.remove(at);
                *self.used.entry("rm").or_default() += 1;
                return format!("rm {name}");
            }
            _ => {
                run(&["repo", "gc"]);
                "gc"
            }
        };
        *self.used.entry(done).or_default() += 1;
        self.check(at, done);
        format!("{done} {name} on {host}: {:?}", self.guests[at])
    }

    /// A shim holds no more files, threads and memory than one that has just begun may need.
    fn check_processes(&self) {
        for guest in &self.guests {
            let pid = self.world.row(guest.host, &guest.name)["pid"].as_u64().unwrap();
            let process = Path::new("/proc").join(pid.to_string());
            let files = fs::read_dir(process.join("fd")).unwrap().count();
            let status = fs::read_to_string(process.join("status")).unwrap();
            let field = |name: &str| -> u64 {
                let line = status.lines().find(|line| line.starts_with(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap()
            };
            let (threads, anonymous_kib) = (field("Threads:"), field("RssAnon:"));
            println!("{}: {files} files, {threads} threads, {anonymous_kib} KiB", guest.name);
            assert!(files < 160 && threads < 120 && anonymous_kib < 256 << 10, "{status}");
        }
    }
}
