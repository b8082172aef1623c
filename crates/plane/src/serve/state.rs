//! What the plane remembers, and under which keys.
//!
//! | key | value |
//! | --- | --- |
//! | `hosts/ID` | what a host said last, and what is to become of it |
//! | `alive/ID` | nothing; it is there as long as the host's lease |
//! | `instances/NAME` | what somebody wants of an instance |
//!
//! All of it can be lost: hosts say it again, and people wish it again.

use std::collections::{BTreeMap, HashSet};

use api::{
    BeatReply, ChoicePrint, HostPrint, HostReport, HostWish, InstanceWish, PlacedPrint, PlanPrint,
};
use kv::{Condition, Entry, KvError, Outcome, Revision, Txn};
use model::{HostId, Name};
use serde::{Deserialize, Serialize};

use super::{Plane, Refused};
use crate::fleet::{Fleet, Host, HostState, Instance, Need};
use crate::planner::{self, Decision};

/// How often something is tried again that somebody else has changed at the same time.
const TRIES: usize = 16;

/// `hosts/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct HostRecord {
    report: HostReport,
    wish: HostWish,
}

type Result<T> = std::result::Result<T, Refused>;

impl Plane {
    /// A host says that it is there, and what it has.
    pub(super) fn beat(&self, id: HostId, report: HostReport) -> Result<BeatReply> {
        for id in report.cached.keys() {
            version(id)?;
        }
        let begun_again = self.keep_alive(id)?;
        let lease_ms = self.lease.as_millis() as u64;
        let key = format!("hosts/{id}");
        for _ in 0..TRIES {
            let (txn, wish) = match self.kv.get(&key)? {
                Some(entry) => {
                    let record: HostRecord = read(&entry)?;
                    if record.report == report {
                        return Ok(BeatReply { lease_ms, begun_again, state: word(record.wish) });
                    }
                    let new = HostRecord { report: report.clone(), ..record };
                    (Txn::replace(&key, entry.revision, json(&new)), record.wish)
                }
                None => {
                    let wish = HostWish::Ready;
                    let new = HostRecord { report: report.clone(), wish };
                    (Txn::create(&key, json(&new)), wish)
                }
            };
            if self.kv.commit(&txn)?.is_done() {
                return Ok(BeatReply { lease_ms, begun_again, state: word(wish) });
            }
        }
        Err(Refused::changed(&format!("host {id}")))
    }

