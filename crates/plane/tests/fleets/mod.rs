//! Fleets from lines of text, and a large one: for the planner's tests and for its bench.

use std::collections::BTreeMap;
use std::fmt::Write;

use model::{HostId, Name, VersionId, parse_bytes};
use plane::fleet::{Fleet, Host, HostState, Instance, Load, Need};

fn host_id(name: &str) -> HostId {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    HostId::from_bytes(bytes)
}

fn version_id(name: &str) -> VersionId {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    VersionId::from_bytes(bytes)
}

pub fn state(word: &str) -> Option<HostState> {
    [HostState::Ready, HostState::Cordoned, HostState::Draining, HostState::Gone]
        .into_iter()
        .find(|state| state.as_str() == word)
}

fn percent(word: &str) -> u32 {
    word.strip_suffix('%').unwrap().parse().unwrap()
}

/// `CPUS%/MEMORY%`.
pub fn load(word: &str) -> Load {
    let (cpus, memory) = word.split_once('/').unwrap();
    Load { cpu_percent: percent(cpus), memory_percent: percent(memory) }
}

pub fn host<'w>(words: impl Iterator<Item = &'w str>) -> Host {
    let mut host = Host {
        id: host_id(""),
        name: String::new(),
        state: HostState::Ready,
        labels: BTreeMap::new(),
        cpus: 0,
        memory_bytes: 0,
        kvm: false,
        cached: BTreeMap::new(),
        load: None,
        round_trips_us: BTreeMap::new(),
        overloaded: false,
        relief_ms_ago: None,
    };
    for word in words {
        match word.split_once('=') {
            Some(("cpus", value)) => host.cpus = value.parse().unwrap(),
            Some(("memory", value)) => host.memory_bytes = parse_bytes(value).unwrap(),
            Some(("load", value)) => host.load = Some(load(value)),
            Some((key, value)) if key.starts_with("far:") => {
                let ms: f64 = value.strip_suffix("ms").unwrap().parse().unwrap();
                host.round_trips_us.insert(key["far:".len()..].to_owned(), (ms * 1000.0) as u64);
            }
            Some((key, value)) => match key.strip_prefix("has:") {
                Some(version) => {
                    host.cached.insert(version_id(version), parse_bytes(value).unwrap());
                }
                None => drop(host.labels.insert(key.to_owned(), value.to_owned())),
            },
            None if word == "kvm" => host.kvm = true,
            None => match state(word) {
                Some(state) => host.state = state,
                None => (host.id, host.name) = (host_id(word), word.to_owned()),
            },
        }
    }
    host
}

pub fn instance<'w>(mut words: impl Iterator<Item = &'w str>) -> Instance {
    let mut instance = Instance {
        name: Name::new(words.next().unwrap()).unwrap(),
        version: version_id(""),
        base_bytes: 0,
        cpus: 1,
        memory_bytes: 0,
        needs: Vec::new(),
        near: None,
        apart: None,
        at: None,
        stays: false,
        cpu_percent: None,
        unsaved_bytes: None,
        moved_ms_ago: None,
    };
    for word in words {
        match word.split_once('=') {
            Some(("version", value)) => instance.version = version_id(value),
            Some(("base", value)) => instance.base_bytes = parse_bytes(value).unwrap(),
            Some(("cpus", value)) => instance.cpus = value.parse().unwrap(),
            Some(("memory", value)) => instance.memory_bytes = parse_bytes(value).unwrap(),
            Some(("near", value)) => instance.near = Some(value.to_owned()),
            Some(("apart", value)) => instance.apart = Some(value.to_owned()),
            Some(("at", value)) => instance.at = Some(host_id(value)),
            Some(("uses", value)) => instance.cpu_percent = Some(percent(value)),
            Some(("unsaved", value)) => instance.unsaved_bytes = Some(parse_bytes(value).unwrap()),
            Some((key, value)) => {
                let key = key.strip_prefix("need:").unwrap().to_owned();
                instance.needs.push(Need::Label { key, value: value.to_owned() });
            }
            None if word == "pinned" => instance.stays = true,
            None => {
                assert_eq!(word, "kvm");
                instance.needs.push(Need::Kvm);
            }
        }
    }
    instance
}

/// Hosts of three sites with some of forty versions; instances of all kinds; some with a place.
pub fn large(hosts: usize, instances: usize) -> Fleet {
    let mut fleet = Fleet::default();
    for n in 0..hosts {
        let mut line = format!("h{n:04} cpus=32 memory=256GiB site=s{}", n % 3);
        for k in 0..4 {
            write!(line, " has:v{}={}MiB", (n * 7 + k * 11) % 40, 200 + (n * 37 + k) % 800)
                .unwrap();
        }
        if n % 4 == 0 {
            line += " kvm";
        }
        if n % 50 == 7 {
            line += " draining";
        }
        fleet.hosts.push(host(line.split_whitespace()));
    }
    for n in 0..instances {
        let mut line = format!(
            "i{n:05} version=v{} base=1GiB cpus={} memory={}MiB",
            n % 40,
            1 + n % 4,
            512 << (n % 5)
        );
        if n % 3 == 0 {
            write!(line, " near=s{}", n % 2).unwrap();
        }
        if n % 5 == 0 {
            write!(line, " apart=g{}", n / 20).unwrap();
        }
        if n % 16 == 0 {
            line += " kvm";
        }
        fleet.instances.push(instance(line.split_whitespace()));
    }
    fleet
}
