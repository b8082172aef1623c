//! The planner by scripts: what is there, and what it decides, in words.
//!
//! `tests/scripts/NAME.txt` is the script, `NAME.out` what it must print; with `COLLECTIVE_BLESS=1`
//! it is written anew. A line of a script is one of:
//!
//! ```text
//! host NAME cpus=8 memory=16GiB [kvm] [STATE] [LABEL=VALUE ...] [has:VERSION=1GiB ...]
//!      [far:SITE=12ms ...]
//! want NAME version=web base=1GiB cpus=2 memory=4GiB [kvm] [need:LABEL=VALUE] [near=SITE]
//!      [apart=GROUP] [at=HOST] [uses=150%] [unsaved=64MiB] [pinned]
//! set HOST STATE
//! load HOST 160%/40%     how busy it is: its CPUs, its memory
//! wait MINUTES
//! plan            decides, prints, and does what was decided
//! rebalance       decides what relieves hosts, prints it, and does it
//! ```

#[path = "fleets/mod.rs"]
mod fleets;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use fleets::{host, instance, large, load, state};
use model::HostId;
use plane::fleet::{Fleet, HostState, Instance, Load};
use plane::planner::{Choice, Decision, HOST_REST_MS, INSTANCE_REST_MS, LOW, plan, rebalance};

fn run(script: &str) -> String {
    let mut fleet = Fleet::default();
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        match words.next().unwrap() {
            "host" => fleet.hosts.push(host(words)),
            "want" => fleet.instances.push(instance(words)),
            "set" => {
                let name = words.next().unwrap();
                let host = fleet.hosts.iter_mut().find(|host| host.name == name).unwrap();
                host.state = state(words.next().unwrap()).unwrap();
            }
            "plan" => {
                let plan = plan(&fleet);
                writeln!(out, "plan: {} stay, {} looks", plan.stay, plan.looks).unwrap();
                plan.choices.iter().for_each(|choice| print(choice, &fleet, &mut out));
                plan.choices.iter().for_each(|choice| obey(choice, &mut fleet));
            }
            "load" => {
                let name = words.next().unwrap();
                let host = fleet.hosts.iter_mut().find(|host| host.name == name).unwrap();
                host.load = Some(load(words.next().unwrap()));
            }
            "wait" => time_goes_by(&mut fleet, words.next().unwrap().parse::<u64>().unwrap()),
            "rebalance" => {
                let plan = plan(&fleet);
                let relief = rebalance(&fleet, &plan);
                writeln!(out, "rebalance: {} overloaded", relief.overloaded.len()).unwrap();
                for host in &mut fleet.hosts {
                    let over = relief.overloaded.iter().find(|over| over.host == host.id);
                    host.overloaded = over.is_some();
                    if let Some(over) = over {
                        writeln!(out, "  {}: {}", host.name, over.why).unwrap();
                    }
                }
                relief.choices.iter().for_each(|choice| print(choice, &fleet, &mut out));
                relief.choices.iter().for_each(|choice| obey(choice, &mut fleet));
            }
            other => panic!("{other}"),
        }
    }
    out
}

fn time_goes_by(fleet: &mut Fleet, minutes: u64) {
    let hosts = fleet.hosts.iter_mut().map(|host| &mut host.relief_ms_ago);
    let instances = fleet.instances.iter_mut().map(|instance| &mut instance.moved_ms_ago);
    hosts.chain(instances).flatten().for_each(|ago| *ago += minutes * 60_000);
}

fn print(Choice { instance, decision, why }: &Choice, fleet: &Fleet, out: &mut String) {
    let name = |id| fleet.hosts.iter().find(|host| host.id == id).unwrap().name.clone();
    let what = match *decision {
        Decision::Place { on } => format!("-> {}", name(on)),
        Decision::Move { source, on } | Decision::Relieve { source, on } => {
            format!("{} -> {}", name(source), name(on))
        }
        Decision::Rescue { source, on } => format!("{} (gone) -> {}", name(source), name(on)),
        Decision::Nowhere { source: None } => "-> nowhere".to_owned(),
        Decision::Nowhere { source: Some(source) } => format!("{} -> nowhere", name(source)),
    };
    writeln!(out, "  {instance} {what}: {why}").unwrap();
}

fn obey(choice: &Choice, fleet: &mut Fleet) {
    let wanted = |instance: &&mut Instance| instance.name == choice.instance;
    let instance = fleet.instances.iter_mut().find(wanted).unwrap();
    if let Some(on) = choice.decision.target() {
        instance.at = Some(on);
    }
    if let Decision::Relieve { source, on } = choice.decision {
        instance.moved_ms_ago = Some(0);
        for host in fleet.hosts.iter_mut().filter(|host| [source, on].contains(&host.id)) {
            host.relief_ms_ago = Some(0);
        }
    }
}