    /// Begins a host's lease anew; whether there was none.
    fn keep_alive(&self, id: HostId) -> Result<bool> {
        let key = format!("alive/{id}");
        let lease = self.kv.get(&key)?.and_then(|entry| entry.lease);
        match lease.map(|lease| self.kv.keep_alive(lease)) {
            Some(Ok(())) => return Ok(false),
            Some(Err(KvError::LeaseGone)) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        let lease = self.kv.grant(self.lease)?;
        self.kv.commit(&Txn::new().put_leased(&key, "", lease))?;
        Ok(true)
    }

    /// All hosts, by name.
    pub(super) fn hosts(&self) -> Result<Vec<HostPrint>> {
        let alive = self.alive()?;
        let mut hosts = Vec::new();
        for entry in self.kv.list("hosts/")?.entries {
            hosts.push(print(&entry, &alive)?);
        }
        hosts.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(hosts)
    }

    pub(super) fn host(&self, id: HostId) -> Result<(Revision, HostPrint)> {
        let entry = self.kv.get(&format!("hosts/{id}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("host {id}")))?;
        Ok((entry.revision, print(&entry, &self.alive()?)?))
    }

    fn alive(&self) -> Result<HashSet<String>> {
        let entries = self.kv.list("alive/")?.entries;
        Ok(entries.into_iter().map(|entry| entry.key["alive/".len()..].to_owned()).collect())
    }

    /// Says what is to become of a host; at this revision, if one is given.
    pub(super) fn wish_host(&self, id: HostId, at: Option<Revision>, wish: HostWish) -> Result<()> {
        let key = format!("hosts/{id}");
        for _ in 0..TRIES {
            let entry = self.kv.get(&key)?;
            let entry = entry.ok_or_else(|| Refused::not_found(&format!("host {id}")))?;
            if at.is_some_and(|at| at != entry.revision) {
                return Err(Refused::changed(&format!("host {id}")));
            }
            let record: HostRecord = read(&entry)?;
            if record.wish == wish {
                return Ok(());
            }
            let txn = Txn::replace(&key, entry.revision, json(&HostRecord { wish, ..record }));
            if self.kv.commit(&txn)?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("host {id}")))
    }

    /// Forgets a host that is gone.
    pub(super) fn forget_host(&self, id: HostId) -> Result<()> {
        let (revision, host) = self.host(id)?;
        let still = |why: &str| {
            let detail = format!("host {} {why}", host.name);
            Err(Refused::new(
                409,
                "state",
                detail,
                "drain it, end its agent, and wait for its lease",
            ))
        };
        if host.state != HostState::Gone.as_str() {
            return still("is there");
        }
        let txn = Txn::remove(&format!("hosts/{id}"), revision)
            .when(&format!("alive/{id}"), Condition::Absent);
        match self.kv.commit(&txn)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused => still("has come back"),
        }
    }

    /// All instances, by name.
    pub(super) fn instances(&self) -> Result<Vec<PlacedPrint>> {
        let held = self.held()?;
        let mut instances = Vec::new();
        for entry in self.kv.list("instances/")?.entries {
            instances.push(placed(&entry, &held)?);
        }
        Ok(instances)
    }

    pub(super) fn instance(&self, name: &Name) -> Result<(Revision, PlacedPrint)> {
        let entry = self.kv.get(&format!("instances/{name}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("instance {name}")))?;
        Ok((entry.revision, placed(&entry, &self.held()?)?))
    }

    /// Who says that it holds an instance: of several, who wrote the newest generation.
    fn held(&self) -> Result<BTreeMap<String, (u64, String)>> {
        let mut held: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for entry in self.kv.list("hosts/")?.entries {
            let record: HostRecord = read(&entry)?;
            for seen in record.report.instances {
                let holds = (seen.generation, entry.key["hosts/".len()..].to_owned());
                match held.get(&seen.name) {
                    Some(other) if *other >= holds => {}
                    _ => drop(held.insert(seen.name, holds)),
                }
            }
        }
        Ok(held)
    }

    /// Wishes for an instance; under this condition, if one is given.
    pub(super) fn wish(
        &self,
        name: &Name,
        condition: Option<Condition>,
        wish: &InstanceWish,
    ) -> Result<Revision> {
        instance(name.clone(), wish, None)?;
        let key = format!("instances/{name}");
        let txn = Txn::new().put(&key, json(wish));
        let txn = condition.into_iter().fold(txn, |txn, condition| txn.when(&key, condition));
        match self.kv.commit(&txn)? {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Refused => Err(Refused::changed(&format!("instance {name}"))),
        }
    }

    /// Wishes for it no longer. The instance itself is in its repository.
    pub(super) fn forget(&self, name: &Name, at: Option<Revision>) -> Result<()> {
        let (revision, _) = self.instance(name)?;
        let txn = Txn::remove(&format!("instances/{name}"), at.unwrap_or(revision));
        match self.kv.commit(&txn)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused => Err(Refused::changed(&format!("instance {name}"))),
        }
    }

    /// What would be done now.
    pub(super) fn plan(&self) -> Result<PlanPrint> {
        let mut fleet = Fleet::default();
        let mut names = BTreeMap::new();
        // Hosts before leases: one that is thought to be gone was known before.
        let entries = self.kv.list("hosts/")?.entries;
        let alive = self.alive()?;
        for entry in &entries {
            let host = host(entry, &alive)?;
            names.insert(host.id, host.name.clone());
            fleet.hosts.push(host);
        }
        for placed in self.instances()? {
            let at = placed.host.and_then(|id| id.parse().ok());
            fleet.instances.push(instance(name(&placed.name)?, &placed.wish, at)?);
        }
        let plan = planner::plan(&fleet);
        let named = |id: HostId| names.get(&id).cloned();
        let choices = plan.choices.into_iter().map(|choice| {
            let (decision, source, target) = match choice.decision {
                Decision::Place { on } => ("place", None, named(on)),
                Decision::Move { source, on } => ("move", named(source), named(on)),
                Decision::Rescue { source, on } => ("rescue", named(source), named(on)),
                Decision::Nowhere { source } => ("nowhere", source.and_then(named), None),
            };
            ChoicePrint {
                instance: choice.instance.to_string(),
                decision: decision.to_owned(),
                source,
                target,
                why: choice.why.reasons().to_vec(),
            }
        });
        Ok(PlanPrint { choices: choices.collect(), stay: plan.stay as u64 })
    }
}

fn word(wish: HostWish) -> String {
    match wish {
        HostWish::Ready => HostState::Ready,
        HostWish::Cordoned => HostState::Cordoned,
        HostWish::Draining => HostState::Draining,
    }
    .as_str()
    .to_owned()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("types of ours are always JSON")
}

fn read<T: for<'de> Deserialize<'de>>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        let detail = format!("{} in the state cannot be read: {error}", entry.key);
        Refused::new(500, "damaged", detail, "remove it: its host or its user says it again")
    })
}

