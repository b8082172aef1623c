//! The planner by scripts: what is there, and what it decides, in words.
//!
//! `tests/scripts/NAME.txt` is the script, `NAME.out` what it must print; with `COLLECTIVE_BLESS=1`
//! it is written anew. A line of a script is one of:
//!
//! ```text
//! host NAME cpus=8 memory=16GiB [kvm] [STATE] [LABEL=VALUE ...] [has:VERSION=1GiB ...]
//! want NAME version=web base=1GiB cpus=2 memory=4GiB [kvm] [need:LABEL=VALUE] [near=SITE]
//!      [apart=GROUP] [at=HOST]
//! set HOST STATE
//! plan            decides, prints, and does what was decided
//! ```

#[path = "fleets/mod.rs"]
mod fleets;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use fleets::{host, instance, large, state};
use model::HostId;
use plane::fleet::{Fleet, HostState, Instance};
use plane::planner::{Choice, Decision, plan};

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
            other => panic!("{other}"),
        }
    }
    out
}

fn print(Choice { instance, decision, why }: &Choice, fleet: &Fleet, out: &mut String) {
    let name = |id| fleet.hosts.iter().find(|host| host.id == id).unwrap().name.clone();
    let what = match *decision {
        Decision::Place { on } => format!("-> {}", name(on)),
        Decision::Move { source, on } => format!("{} -> {}", name(source), name(on)),
        Decision::Rescue { source, on } => format!("{} (gone) -> {}", name(source), name(on)),
        Decision::Nowhere { source: None } => "-> nowhere".to_owned(),
        Decision::Nowhere { source: Some(source) } => format!("{} -> nowhere", name(source)),
    };
    writeln!(out, "  {instance} {what}: {why}").unwrap();
}

fn obey(choice: &Choice, fleet: &mut Fleet) {
    let wanted = |instance: &&mut Instance| instance.name == choice.instance;
    let instance = fleet.instances.iter_mut().find(wanted).unwrap();
    match choice.decision {
        Decision::Place { on } | Decision::Move { on, .. } | Decision::Rescue { on, .. } => {
            instance.at = Some(on);
        }
        Decision::Nowhere { .. } => {}
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
