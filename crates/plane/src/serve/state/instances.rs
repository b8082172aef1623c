//! Instances: what somebody wants of them, and what was seen of them.

use std::cmp::Ordering;

use api::{HeadSeen, InstanceChange, InstanceSeen, InstanceWish, PlacedPrint};
use kv::{Condition, Entry, Outcome, Revision, Txn};
use model::{HostId, Name};

use super::operations::OperationRecord;
use super::projects::Belongs;
use super::usage::Change;
use super::{
    GoneRecord, InstanceRecord, MoveRecord, PlaceRecord, Result, SeenRecord, TRIES, TroubleRecord,
    WayRecord, host_id, json, read, version,
};
use crate::access::{Caller, Demand, Right};
use crate::fleet::{Instance, Need};
use crate::serve::ask::{Ask, forbidden};
use crate::serve::{Plane, Refused};

/// How long it is known where an instance belonged that was removed.
const GONE_MS: u64 = 24 * 3600 * 1000;
/// More memory than any computer has: sums of it stay numbers.
const MEMORY_BYTES_MAX: u64 = 1 << 46;

impl Plane {
    /// The instances that the caller may see, by name.
    pub(in crate::serve) fn instances(&self, caller: &Caller) -> Result<Vec<PlacedPrint>> {
        let mut seen = Vec::new();
        for entry in self.kv.list("instances/")?.entries {
            let record: InstanceRecord = read(&entry)?;
            if caller.may_in(&record.belongs.project, Right::See) {
                seen.push(self.print(&entry, record)?);
            }
        }
        Ok(seen)
    }

    pub(in crate::serve) fn instance(
        &self,
        ask: &Ask<'_>,
        name: &Name,
    ) -> Result<(Revision, PlacedPrint)> {
        let (entry, record) = self.allowed(ask, name, Right::See)?;
        Ok((entry.revision, self.print(&entry, record)?))
    }