fn host(entry: &Entry, alive: &HashSet<String>) -> Result<Host> {
    let record: HostRecord = read(entry)?;
    let id = &entry.key["hosts/".len()..];
    let state = match record.wish {
        _ if !alive.contains(id) => HostState::Gone,
        HostWish::Ready => HostState::Ready,
        HostWish::Cordoned => HostState::Cordoned,
        HostWish::Draining => HostState::Draining,
    };
    let cached = record.report.cached.iter();
    Ok(Host {
        id: host_id(id)?,
        name: record.report.name,
        state,
        labels: record.report.labels,
        cpus: record.report.cpus,
        memory_bytes: record.report.memory_bytes,
        kvm: record.report.kvm,
        cached: cached.map(|(id, bytes)| Ok((version(id)?, *bytes))).collect::<Result<_>>()?,
    })
}

fn print(entry: &Entry, alive: &HashSet<String>) -> Result<HostPrint> {
    let record: HostRecord = read(entry)?;
    let host = host(entry, alive)?;
    Ok(HostPrint {
        id: host.id.to_string(),
        name: host.name,
        state: host.state.as_str().to_owned(),
        labels: host.labels,
        instances: record.report.instances.len() as u64,
        cache_bytes: record.report.cache_bytes,
        cpus: host.cpus,
        memory_bytes: host.memory_bytes,
        kvm: host.kvm,
    })
}

fn placed(entry: &Entry, held: &BTreeMap<String, (u64, String)>) -> Result<PlacedPrint> {
    let name = entry.key["instances/".len()..].to_owned();
    let host = held.get(&name).map(|(_, host)| host.clone());
    Ok(PlacedPrint { name, wish: read(entry)?, host })
}

fn instance(name: Name, wish: &InstanceWish, at: Option<HostId>) -> Result<Instance> {
    let need = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(Need::Label { key: key.to_owned(), value: value.to_owned() })
        }
        None if text == "kvm" => Ok(Need::Kvm),
        _ => Err(Refused::wrong(format!("{text:?} is no need: write kvm, or LABEL=VALUE"))),
    };
    Ok(Instance {
        name,
        version: version(&wish.version)?,
        base_bytes: wish.base_bytes,
        cpus: wish.cpus,
        memory_bytes: wish.memory_bytes,
        needs: wish.needs.iter().map(need).collect::<Result<_>>()?,
        near: wish.near.clone(),
        apart: wish.apart.clone(),
        at,
    })
}

fn version(text: &str) -> Result<model::VersionId> {
    text.parse().map_err(|error| Refused::wrong(format!("{text:?}: {error}")))
}

pub(super) fn host_id(text: &str) -> Result<HostId> {
    text.parse().map_err(|error| Refused::wrong(format!("{text:?}: {error}")))
}

pub(super) fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|error| Refused::wrong(error.to_string()))
}
