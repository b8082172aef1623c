//! Relief of hosts that are overloaded, in the state: what leaves is [`crate::planner`]'s choice.
//!
//! ```text
//! moves/NAME is written ──▶ its host has an order to let it go ──▶ the head has no holder: it starts at
//!                                                                   the target
//! ```
//!
//! **Invariant:** that an instance moves is written before its host hears of it, in one commit with when
//! both hosts last took part: planes that decide at once decide once, and who dies in between has begun
//! a rest.
//! *What is not done* within [`UNDER_WAY_MS`], or not any more as it was decided (somebody has wished
//! something else, the head has gone on, a host went away), is forgotten; the rest counts all the same.

use std::collections::BTreeMap;

use api::{HostWish, LoadSeen, ReliefPrint, StateWish};
use kv::{Condition, Revision, Txn};
use model::{HostId, InstanceState, Name};
use serde::{Deserialize, Serialize};

use super::picture::Picture;
use super::{Result, json, read};
use crate::fleet::{Host, Instance, Load};
use crate::planner::{Choice, Decision, HOST_REST_MS, Relief};
use crate::serve::Plane;

/// Keys that begin so say how busy hosts are.
pub const LOADS: &str = "loads/";
/// So long an instance may be on its way: no longer than its hosts rest.
const UNDER_WAY_MS: u64 = HOST_REST_MS;

/// `moves/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRecord {
    pub source: String,
    pub target: String,
    /// The generation of its head that it was decided by.
    pub at: u64,
    pub unix_ms: u64,
    pub why: Vec<String>,
}

impl MoveRecord {
    pub fn print(self) -> ReliefPrint {
        let Self { source, target, unix_ms, why, .. } = self;
        ReliefPrint { from: source, to: target, unix_ms, why }
    }
}

/// `relief/ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReliefRecord {
    pub overloaded: bool,
    /// When an instance last left it, or came to it, to relieve a host.
    pub unix_ms: Option<u64>,
}

impl Plane {
    /// Keeps how busy a host says it is.
    pub(super) fn keep_load(&self, id: HostId, load: Option<LoadSeen>) -> Result<()> {
        let key = format!("{LOADS}{id}");
        let known: Option<LoadSeen> = self.kv.get(&key)?.as_ref().and_then(|e| read(e).ok());
        if known != load {
            let txn = match &load {
                Some(load) => Txn::new().put(&key, json(load)),
                None => Txn::new().delete(&key),
            };
            self.kv.commit(&txn)?;
        }
        Ok(())
    }

    /// How busy hosts are, by their ids.
    pub(super) fn loads(&self) -> Result<BTreeMap<String, LoadSeen>> {
        let entries = self.kv.list(LOADS)?.entries;
        entries
            .iter()
            .map(|entry| Ok((entry.key[LOADS.len()..].to_owned(), read(entry)?)))
            .collect()
    }

    /// Writes down which hosts are overloaded, and what leaves them; the picture has it then too.
    pub(in crate::serve) fn begin_relief(
        &self,
        picture: &mut Picture,
        relief: &Relief,
    ) -> Result<()> {
        for choice in &relief.choices {
            self.begin_move(picture, choice)?;
        }
        let ids: Vec<_> = picture.hosts.keys().copied().collect();
        for id in ids {
            let overloaded = relief.overloaded.iter().any(|over| over.host == id);
            let (at, known) = picture.relief.get(&id).copied().unwrap_or_default();
            if known.overloaded != overloaded {
                let txn = put_relief(Txn::new(), id, at, &ReliefRecord { overloaded, ..known });
                self.kv.commit(&txn)?;
            }
        }
        Ok(())
    }

