//! What a host tells of itself to who collects figures: a real plane, a real guest.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fleet::Fleet;
use serde_json::Value;
use support::{World, eventually};

const LEASE_S: u32 = 15;

/// The figures of a host, as they are told.
struct Figures(String);

impl Figures {
    fn of(address: &str) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && body.ends_with("# EOF\n"), "{answer}");
        Self(body.to_owned())
    }

    /// A sample, by its name and its labels.
    #[track_caller]
    fn get(&self, sample: &str) -> f64 {
        let mut lines = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(name, _)| *name == sample);
        found.unwrap_or_else(|| panic!("no {sample} in {}", self.0)).1.parse().unwrap()
    }

    fn from(&self, source: &str) -> f64 {
        self.get(&format!("collective_chunk_fetch_bytes_total{{source=\"{source}\"}}"))
    }

    fn faults(&self, kind: &str, what: &str) -> f64 {
        self.get(&format!("collective_fault_seconds_{what}{{kind=\"{kind}\"}}"))
    }
}

/// What a guest found in its host's cache since it started.
fn cached(world: &World) -> f64 {
    let inspected = world.run("A", &["inspect", "t1"]).ok();
    let volumes = inspected["volumes"].as_array().unwrap().iter();
    volumes.map(|volume| volume["cached_bytes"].as_f64().unwrap()).sum()
}

#[test]
fn guest_use_is_in_the_figures_of_its_host() {
    let world = World::with_tiny("figures");
    let (_plane, fleet) = Fleet::start(&world, "127.0.0.1:0", LEASE_S);
    let (_agent, address) = fleet.join_with_figures("A");
    fleet.await_hosts(1);
    let figures = || Figures::of(&address);
    let before = figures();
    for source in ["cache", "peer", "repository"] {
        assert_eq!(before.from(source), 0.0);
    }
    assert_eq!(before.faults("ram", "count") + before.faults("disk", "count"), 0.0);
    assert_eq!(before.get("collective_host_instances{state=\"running\"}"), 0.0);

    let usage = || fleet.at("P", &["usage"]).ok()[0].clone();
    // It stores when it is suspended; from when that is written down it is there until it is counted.
    let all_counted = |stored_before: f64| {
        let folder = world.host("A").join("meter");
        eventually(Duration::from_secs(60), "all is counted", || {
            usage()["stored_bytes"].as_f64().is_some_and(|stored| stored > stored_before)
                && std::fs::read_dir(&folder).is_ok_and(|mut left| left.next().is_none())
        });
    };
    // While it runs here, it is known whose it is.
    let heard_more = || {
        let ran = || usage()["running_seconds"].as_f64().unwrap_or_default();
        let before = ran();
        eventually(Duration::from_secs(60), "the plane hears of it", || ran() > before);
    };
    fleet.run("P", &["run", "tiny", "--name", "t1"]).ok();
    eventually(Duration::from_secs(30), "it runs here", || {
        figures().get("collective_host_instances{state=\"running\"}") == 1.0
    });
    // What this start needed is known a while after it is ready, and lies here.
    eventually(Duration::from_secs(120), "it is said what lies here", || {
        let held = fleet.host("A")["cached"].clone();
        let bytes = held.as_object().and_then(|held| held.values().next()?.as_u64());
        bytes.is_some_and(|bytes| bytes > 0)
    });
    heard_more();
    assert_eq!(fleet.run("P", &["suspend", "t1"]).ok()["state"], "suspended");
    all_counted(0.0);

    // What the plane has counted of it is what its host tells, to the byte.
    let agree = |figures: &Figures, usage: &Value| {
        let of = |what: &str| usage[what].as_f64().unwrap_or_else(|| panic!("{usage}"));
        assert_eq!(figures.from("repository"), of("fetched_bytes") - of("peer_bytes"));
        assert_eq!(figures.from("peer"), of("peer_bytes"));
        assert_eq!(figures.get("collective_host_stored_bytes_total"), of("stored_bytes"));
        let ran = figures.get("collective_host_running_seconds_total");
        assert!((ran - of("running_seconds")).abs() < 0.001 && ran > 0.0, "{ran} {usage}");
    };
    let first = figures();
    agree(&first, &usage());
    assert!(
        first.from("repository") > 0.0 && first.get("collective_host_stored_bytes_total") > 0.0
    );
    // Its pages were not here: it waited for some, and not for nothing.
    let count = first.faults("ram", "count") + first.faults("disk", "count");
    let sum = first.faults("ram", "sum") + first.faults("disk", "sum");
    assert!(count > 0.0 && sum > 0.0, "{}", first.0);
    assert!(first.get("collective_host_orders_total{outcome=\"done\"}") >= 2.0);
    assert!(first.get("collective_host_beats_total{outcome=\"taken\"}") >= 1.0);

    // Here again it finds its pages in the cache, and that is what `inspect` says.
    fleet.run("P", &["resume", "t1"]).ok();
    eventually(Duration::from_secs(60), "figures and `inspect` agree", || {
        let cached = cached(&world);
        cached > 0.0 && figures().from("cache") - first.from("cache") == cached
    });
    heard_more();
    fleet.run("P", &["suspend", "t1"]).ok();
    all_counted(first.get("collective_host_stored_bytes_total"));
    let last = figures();
    agree(&last, &usage());
    assert_eq!(last.get("collective_host_instances{state=\"running\"}"), 0.0);

    // Who begins anew begins at nothing: what was counted is not counted again.
    drop(_agent);
    let (_agent, address) = fleet.join_with_figures("A");
    assert_eq!(Figures::of(&address).from("repository"), 0.0);
}
