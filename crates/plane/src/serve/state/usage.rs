//! What the instances of a project take, counted as they are wished for.
//!
//! **Invariant:** `usage/PROJECT` is the sum over the project's instances: each commit that changes one
//! changes it too, or is refused when somebody else has changed it meanwhile. So several planes that
//! admit at once admit no more than one would.

use kv::{Condition, Entry, Outcome, Revision, Txn};
use model::Name;
use serde::{Deserialize, Serialize};

use api::StateWish;

use super::{InstanceRecord, Result, TRIES, json, name, read};
use crate::serve::ask::Ask;
use crate::serve::{Plane, Refused};

/// `usage/PROJECT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub instances: u64,
    /// Of those that are to run.
    pub cpus: u64,
    pub memory_bytes: u64,
}

impl Usage {
    fn of(record: &InstanceRecord) -> Self {
        let runs = u64::from(record.wish.state == StateWish::Running);
        Self {
            instances: 1,
            cpus: runs * u64::from(record.wish.cpus),
            memory_bytes: runs * record.wish.memory_bytes,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            instances: self.instances.saturating_add(other.instances),
            cpus: self.cpus.saturating_add(other.cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            instances: self.instances.saturating_sub(other.instances),
            cpus: self.cpus.saturating_sub(other.cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

/// A change of what is wished of an instance.
pub struct Change<'a> {
    pub name: &'a Name,
    /// What was read, and when it was changed last.
    pub old: Option<(Revision, &'a InstanceRecord)>,
    pub new: Option<&'a InstanceRecord>,
}

impl Plane {
    /// Commits a change of an instance, and what else `also` adds; refused when the instance is no
    /// longer what was read.
    pub(super) fn change_instance(
        &self,
        ask: Option<&Ask<'_>>,
        change: &Change<'_>,
        also: impl Fn(Txn) -> Txn,
    ) -> Result<Outcome> {
        let key = format!("instances/{}", change.name);
        let old = change.old.map(|(_, record)| Usage::of(record)).unwrap_or_default();
        let new = change.new.map(Usage::of).unwrap_or_default();
        let belongs = change.new.or(change.old.map(|(_, record)| record)).map(|r| &r.belongs);
        let project = name(belongs.map_or("", |belongs| &belongs.project))?;
        for _ in 0..TRIES {
            let condition = change.old.map_or(Condition::Absent, |(at, _)| Condition::At(at));
            let mut txn = Txn::new().when(&key, condition);
            txn = match change.new {
                Some(record) => txn.put(&key, json(record)),
                None => txn.delete(&key),
            };
            if old != new {
                let (entry, used) = self.usage(&project)?;
                let usage = format!("usage/{project}");
                let seen = entry.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
                txn = txn.when(&usage, seen).put(&usage, json(&used.without(old).and(new)));
            }
            if change.old.is_none() {
                // In a project that is there when this is done.
                let (at, _) = self.project_record(&project)?;
                let there = at.map_or(Condition::Absent, Condition::At);
                txn = txn.when(&format!("projects/{project}"), there);
            }
            let txn = also(txn);
            let outcome = match ask {
                Some(ask) => self.commit(ask, txn)?,
                None => self.kv.commit(&txn)?,
            };
            // It was the instance that somebody else has changed, or the count: that is read again.
            if outcome.is_done()
                || self.kv.get(&key)?.map(|entry| entry.revision) != change.old.map(|(at, _)| at)
            {
                return Ok(outcome);
            }
        }
        Err(Refused::changed(&format!("project {project}")))
    }

    /// What a project's instances take. None has been counted when it is read for the first time.
    pub(super) fn usage(&self, project: &Name) -> Result<(Option<Entry>, Usage)> {
        if let Some(entry) = self.kv.get(&format!("usage/{project}"))? {
            let usage = read(&entry)?;
            return Ok((Some(entry), usage));
        }
        let mut sum = Usage::default();
        for entry in self.kv.list("instances/")?.entries {
            let record: InstanceRecord = read(&entry)?;
            if record.belongs.project == project.as_str() {
                sum = sum.and(Usage::of(&record));
            }
        }
        Ok((None, sum))
    }
}