    /// An instance, for whoever may see it.
    pub(in crate::serve) fn placed(&self, name: &Name) -> Result<PlacedPrint> {
        let entry = self.kv.get(&format!("instances/{name}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("instance {name}")))?;
        let record = read(&entry)?;
        self.print(&entry, record)
    }

    /// An instance, when the caller may do this with it.
    fn allowed(&self, ask: &Ask<'_>, name: &Name, right: Right) -> Result<(Entry, InstanceRecord)> {
        let entry = self.kv.get(&format!("instances/{name}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("instance {name}")))?;
        let record: InstanceRecord = read(&entry)?;
        let Belongs { project, owner } = &record.belongs;
        ask.in_project(project);
        if !ask.caller.may_with(project, owner, right) {
            return Err(forbidden(Demand::Instance(right)));
        }
        Ok((entry, record))
    }

    fn print(&self, entry: &Entry, record: InstanceRecord) -> Result<PlacedPrint> {
        let name = entry.key["instances/".len()..].to_owned();
        let head = self.seen(&name)?.map(|(_, seen)| seen.head);
        let place: Option<PlaceRecord> =
            self.kv.get(&format!("places/{name}"))?.as_ref().map(read).transpose()?;
        let trouble: Option<TroubleRecord> =
            self.kv.get(&format!("trouble/{name}"))?.as_ref().map(read).transpose()?;
        let way: Option<WayRecord> =
            self.kv.get(&format!("ways/{name}"))?.as_ref().map(read).transpose()?;
        let next = place.and_then(|place| place.next);
        let trouble = trouble.and_then(|record| record.trouble);
        let operation = self.operation_of(&super::name(&name)?, (next.clone(), trouble.clone()))?;
        let moved: Option<MoveRecord> =
            self.kv.get(&format!("moves/{name}"))?.as_ref().map(read).transpose()?;
        let host = head.as_ref().and_then(|head| head.holder.clone());
        let host_lives = match &host {
            Some(id) => self.kv.get(&format!("alive/{id}"))?.is_some(),
            None => false,
        };
        Ok(PlacedPrint {
            name,
            project: record.belongs.project,
            owner: record.belongs.owner,
            wish: record.wish,
            host,
            host_lives,
            state: head.as_ref().map_or_else(|| "unknown".to_owned(), |head| head.state.clone()),
            generation: head.as_ref().map_or(0, |head| head.generation),
            checkpoint_unix_ms: head.and_then(|head| head.checkpoint_unix_ms),
            next,
            trouble,
            came: way.and_then(|way| way.came),
            relief: moved.map(MoveRecord::print),
            operation,
        })
    }

    /// Wishes for an instance; under this condition, if one is given. A new one belongs to the
    /// caller and to the project that the wish names; where one belongs does not change.
    pub(in crate::serve) fn wish(
        &self,
        ask: &Ask<'_>,
        name: &Name,
        condition: Option<Condition>,
        wish: &InstanceWish,
    ) -> Result<Revision> {
        as_planned(name.clone(), wish, None)?;
        wish.on.as_deref().map(host_id).transpose()?;
        let changed = || Refused::changed(&format!("instance {name}"));
        for _ in 0..TRIES {
            let old = match self.allowed(ask, name, Right::Own) {
                Ok((entry, record)) => Some((entry.revision, record)),
                Err(refused) if refused.status == 404 => None,
                // Who may not change it is not told more than that the name is taken.
                Err(_) if condition == Some(Condition::Absent) => return Err(changed()),
                Err(refused) => return Err(refused),
            };
            let now = old.as_ref().map_or(Condition::Absent, |(at, _)| Condition::At(*at));
            if condition.is_some_and(|condition| condition != now) {
                return Err(changed());
            }
            let belongs = match (&old, &wish.project) {
                (Some((_, old)), Some(project)) if old.belongs.project != *project => {
                    let detail = format!("{name} belongs to project {}", old.belongs.project);
                    let hint = "that does not change; fork it, or export it";
                    return Err(Refused::new(409, "state", detail, hint));
                }
                (Some((_, old)), _) => old.belongs.clone(),
                (None, project) => self.belongs(ask.caller, project.as_deref())?,
            };
            ask.in_project(&belongs.project);
            let only_new = match &old {
                Some((_, old)) => old.only_new,
                // Names are the repository's: somebody else may have a computer of this one there.
                None => {
                    !ask.caller.may_everywhere(Right::Operate)
                        && self.was_in(name)?.as_ref() != Some(&belongs.project)
                }
            };
            let whose = (belongs, only_new);
            let before = old.as_ref().map(|(_, old)| &old.wish);
            let asked = self.begun_operation(ask, name, (&whose.0, before), wish)?;
            let by = Some((ask, Some(&asked)));
            match self.put_wish(by, name, old.as_ref(), whose, wish)? {
                Outcome::Done(revision) => return Ok(revision),
                Outcome::Refused => {}
            }
        }
        Err(changed())
    }

    /// Puts a wish in the place of what was read; as an operation, if somebody asks for something.
    fn put_wish(
        &self,
        by: Option<(&Ask<'_>, Option<&OperationRecord>)>,
        name: &Name,
        old: Option<&(Revision, InstanceRecord)>,
        (belongs, only_new): (Belongs, bool),
        wish: &InstanceWish,
    ) -> Result<Outcome> {
        let at = self.seen(name.as_str())?.map(|(_, seen)| seen.head.generation);
        let wish = InstanceWish { project: None, ..wish.clone() };
        let new = InstanceRecord { wish, at, belongs, only_new };
        let old = old.map(|(at, record)| (*at, record));
        let change = Change { name, old, new: Some(&new) };
        self.change_instance(by.map(|(ask, _)| ask), &change, |txn| {
            let txn = txn.delete(&format!("trouble/{name}")).delete(&format!("gone/{name}"));
            match by.and_then(|(_, asked)| asked) {
                Some(asked) => self.with_operation(txn, asked),
                None => Ok(txn),
            }
        })
    }

    /// What has come about is what is wished from now on.
    pub(in crate::serve) fn settle(
        &self,
        name: &Name,
        old: &(Revision, InstanceRecord),
        wish: &InstanceWish,
    ) -> Result<()> {
        // Somebody else has wished something meanwhile: that is looked at next.
        let whose = (old.1.belongs.clone(), old.1.only_new);
        self.put_wish(None, name, Some(old), whose, wish).map(drop)
    }

    /// Changes what is wished; at this revision, if one is given.
    pub(in crate::serve) fn rewish(
        &self,
        ask: &Ask<'_>,
        name: &Name,
        at: Option<Revision>,
        change: &InstanceChange,
    ) -> Result<Revision> {
        change.on.as_deref().map(host_id).transpose()?;
        for _ in 0..TRIES {
            let (entry, record) = self.allowed(ask, name, Right::Own)?;
            if at.is_some_and(|at| at != entry.revision) {
                return Err(Refused::changed(&format!("instance {name}")));
            }
            let wish = InstanceWish {
                state: change.state.unwrap_or(record.wish.state),
                restart: change.restart.unwrap_or(record.wish.restart),
                on: change.on.clone().or(record.wish.on.clone()),
                cpus: change.cpus.unwrap_or(record.wish.cpus),
                memory_bytes: change.memory_bytes.unwrap_or(record.wish.memory_bytes),
                take_over: change.take_over || change.take_over_anyway,
                take_over_anyway: change.take_over_anyway,
                pinned: change.pinned.unwrap_or(record.wish.pinned),
                ..record.wish.clone()
            };
            as_planned(name.clone(), &wish, None)?;
            let whose = (record.belongs.clone(), record.only_new);
            let old = (entry.revision, record);
            // What it needs, or that it is pinned, is so at once.
            let asks = change.state.is_some()
                || change.on.is_some()
                || change.take_over
                || change.take_over_anyway;
            let asked = asks.then(|| {
                let before = (&whose.0, Some(&old.1.wish));
                self.begun_operation(ask, name, before, &wish)
            });
            let asked = asked.transpose()?;
            let by = Some((ask, asked.as_ref()));
            match self.put_wish(by, name, Some(&old), whose, &wish)? {
                Outcome::Done(revision) => return Ok(revision),
                Outcome::Refused => {}
            }
        }
        Err(Refused::changed(&format!("instance {name}")))
    }

    /// Wishes for it no longer. The instance itself is in its repository.
    pub(in crate::serve) fn forget(
        &self,
        ask: &Ask<'_>,
        name: &Name,
        at: Option<Revision>,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let (entry, record) = self.allowed(ask, name, Right::Own)?;
            if at.is_some_and(|at| at != entry.revision) {
                break;
            }
            self.may_be_forgotten(ask, name)?;
            if self.remove_wish(Some(ask), name, &(entry.revision, record))?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("instance {name}")))
    }

    /// What runs on by itself is counted nowhere: only an operator of all projects lets it.
    pub(super) fn may_be_forgotten(&self, ask: &Ask<'_>, name: &Name) -> Result<()> {
        let held = self.seen(name.as_str())?.and_then(|(_, seen)| seen.head.holder);
        if held.is_none() || ask.caller.may_everywhere(Right::Operate) {
            return Ok(());
        }
        let detail = format!("a host has {name}");
        let hint = "`collective suspend` or `collective stop` it first";
        Err(Refused::new(409, "state", detail, hint))
    }

    /// Removes what was read, with all that is known of it.
    pub(in crate::serve) fn remove_wish(
        &self,
        ask: Option<&Ask<'_>>,
        name: &Name,
        read: &(Revision, InstanceRecord),
    ) -> Result<Outcome> {
        let by = ask.map(|ask| ask.caller.name());
        self.remove_wish_and(ask, name, read, |txn| {
            self.without_operation(txn, name, by.as_deref())
        })
    }

    /// The same, and what `also` adds.
    pub(super) fn remove_wish_and(
        &self,
        ask: Option<&Ask<'_>>,
        name: &Name,
        (at, old): &(Revision, InstanceRecord),
        also: impl Fn(Txn) -> Result<Txn>,
    ) -> Result<Outcome> {
        let change = Change { name, old: Some((*at, old)), new: None };
        let known = ["places", "trouble", "seen", "since", "ways", "moves", "progress"];
        // Who hears of it later has to be told whose it was.
        let gone = GoneRecord { project: old.belongs.project.clone(), unix_ms: ambient::unix_ms() };
        self.change_instance(ask, &change, |txn| {
            let txn = txn.put(&format!("gone/{name}"), json(&gone));
            also(known.iter().fold(txn, |txn, known| txn.delete(&format!("{known}/{name}"))))
        })
    }

    /// The project of an instance that was removed lately.
    pub(in crate::serve) fn was_in(&self, name: &Name) -> Result<Option<String>> {
        let entry = self.kv.get(&format!("gone/{name}"))?;
        entry.map(|entry| Ok(read::<GoneRecord>(&entry)?.project)).transpose()
    }

    /// Forgets what was removed long ago.
    pub(in crate::serve) fn sweep_gone(&self) -> Result<()> {
        for entry in self.kv.list("gone/")?.entries {
            let record: GoneRecord = read(&entry)?;
            if record.unix_ms.saturating_add(GONE_MS) < ambient::unix_ms() {
                self.kv.commit(&Txn::remove(&entry.key, entry.revision))?;
            }
        }
        Ok(())
    }

    pub(super) fn seen(&self, name: &str) -> Result<Option<(Revision, SeenRecord)>> {
        let entry = self.kv.get(&format!("seen/{name}"))?;
        entry.map(|entry| Ok((entry.revision, read(&entry)?))).transpose()
    }

    /// A host says how large the machine is that it has made of what is wished for. That is what counts
    /// from then on, be it beyond a quota: what runs is not stopped, and nothing more is let in.
    pub(super) fn is_as_large(&self, id: HostId, seen: &InstanceSeen) -> Result<()> {
        let name = super::name(&seen.name)?;
        for _ in 0..TRIES {
            let Some(entry) = self.kv.get(&format!("instances/{name}"))? else { return Ok(()) };
            let record: InstanceRecord = read(&entry)?;
            let holder = self.seen(&seen.name)?.and_then(|(_, seen)| seen.head.holder);
            let cpus = record.wish.cpus.max(seen.cpus);
            let memory_bytes = seen.memory_bytes.min(MEMORY_BYTES_MAX);
            let memory_bytes = record.wish.memory_bytes.max(memory_bytes);
            let wish = InstanceWish { cpus, memory_bytes, ..record.wish.clone() };
            if wish == record.wish || holder.as_deref() != Some(&id.to_string()) {
                return Ok(());
            }
            let new = InstanceRecord { wish, ..record.clone() };
            let old = Some((entry.revision, &record));
            let change = Change { name: &name, old, new: Some(&new) };
            if self.change_instance(None, &change, Ok)?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("instance {name}")))
    }

    /// The host that holds it says what it does.
    pub(super) fn said_by_holder(&self, id: HostId, seen: &InstanceSeen) -> Result<()> {
        if seen.generation == 0 {
            // It has not taken it yet.
            return Ok(());
        }
        let head = HeadSeen {
            name: seen.name.clone(),
            generation: seen.generation,
            holder: Some(id.to_string()),
            state: seen.state.clone(),
            checkpoint_unix_ms: None,
            offered_by: None,
        };
        self.sight(SeenRecord { head, looked: false, was_none: false })
    }

    /// The host that holds it says nothing of it any more.
    pub(super) fn not_said_by_holder(&self, id: HostId, name: &str) -> Result<()> {
        for _ in 0..TRIES {
            let Some((revision, old)) = self.seen(name)? else { return Ok(()) };
            if !old.looked || old.head.holder.as_deref() != Some(&id.to_string()) {
                return Ok(());
            }
            let new = SeenRecord { looked: false, ..old };
            if self
                .kv
                .commit(&Txn::replace(&format!("seen/{name}"), revision, json(&new)))?
                .is_done()
            {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("instance {name}")))
    }

    /// Keeps what was seen, unless something newer was.
    pub(super) fn sight(&self, new: SeenRecord) -> Result<()> {
        let was_none = new.head.state == "none";
        let new = SeenRecord { was_none, ..new };
        let key = format!("seen/{}", new.head.name);
        for _ in 0..TRIES {
            let txn = match self.seen(&new.head.name)? {
                None => Txn::create(&key, json(&new)),
                Some((revision, old)) => match newer(&old, &new) {
                    Some(record) => Txn::replace(&key, revision, json(&record)),
                    None => return Ok(()),
                },
            };
            if self.kv.commit(&txn)?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("instance {}", new.head.name)))
    }
}

/// What is known when both were said; none: nothing that was not known.
fn newer(old: &SeenRecord, new: &SeenRecord) -> Option<SeenRecord> {
    let checkpoint_unix_ms = new.head.checkpoint_unix_ms.or(old.head.checkpoint_unix_ms);
    let was_none = old.was_none || new.was_none;
    let said = SeenRecord {
        head: HeadSeen { checkpoint_unix_ms, ..new.head.clone() },
        looked: new.looked,
        was_none,
    };
    let record = match new.head.generation.cmp(&old.head.generation) {
        Ordering::Less => return None,
        Ordering::Greater => said,
        // Of one head its holder knows more: what the guest does.
        Ordering::Equal if new.looked => SeenRecord { looked: true, was_none, ..old.clone() },
        Ordering::Equal => said,
    };
    (record != *old).then_some(record)
}

/// An instance as the planner sees it.
pub fn as_planned(name: Name, wish: &InstanceWish, at: Option<HostId>) -> Result<Instance> {
    let need = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(Need::Label { key: key.to_owned(), value: value.to_owned() })
        }
        None if text == "kvm" => Ok(Need::Kvm),
        _ => Err(Refused::wrong(format!("{text:?} is no need: write kvm, or LABEL=VALUE"))),
    };
    let network = wish.network.as_ref().map(|network| Need::Label {
        key: format!("{}{network}", api::NETWORK_LABEL),
        value: "yes".to_owned(),
    });
    let needs = wish.needs.iter().map(need).collect::<Result<Vec<_>>>()?;
    if wish.memory_bytes > MEMORY_BYTES_MAX {
        return Err(Refused::wrong(format!("{} bytes of memory", wish.memory_bytes)));
    }
    Ok(Instance {
        name,
        version: version(&wish.version)?,
        base_bytes: wish.base_bytes,
        cpus: wish.cpus,
        memory_bytes: wish.memory_bytes,
        needs: needs.into_iter().chain(network).collect(),
        near: wish.near.clone(),
        apart: wish.apart.clone(),
        at,
        stays: wish.pinned,
        cpu_percent: None,
        unsaved_bytes: None,
        moved_ms_ago: None,
    })
}
