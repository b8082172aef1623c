//! Instances: what somebody wants of them, and what was seen of them.

use std::cmp::Ordering;

use api::{HeadSeen, InstanceChange, InstanceSeen, InstanceWish, PlacedPrint};
use kv::{Condition, Entry, Outcome, Revision, Txn};
use model::{HostId, Name};

use super::{
    InstanceRecord, PlaceRecord, Result, SeenRecord, TRIES, TroubleRecord, host_id, json, read,
    version,
};
use crate::fleet::{Instance, Need};
use crate::serve::{Plane, Refused};

impl Plane {
    /// All instances that somebody wants something of, by name.
    pub(in crate::serve) fn instances(&self) -> Result<Vec<PlacedPrint>> {
        let entries = self.kv.list("instances/")?.entries;
        entries.iter().map(|entry| self.print(entry)).collect()
    }

    pub(in crate::serve) fn instance(&self, name: &Name) -> Result<(Revision, PlacedPrint)> {
        let entry = self.kv.get(&format!("instances/{name}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("instance {name}")))?;
        Ok((entry.revision, self.print(&entry)?))
    }

    fn print(&self, entry: &Entry) -> Result<PlacedPrint> {
        let name = entry.key["instances/".len()..].to_owned();
        let record: InstanceRecord = read(entry)?;
        let head = self.seen(&name)?.map(|(_, seen)| seen.head);
        let place: Option<PlaceRecord> =
            self.kv.get(&format!("places/{name}"))?.as_ref().map(read).transpose()?;
        let trouble: Option<TroubleRecord> =
            self.kv.get(&format!("trouble/{name}"))?.as_ref().map(read).transpose()?;
        let host = head.as_ref().and_then(|head| head.holder.clone());
        let host_lives = match &host {
            Some(id) => self.kv.get(&format!("alive/{id}"))?.is_some(),
            None => false,
        };
        Ok(PlacedPrint {
            name,
            wish: record.wish,
            host,
            host_lives,
            state: head.as_ref().map_or_else(|| "unknown".to_owned(), |head| head.state.clone()),
            generation: head.as_ref().map_or(0, |head| head.generation),
            checkpoint_unix_ms: head.and_then(|head| head.checkpoint_unix_ms),
            next: place.and_then(|place| place.next),
            trouble: trouble.and_then(|record| record.trouble),
        })
    }

    /// Wishes for an instance; under this condition, if one is given.
    pub(in crate::serve) fn wish(
        &self,
        name: &Name,
        condition: Option<Condition>,
        wish: &InstanceWish,
    ) -> Result<Revision> {
        as_planned(name.clone(), wish, None)?;
        wish.on.as_deref().map(host_id).transpose()?;
        let key = format!("instances/{name}");
        let at = self.seen(name.as_str())?.map(|(_, seen)| seen.head.generation);
        let record = InstanceRecord { wish: wish.clone(), at };
        let txn = Txn::new().put(&key, json(&record)).delete(&format!("trouble/{name}"));
        let txn = condition.into_iter().fold(txn, |txn, condition| txn.when(&key, condition));
        match self.kv.commit(&txn)? {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Refused => Err(Refused::changed(&format!("instance {name}"))),
        }
    }

    /// Changes what is wished; at this revision, if one is given.
    pub(in crate::serve) fn rewish(
        &self,
        name: &Name,
        at: Option<Revision>,
        change: &InstanceChange,
    ) -> Result<Revision> {
        let key = format!("instances/{name}");
        for _ in 0..TRIES {
            let entry = self.kv.get(&key)?;
            let entry = entry.ok_or_else(|| Refused::not_found(&format!("instance {name}")))?;
            if at.is_some_and(|at| at != entry.revision) {
                return Err(Refused::changed(&format!("instance {name}")));
            }
            let InstanceRecord { wish, .. } = read(&entry)?;
            let wish = InstanceWish {
                state: change.state.unwrap_or(wish.state),
                restart: change.restart.unwrap_or(wish.restart),
                on: change.on.clone().or(wish.on),
                take_over: change.take_over || change.take_over_anyway,
                take_over_anyway: change.take_over_anyway,
                ..wish
            };
            match self.wish(name, Some(Condition::At(entry.revision)), &wish) {
                Err(refused) if refused.status == 412 => {}
                other => return other,
            }
        }
        Err(Refused::changed(&format!("instance {name}")))
    }

    /// Wishes for it no longer. The instance itself is in its repository.
    pub(in crate::serve) fn forget(&self, name: &Name, at: Option<Revision>) -> Result<()> {
        let (revision, _) = self.instance(name)?;
        let txn = Txn::remove(&format!("instances/{name}"), at.unwrap_or(revision))
            .delete(&format!("places/{name}"))
            .delete(&format!("trouble/{name}"))
            .delete(&format!("seen/{name}"));
        match self.kv.commit(&txn)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused => Err(Refused::changed(&format!("instance {name}"))),
        }
    }

    pub(super) fn seen(&self, name: &str) -> Result<Option<(Revision, SeenRecord)>> {
        let entry = self.kv.get(&format!("seen/{name}"))?;
        entry.map(|entry| Ok((entry.revision, read(&entry)?))).transpose()
    }

    /// The host that holds it says what it does.
    pub(super) fn said_by_holder(&self, id: HostId, seen: &InstanceSeen) -> Result<()> {
        let head = HeadSeen {
            name: seen.name.clone(),
            generation: seen.generation,
            holder: Some(id.to_string()),
            state: seen.state.clone(),
            checkpoint_unix_ms: None,
        };
        self.sight(SeenRecord { head, looked: false })
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
    let said = SeenRecord {
        head: HeadSeen { checkpoint_unix_ms, ..new.head.clone() },
        looked: new.looked,
    };
    let record = match new.head.generation.cmp(&old.head.generation) {
        Ordering::Less => return None,
        Ordering::Greater => said,
        // Of one head its holder knows more: what the guest does.
        Ordering::Equal if new.looked => SeenRecord { looked: true, ..old.clone() },
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
    })
}
