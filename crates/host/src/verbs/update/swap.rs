//! The one moment of an update: other system disks, the same data disks.
//!
//! *Invariants.* The instance is at rest, and what it goes back to is what the head says that is
//! advanced: whoever was faster is not overwritten.

use model::{CheckpointId, InstanceState, Name, PortMap, VersionId};

use super::dress::{dressed, fits};
use super::{ROOM, fenced};
use crate::Host;
use crate::failure::{Failure, Result};
use crate::makers::Release;
use crate::record::{Change, Checkpoint, Follow, Head, Traces, Why};
use crate::shim::claim;
use crate::store::{Advance, Store};
use crate::verbs::StartOptions;

/// What is put under the user's data.
pub(super) struct Swap<'a> {
    pub name: &'a Name,
    /// The record of the version that it gets.
    pub version: VersionId,
    /// As its maker numbers it.
    pub number: &'a str,
    pub change: Change,
    /// What it goes back to if that does not work, where that is not the head's checkpoint: taken
    /// just before it stopped.
    pub back: Option<CheckpointId>,
}

impl Change {
    /// To what its maker released.
    pub(super) fn of(release: &Release, from: VersionId, to: VersionId) -> Self {
        let says = &release.update;
        Self {
            from,
            to,
            back: None,
            tried: true,
            within_s: says.healthy_within_s,
            migrate: says.migrate.clone(),
            health: says.health.clone(),
        }
    }
}

impl Host {
    /// An error while there is too little room on this host's disk for another start: before anything is
    /// stopped for it.
    pub(super) fn has_room(&self) -> Result<()> {
        let free = crate::dir::free_bytes(self.dir.root())?;
        if free >= ROOM {
            return Ok(());
        }
        let (free, room) = (model::format_bytes(free), model::format_bytes(ROOM));
        let message = format!(
            "{free} are free in {}, and {room} are needed to change its version",
            self.dir.root().display()
        );
        Err(Failure::new("no_space", message, "free some space; nothing was changed or stopped"))
    }

    /// After a swap that could not be done: nothing was changed but that it has stopped, and it goes on
    /// where it was. Gives what to say.
    pub(super) fn unswapped(
        &self,
        store: &Store,
        name: &Name,
        back: Option<CheckpointId>,
        ports: &[PortMap],
        start: &StartOptions,
        failure: Failure,
    ) -> Failure {
        let Some(back) = back else {
            return failure.during(format!("{name} was not changed"));
        };
        match self.go_back(store, name, back, ports, start, ambient::now()) {
            Ok(_) => failure.during(format!("{name} was not changed, and is as it was")),
            // Whatever hindered the one may hinder the other.
            Err(also) => Failure::new(
                failure.kind,
                format!("{name} was not changed, and does not run now: {failure}; {also}"),
                failure.hint,
            )
            .and(&format!(
                "`collective undo {name} --to {}` goes on with the session as it was",
                back.short()
            )),
        }
    }

    /// Swaps, in one advance of the head.
    pub(super) fn swap(&self, store: &Store, swap: &Swap<'_>) -> Result<()> {
        let Swap { name, version, number, change, back } = swap;
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(claim::not_found(name));
        };
        let last = head.checkpoint.map(|id| store.checkpoint(id)).transpose()?;
        let is_now = head.follow.as_ref().is_some_and(|follow| follow.release == change.from);
        // Between the point to go back to and this, it stopped and did nothing else.
        let follows = back.is_none_or(|back| last.as_ref().and_then(|l| l.parent) == Some(back));
        if head.state != InstanceState::Stopped || head.trial.is_some() || !is_now || !follows {
            return Err(fenced(name));
        }
        let old = store.version(head.version)?;
        let new = store.version(*version)?;
        fits(name, &old, &new)?;
        let now = match &last {
            Some(checkpoint) => checkpoint.disks.clone(),
            None => old.first_disks(head.warm).to_vec(),
        };
        let mut session = store.session()?;
        let disks_of_it = new.disks.len();
        let (dressed, disks) = dressed(&old, &now, new);
        let version_id = if dressed.disks.len() == disks_of_it {
            *version
        } else {
            session.put_version(&dressed)?
        };
        let checkpoint = Checkpoint {
            instance: head.instance,
            parent: head.explicit(),
            version: version_id,
            label: Some(format!("update to {number}")),
            why: Why::Update,
            taken_unix_ms: ambient::unix_ms(),
            memory: None,
            disks,
            dirty_bytes: 0,
            stored_bytes: 0,
            pause_us: None,
            traces: Traces::default(),
            change: Some(Change { back: back.or(head.checkpoint), ..change.clone() }),
        };
        let id = session.put_checkpoint(&checkpoint)?;
        session.finish()?;
        ambient::step("update: stored");
        let next = Head {
            version: version_id,
            checkpoint: Some(id),
            state: InstanceState::Stopped,
            lease: None,
            warm: false,
            macs: claim::macs_for(store, head.macs.clone(), version_id)?,
            follow: head.follow.clone().map(|follow| Follow { release: change.to, ..follow }),
            trial: Store::trial_at(&checkpoint),
            parcel: None,
            ..head
        };
        if store.advance(generation, &next)? == Advance::Fenced {
            return Err(fenced(name));
        }
        ambient::step("update: visible");
        Ok(())
    }
}