    fn begin_move(&self, picture: &mut Picture, choice: &Choice) -> Result<()> {
        let Decision::Relieve { source, on } = choice.decision else { return Ok(()) };
        let name = &choice.instance;
        let (Some(seen), Some((wished, _))) = (picture.seen.get(name), picture.wishes.get(name))
        else {
            return Ok(());
        };
        let record = MoveRecord {
            source: source.to_string(),
            target: on.to_string(),
            at: seen.head.generation,
            unix_ms: picture.now_unix_ms,
            why: choice.why.reasons().to_vec(),
        };
        let key = format!("moves/{name}");
        let known = picture.moves.get(name).map_or(Condition::Absent, |(at, _)| Condition::At(*at));
        let mut txn = Txn::new()
            .when(&format!("instances/{name}"), Condition::At(*wished))
            .when(&key, known)
            .put(&key, json(&record));
        for (host, overloaded) in [(source, true), (on, false)] {
            let (at, _) = picture.relief.get(&host).copied().unwrap_or_default();
            let record = ReliefRecord { overloaded, unix_ms: Some(picture.now_unix_ms) };
            txn = put_relief(txn, host, at, &record);
        }
        if let kv::Outcome::Done(revision) = self.kv.commit(&txn)? {
            picture.moves.insert(name.clone(), (revision, record));
            for (host, overloaded) in [(source, true), (on, false)] {
                let record = ReliefRecord { overloaded, unix_ms: Some(picture.now_unix_ms) };
                picture.relief.insert(host, (Some(revision), record));
            }
        }
        // Somebody else has decided something meanwhile: that is looked at next.
        Ok(())
    }
}

fn put_relief(txn: Txn, id: HostId, at: Option<Revision>, record: &ReliefRecord) -> Txn {
    let key = format!("relief/{id}");
    txn.when(&key, at.map_or(Condition::Absent, Condition::At)).put(&key, json(record))
}

impl Picture {
    fn ago(&self, unix_ms: u64) -> u64 {
        // By clocks that differ it may be to come.
        self.now_unix_ms.saturating_sub(unix_ms)
    }

    /// A host with what is known of how busy it is, and how far from others.
    pub(super) fn with_load(&self, host: Host) -> Host {
        let load = self.loads.get(&host.id);
        let (_, relief) = self.relief.get(&host.id).copied().unwrap_or_default();
        Host {
            load: load.map(|load| Load {
                cpu_percent: load.cpu_percent,
                memory_percent: load.memory_percent,
            }),
            round_trips_us: load.map(|load| load.round_trips_us.clone()).unwrap_or_default(),
            overloaded: relief.overloaded,
            relief_ms_ago: relief.unix_ms.map(|at| self.ago(at)),
            ..host
        }
    }

    /// An instance with what is known of what it costs to move it.
    pub(super) fn with_cost(&self, instance: Instance) -> Instance {
        let name = &instance.name;
        let holder = self.holder(name);
        let load = holder.and_then(|host| self.loads.get(&host)?.instances.get(name.as_str()));
        let load = load.copied().unwrap_or_default();
        // Only what runs, and nobody is about to do something with.
        let runs = holder.is_some_and(|host| {
            self.alive.contains(&host)
                && instance.at == Some(host)
                && self.says(host, name) == Some(InstanceState::Running)
        });
        let wish = self.wishes.get(name).map(|(_, record)| &record.wish);
        let free = wish.is_some_and(|wish| wish.on.is_none()) && !self.trouble.contains_key(name);
        let moved = self.moves.get(name).map(|(_, moved)| moved.unix_ms);
        let came = self.came.get(name).copied();
        Instance {
            stays: instance.stays || !runs || !free,
            cpu_percent: load.cpu_percent,
            unsaved_bytes: load.unsaved_bytes,
            moved_ms_ago: moved.into_iter().chain(came).map(|at| self.ago(at)).min(),
            ..instance
        }
    }

    /// Where an instance is on its way to, to relieve its host, and why.
    pub fn on_its_way(&self, of: &Name) -> Option<(HostId, &[String])> {
        let (_, moved) = self.moves.get(of)?;
        let (_, record) = self.wishes.get(of)?;
        let head = &self.seen.get(of)?.head;
        let (source, target) = (moved.source.parse().ok()?, moved.target.parse().ok()?);
        let left = head.holder.is_none() && moved.at.checked_add(1) == Some(head.generation);
        let leaves = self.holder(of) == Some(source)
            && self.alive.contains(&source)
            && moved.at == head.generation;
        let as_decided = record.wish.state == StateWish::Running
            && record.wish.on.is_none()
            && self.alive.contains(&target)
            && self.hosts.get(&target).is_some_and(|host| host.wish == HostWish::Ready);
        let in_time = self.ago(moved.unix_ms) < UNDER_WAY_MS;
        ((left || leaves) && as_decided && in_time).then_some((target, moved.why.as_slice()))
    }
}