#[test]
fn scripts_are_decided_as_agreed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut wrong = Vec::new();
    let mut run_count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "txt") {
            continue;
        }
        run_count += 1;
        let out = run(&std::fs::read_to_string(&path).unwrap());
        let golden = path.with_extension("out");
        if std::env::var_os("COLLECTIVE_BLESS").is_some() {
            std::fs::write(&golden, &out).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if out != expected {
            wrong.push(format!("{}: expected\n{expected}\nfound\n{out}", golden.display()));
        }
    }
    assert!(run_count >= 6 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_in_which_it_is_told_does_not_matter() {
    let mut fleet = large(20, 100);
    let choices = |fleet: &Fleet| -> Vec<_> {
        plan(fleet).choices.into_iter().map(|c| (c.instance, c.decision, c.why)).collect()
    };
    let first = choices(&fleet);
    fleet.hosts.reverse();
    fleet.instances.reverse();
    assert_eq!(choices(&fleet), first);
}

#[test]
fn a_plan_of_ten_thousand_looks_at_each_host_once_for_each() {
    let mut fleet = large(1000, 10_000);
    let first = plan(&fleet);
    assert_eq!((first.choices.len(), first.stay), (10_000, 0));
    assert_eq!(first.looks, 10_000 * 1000);
    let nowhere = |c: &Choice| matches!(c.decision, Decision::Nowhere { .. });
    assert!(!first.choices.iter().any(nowhere), "there is room for all");
    held_to(&fleet, &first.choices);
    for choice in &first.choices {
        obey(choice, &mut fleet);
    }
    // A host's death moves what it had, and nothing else.
    let dead = fleet.hosts[17].id;
    fleet.hosts[17].state = HostState::Gone;
    let lost = fleet.instances.iter().filter(|i| i.at == Some(dead)).count();
    assert!(lost > 0);
    let second = plan(&fleet);
    assert_eq!((second.choices.len(), second.stay), (lost, 10_000 - lost));
    assert_eq!(second.looks, lost as u64 * 1000);
    assert!(second.choices.iter().all(|c| matches!(c.decision, Decision::Rescue { .. })));
    for choice in &second.choices {
        obey(choice, &mut fleet);
    }
    assert_eq!(plan(&fleet).choices.len(), 0, "what was decided stays decided");
}

/// A fleet in which what is to be done changes all the time, and then no more: each host is as busy as what
/// it has makes it.
#[test]
fn hosts_are_relieved_and_nothing_goes_back_and_forth() {
    const MINUTES: u64 = 12 * 60;
    for seed in 1..=20u64 {
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |count: u64| {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            (chance >> 11) % count
        };
        let mut fleet = large(30, 150);
        for choice in plan(&fleet).choices {
            obey(&choice, &mut fleet);
        }
        let (mut moved, mut last): (u32, BTreeMap<String, u64>) = (0, BTreeMap::new());
        for minute in 0..MINUTES {
            // For the second half nothing changes by itself.
            if minute < MINUTES / 2 {
                let which = below(150) as usize;
                let instance = &mut fleet.instances[which];
                instance.cpu_percent = Some([0, 20, 800, 2400][below(4) as usize]);
                instance.unsaved_bytes = Some(below(1 << 30));
                instance.stays = which.is_multiple_of(10);
            }
            busy(&mut fleet);
            let relief = rebalance(&fleet, &plan(&fleet));
            for host in &mut fleet.hosts {
                host.overloaded = relief.overloaded.iter().any(|over| over.host == host.id);
            }
            for choice in &relief.choices {
                let Decision::Relieve { source, on } = choice.decision else {
                    panic!("{choice:?}")
                };
                let instance = |i: &&Instance| i.name == choice.instance;
                assert!(!fleet.instances.iter().find(instance).unwrap().stays, "{choice:?}");
                let names = [choice.instance.to_string(), source.to_string(), on.to_string()];
                for (name, rest_ms) in
                    names.into_iter().zip([INSTANCE_REST_MS, HOST_REST_MS, HOST_REST_MS])
                {
                    let before = last.insert(name, minute);
                    let rested = |before| (minute - before) * 60_000 >= rest_ms;
                    assert!(before.is_none_or(rested), "seed {seed}, {minute}: {choice:?}");
                }
                obey(choice, &mut fleet);
            }
            if !relief.choices.is_empty() {
                moved += relief.choices.len() as u32;
                busy(&mut fleet);
                // Nobody who gave or got is made worse than who was too busy.
                for choice in &relief.choices {
                    let on = choice.decision.target();
                    let target = fleet.hosts.iter().find(|host| Some(host.id) == on).unwrap();
                    let load = target.load.unwrap();
                    assert!(load.cpu_percent <= LOW.cpu_percent, "{load:?}: {choice:?}");
                }
                assert!(
                    minute < MINUTES * 3 / 4,
                    "seed {seed}: it never ends: {:?}",
                    relief.choices
                );
            }
            time_goes_by(&mut fleet, 1);
        }
        assert!(moved > 0, "seed {seed}");
    }
}

/// Each host is as busy as what it has makes it.
fn busy(fleet: &mut Fleet) {
    let mut used: BTreeMap<HostId, u32> = BTreeMap::new();
    for instance in &fleet.instances {
        let uses = instance.cpu_percent.unwrap_or_default();
        *used.entry(instance.at.unwrap()).or_default() += uses;
    }
    for host in &mut fleet.hosts {
        let used = used.get(&host.id).copied().unwrap_or_default();
        host.load = Some(Load { cpu_percent: used / host.cpus, memory_percent: 10 });
    }
}

/// No host is promised more than it has, and no group meets.
fn held_to(fleet: &Fleet, choices: &[Choice]) {
    let mut memory: BTreeMap<HostId, u64> = BTreeMap::new();
    let mut groups = std::collections::BTreeSet::new();
    let instances: BTreeMap<_, _> = fleet.instances.iter().map(|i| (&i.name, i)).collect();
    for choice in choices {
        let Decision::Place { on } = choice.decision else { panic!("{:?}", choice.decision) };
        let instance = instances[&choice.instance];
        *memory.entry(on).or_default() += instance.memory_bytes;
        if let Some(group) = &instance.apart {
            assert!(groups.insert((on, group)), "two of {group} on {on}");
        }
    }
    for host in &fleet.hosts {
        let used = memory.get(&host.id).copied().unwrap_or_default();
        assert!(used <= host.memory_bytes);
        assert!(used == 0 || host.state == HostState::Ready);
    }
}
