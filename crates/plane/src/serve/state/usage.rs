//! What the instances of a project take, counted as they are wished for.
//!
//! A host starts nothing that is larger than was wished for; what is larger all the same (it was started
//! by hand, or has a new version) is wished for as large as it is from the next beat on.
//!
//! What was stored is the meter's ([`Plane::stored`]), which hears of it later: a project that has stored
//! what its quota allows makes and starts nothing more, and what runs goes on and stores.
//!
//! **Invariant:** `usage/PROJECT` is the sum over the project's instances: each commit that changes one
//! changes it too, or is refused when somebody else has changed it meanwhile. So several planes that
//! admit at once admit no more than one would.

use kv::{Condition, Entry, Outcome, Revision, Txn};
use model::{Name, format_bytes};
use serde::{Deserialize, Serialize};

use api::{Quota, StateWish};

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

    /// What is beyond a quota, of what is more than before.
    fn over(self, before: Self, quota: &Quota) -> Option<String> {
        let count = |number: u64| number.to_string();
        let parts = [
            (
                "instances",
                before.instances,
                self.instances,
                quota.instances,
                count as fn(u64) -> String,
            ),
            ("CPUs", before.cpus, self.cpus, quota.cpus, count),
            ("memory", before.memory_bytes, self.memory_bytes, quota.memory_bytes, format_bytes),
        ];
        parts.into_iter().find_map(|(what, before, now, most, words)| {
            let most = most.filter(|most| now > before && now > *most)?;
            Some(format!(
                "{what}: {} of {}, and it would be {}",
                words(before),
                words(most),
                words(now)
            ))
        })
    }

    fn without(self, other: Self) -> Self {
        Self {
            instances: self.instances.saturating_sub(other.instances),
            cpus: self.cpus.saturating_sub(other.cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

fn refused(project: &Name, over: &str) -> Refused {
    let detail = format!("the quota of project {project} does not allow it: {over}");
    let hint = "stop or remove some of its instances, or ask an admin for more: `collective project quota`";
    Refused::new(409, "quota", detail, hint)
}

/// By what was ever stored: nobody says what of it is still there.
fn has_stored(project: &Name, stored: u64, most: u64) -> Refused {
    let (stored, most) = (format_bytes(stored), format_bytes(most));
    let detail =
        format!("the quota of project {project} does not allow it: stored: {stored} of {most}");
    let hint = "what runs goes on; ask an admin for more: `collective project quota --stored SIZE`";
    Refused::new(409, "quota", detail, hint)
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
        also: impl Fn(Txn) -> Result<Txn>,
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
                let sum = used.without(old).and(new);
                txn = txn.when(&usage, seen).put(&usage, json(&sum));
                if change.new.is_some() {
                    let (at, record) = self.project_record(&project)?;
                    // What has come about is counted, and not refused.
                    if ask.is_some()
                        && let Some(over) = sum.over(used, &record.quota)
                    {
                        return Err(refused(&project, &over));
                    }
                    if ask.is_some()
                        && (new.instances > old.instances || new.cpus > old.cpus)
                        && let Some(most) = record.quota.stored_bytes
                    {
                        let stored = self.stored(&project)?;
                        if stored >= most {
                            return Err(has_stored(&project, stored, most));
                        }
                    }
                    // In a project that is there, and says the same, when this is done.
                    let there = at.map_or(Condition::Absent, Condition::At);
                    txn = txn.when(&format!("projects/{project}"), there);
                }
            }
            let txn = also(txn)?;
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

#[cfg(test)]
impl Plane {
    /// What is counted of the project that is always there.
    pub(in crate::serve) fn counted(&self) -> Usage {
        self.usage(&Name::new(crate::access::DEFAULT_PROJECT).unwrap()).unwrap().1
    }

    /// The same, from its instances.
    pub(in crate::serve) fn counted_anew(&self) -> Usage {
        let records = self.kv.list("instances/").unwrap().entries;
        let each = records.iter().map(|entry| Usage::of(&read(entry).unwrap()));
        each.fold(Usage::default(), Usage::and)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use api::{InstanceChange, InstanceWish};

    use super::*;
    use crate::access::{Caller, DEFAULT_PROJECT};
    use crate::serve::ask::Request;

    fn asked<T>(by: impl FnOnce(&Ask<'_>) -> T) -> T {
        by(&Ask::new(&Request::default(), &Caller::Administrator, Vec::new()))
    }

    fn named(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn wish(plane: &Plane, of: &str, cpus: u32) -> Result<Revision> {
        let wish = InstanceWish::new("ab".repeat(32), cpus, 1 << 30);
        asked(|ask| plane.wish(ask, &named(of), None, &wish))
    }

    fn state(plane: &Plane, of: &str, state: StateWish) -> Result<Revision> {
        let change = InstanceChange { state: Some(state), ..Default::default() };
        asked(|ask| plane.rewish(ask, &named(of), None, &change))
    }

    #[track_caller]
    fn over(got: Result<Revision>, what: &str) {
        let refused = got.unwrap_err();
        assert_eq!((refused.status, refused.kind), (409, "quota"));
        assert!(refused.detail.ends_with(what) && !refused.hint.is_empty(), "{refused:?}");
    }

    #[test]
    fn planes_that_admit_at_once_never_go_beyond_a_quota() {
        let folder = tempfile::tempdir().unwrap();
        let location = format!("embedded:{}", folder.path().join("state").display());
        let one = Plane::open(&location, &folder.path().join("token"), Duration::from_secs(60));
        let one = one.unwrap();
        // A second plane on the same state, that knows nothing of the first one's turns.
        let authority = crate::identity::Authority::of(&one.secret).unwrap();
        let two = Plane::on(one.kv.clone(), one.secret.clone(), authority, one.lease);
        let default = named(DEFAULT_PROJECT);
        let quota = |quota: Quota| asked(|ask| one.put_quota(ask, &default, quota)).unwrap();
        quota(Quota { instances: Some(7), cpus: Some(12), ..Quota::default() });
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for (at, plane) in [&*one, &two, &one, &two].into_iter().enumerate() {
                let admitted = &admitted;
                scope.spawn(move || {
                    for n in 0..5 {
                        match wish(plane, &format!("i{at}-{n}"), 1) {
                            Ok(_) => drop(admitted.fetch_add(1, Ordering::Relaxed)),
                            got => over(got, "instances: 7 of 7, and it would be 8"),
                        }
                    }
                });
            }
        });
        let used = || one.usage(&default).unwrap().1;
        assert_eq!(admitted.into_inner(), 7);
        assert_eq!(used(), Usage { instances: 7, cpus: 7, memory_bytes: 7 << 30 });
        let there = one.kv.list("instances/").unwrap().entries;
        assert_eq!(there.len(), 7);

        // What rests takes no CPUs; it is let run again only while there are some.
        let names: Vec<_> = there.iter().map(|entry| &entry.key["instances/".len()..]).collect();
        over(wish(&one, names[0], 7), "CPUs: 7 of 12, and it would be 13");
        state(&one, names[0], StateWish::Suspended).unwrap();
        wish(&one, names[1], 7).unwrap();
        assert_eq!(used().cpus, 12);
        over(state(&one, names[0], StateWish::Running), "CPUs: 12 of 12, and it would be 13");
        // A bound that is lowered takes nothing away, and lets nothing more in.
        quota(Quota { memory_bytes: Some(1 << 30), ..Quota::default() });
        state(&one, names[2], StateWish::Stopped).unwrap();
        over(
            state(&one, names[2], StateWish::Running),
            "memory: 5.0 GiB of 1.0 GiB, and it would be 6.0 GiB",
        );
        for name in &names {
            asked(|ask| one.forget(ask, &named(name), None)).unwrap();
        }
        assert_eq!(used(), Usage::default());
    }

    #[test]
    fn what_a_host_says_is_larger_than_wished_counts_as_large_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let location = format!("embedded:{}", folder.path().join("state").display());
        let plane = Plane::open(&location, &folder.path().join("token"), Duration::from_secs(60));
        let plane = plane.unwrap();
        let quota = Quota { cpus: Some(4), memory_bytes: Some(4 << 30), ..Quota::default() };
        asked(|ask| plane.put_quota(ask, &named(DEFAULT_PROJECT), quota)).unwrap();
        wish(&plane, "web", 1).unwrap();
        let beat = |host: u8, cpus: u32, memory_gib: u64| {
            let seen = serde_json::json!({"name": "web", "state": "running", "generation": u64::from(host),
                "managed": true, "cpus": cpus, "memory_bytes": memory_gib << 30});
            let report = serde_json::json!({"name": "h", "cpus": 8, "memory_bytes": 1u64 << 33, "instances": [seen]});
            let report = serde_json::from_value(report).unwrap();
            plane.beat(model::HostId::from_bytes([host; 16]), report).unwrap();
        };
        let used = |cpus: u64, gib: u64| Usage { instances: 1, cpus, memory_bytes: gib << 30 };
        // A host that does not say so, and what is smaller.
        beat(5, 0, 0);
        beat(5, 1, 1);
        assert_eq!(plane.counted(), used(1, 1));
        // Beyond the quota it counts too; what is new is not let in then.
        beat(5, 6, 2);
        assert_eq!((plane.counted(), plane.counted_anew()), (used(6, 2), used(6, 2)));
        over(wish(&plane, "db", 1), "CPUs: 6 of 4, and it would be 7");
        // A host that had it once has no say.
        beat(4, 7, 7);
        assert_eq!(plane.counted(), used(6, 2));
        // Whoever lets it go on wishes for what it needs by now, and that has to be allowed.
        state(&plane, "web", StateWish::Suspended).unwrap();
        let change = InstanceChange {
            state: Some(StateWish::Running),
            memory_bytes: Some(5 << 30),
            ..Default::default()
        };
        over(
            asked(|ask| plane.rewish(ask, &named("web"), None, &change)),
            "CPUs: 0 of 4, and it would be 6",
        );
    }

    #[test]
    fn a_project_that_has_stored_what_it_may_makes_and_starts_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let location = format!("embedded:{}", folder.path().join("state").display());
        let plane = Plane::open(&location, &folder.path().join("token"), Duration::from_secs(60));
        let plane = plane.unwrap();
        let default = named(DEFAULT_PROJECT);
        let quota = |gib: u64| {
            let quota = Quota { stored_bytes: Some(gib << 30), ..Quota::default() };
            asked(|ask| plane.put_quota(ask, &default, quota)).unwrap();
        };
        quota(2);
        wish(&plane, "web", 1).unwrap();
        wish(&plane, "db", 1).unwrap();
        state(&plane, "db", StateWish::Suspended).unwrap();
        let host = model::HostId::from_bytes([5; 16]);
        let report = serde_json::json!({"name": "h", "cpus": 8, "memory_bytes": 1u64 << 33, "instances":
            [{"name": "web", "state": "running", "generation": 1, "managed": true}]});
        plane.beat(host, serde_json::from_value(report).unwrap()).unwrap();
        let says = |number: u64, stored_bytes: u64| {
            let run = serde_json::json!({"run": "1", "name": "web", "appliance": "acme/web",
                "stored_bytes": stored_bytes});
            let report = serde_json::json!({"number": number, "runs": [run]});
            plane.meter(host, &serde_json::from_value(report).unwrap()).unwrap().number
        };
        let number = says(0, (2 << 30) - 1);
        state(&plane, "db", StateWish::Running).unwrap();
        state(&plane, "db", StateWish::Suspended).unwrap();
        says(number, 2 << 30);
        let full = "stored: 2.0 GiB of 2.0 GiB";
        over(wish(&plane, "new", 1), full);
        over(state(&plane, "db", StateWish::Running), full);
        // What runs goes on, and rests when it is told to; another project stores for itself.
        state(&plane, "web", StateWish::Running).unwrap();
        state(&plane, "web", StateWish::Stopped).unwrap();
        asked(|ask| plane.add_project(ask, &named("default2"))).unwrap();
        assert_eq!(plane.stored(&named("default2")).unwrap(), 0);
        quota(3);
        wish(&plane, "new", 1).unwrap();
    }
}
