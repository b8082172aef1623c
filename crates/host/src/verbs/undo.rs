//! `undo`: back to a checkpoint. What is undone is kept as a branch.

use api::UndoPrint;
use model::{CheckpointId, InstanceState, Name};

use super::StartOptions;
use crate::auto::line::{self, Parting};
use crate::failure::{Failure, Result};
use crate::record::{Head, Why};
use crate::shim::claim;
use crate::shim::order::Start;
use crate::store::{Advance, Branch, Store};
use crate::{Host, ports};

impl Host {
    /// Goes back to checkpoint `to`. A running instance runs on from there.
    ///
    /// Without `to`, to the last checkpoint that somebody took, or, when nothing has happened since,
    /// to the one before: automatic ones do not change what `undo` means, because the last of them
    /// may be younger than the mistake. After a crash, which was no mistake, to the newest of all.
    pub fn undo(&self, name: &Name, to: Option<&str>, options: &StartOptions) -> Result<UndoPrint> {
        self.undo_as(name, to, options, false)
    }

    /// The same; with `take_over`, also what another host runs, which is fenced by it.
    pub(super) fn undo_as(
        &self,
        name: &Name,
        to: Option<&str>,
        options: &StartOptions,
        take_over: bool,
    ) -> Result<UndoPrint> {
        let began = ambient::now();
        let store = self.writable_store()?;
        let Some((_, head)) = store.head(name)?.head else {
            return Err(self.absent(&store, name));
        };
        let runs_here = self.runs_here(name)?;
        let state = self.state_of(&store, name)?;
        if state == InstanceState::Running && !runs_here && !take_over {
            let host = head.lease.map_or_else(String::new, |lease| lease.holder_name);
            return Err(Failure::new(
                "lease",
                format!("{name} runs on host {host}"),
                "undo it there, or suspend it there first",
            ));
        }
        let target = match (to, head.checkpoint) {
            (Some(wanted), _) => store.find_checkpoint(&head, wanted)?,
            (None, Some(last)) if state == InstanceState::Failed => last,
            (None, Some(_)) if runs_here => before_updates(&store, &head, head.explicit())?,
            (None, Some(last)) => before_updates(&store, &head, store.checkpoint(last)?.parent)?,
            (None, None) => return Err(nothing(&head)),
        };
        // Only what can be reached is ever given up: the target is read first.
        let target_record = store.checkpoint(target)?;

        let mut ports = options.ports.clone();
        if ports.is_empty() {
            ports = self.remembered_ports_of_running(name, runs_here)?;
        }
        let branch = if runs_here {
            Some(self.suspend_as(name, Some("undone"), true)?.checkpoint)
        } else if state == InstanceState::Failed {
            self.leftovers_to_branch(&store, name)?
        } else {
            head.checkpoint.filter(|last| *last != target).map(|id| id.to_string())
        };

        ambient::step("undo: branch kept");
        let (generation, mut current) = match store.head(name)?.head {
            Some(found) => found,
            None => return Err(claim::not_found(name)),
        };
        // What the other host may still write there becomes a branch when it comes back.
        if let Some(lease) = current.lease.take_if(|lease| lease.holder != self.dir.id()) {
            line::taken_over(&mut current, lease.holder);
        }
        let current = line::without_parcel(current);
        let parting = parting(&store, &current, target)?;
        // The line after the target would be unreachable: it becomes a branch, with the automatic
        // checkpoints on it.
        let tip = match &branch {
            Some(id) if runs_here => Some(
                id.parse()
                    .map_err(|_| Failure::new("internal", "the shim named no checkpoint", ""))?,
            ),
            // Unless it lies on the line that goes on: then nothing is left behind.
            _ => current
                .checkpoint
                .filter(|last| *last != target && parting.stay.iter().all(|auto| auto.id != *last)),
        };
        let autos = parting.leave.len() as u64;
        if let Some(tip) = tip {
            store.add_branch(&current, tip, parting.left, parting.leave)?;
        }
        let resumed = if target_record.memory.is_some() {
            InstanceState::Suspended
        } else {
            InstanceState::Stopped
        };
        let moved = Head {
            checkpoint: Some(target),
            state: resumed,
            lease: None,
            // Its memory goes on a second time from there: it must not draw the same randomness.
            vmgenid: ambient::random(),
            autos: parting.stay,
            // Where the line had an update, the version before it comes back too.
            follow: store.follow_at(&current, target, &target_record)?,
            version: target_record.version,
            macs: claim::macs_for(&store, current.macs.clone(), target_record.version)?,
            // An update that is gone back to has to show again that it works.
            trial: Store::trial_at(&target_record)
                .filter(|trial| !current.gone.contains(&trial.back)),
            ..current
        };
        if store.advance(generation, &moved)? == Advance::Fenced {
            return Err(Failure::new(
                "fenced",
                format!("another host has moved {name} meanwhile"),
                "`collective ps` shows where it is; nothing was lost",
            ));
        }
        ambient::step("undo: moved");
        let mut state = moved.state;
        if runs_here {
            let ports = ports::settle(&ports::free(&ports))?;
            let start = Start::Existing { take_over: false, at: None };
            self.start_on_trial(&store, name, start, &ports, options, began)?;
            state = InstanceState::Running;
        }
        Ok(UndoPrint {
            name: name.to_string(),
            checkpoint: target.to_string(),
            branch,
            autos,
            state: state.as_str().to_owned(),
        })
    }

    fn remembered_ports_of_running(&self, name: &Name, runs: bool) -> Result<Vec<model::PortMap>> {
        // While it runs its ports are taken, by itself: they are free when it is started again.
        if runs {
            Ok(self.local(name).read()?.map_or_else(Vec::new, |local| ports::read(&local.ports)))
        } else {
            self.remembered_ports(name)
        }
    }

    /// What a crashed instance had written since its last checkpoint becomes a branch.
    pub(super) fn leftovers_to_branch(&self, store: &Store, name: &Name) -> Result<Option<String>> {
        let chunks = crate::peers::Chunks::of(&self.dir, store);
        crate::shim::leftovers::to_branch(store, &chunks, &self.dir, name)
            .map(|id| id.map(|id| id.to_string()))
    }
}

/// How the line parts when its head goes back to `target`, wherever that is.
fn parting(store: &Store, head: &Head, target: CheckpointId) -> Result<Parting> {
    let taken = store.taken_on(head)?;
    if head.autos.iter().any(|auto| auto.id == target) || taken.contains(&target) {
        return Ok(line::go_back(head, &taken, target));
    }
    let branches = store.branches(head.instance)?;
    // First where an automatic one is listed: there its place on the line is known.
    let listed = |branch: &&Branch| branch.head.autos.iter().any(|auto| auto.id == target);
    for branch in branches.iter().filter(listed).chain(&branches) {
        let there = store.taken_on(&branch.head)?;
        if listed(&branch) || branch.checkpoint == target || there.contains(&target) {
            return Ok(line::go_over(head, &taken, &branch.head, &there, target));
        }
    }
    Ok(line::go_back(head, &taken, target))
}

/// The checkpoint itself, or what was before it where it is an update: that is undone by going back
/// before it. What is gone is passed over.
fn before_updates(
    store: &Store,
    head: &Head,
    mut at: Option<CheckpointId>,
) -> Result<CheckpointId> {
    while let Some(id) = at {
        let checkpoint = store.checkpoint(id)?;
        let is_update = checkpoint.why == Why::Update;
        if !is_update && !head.is_gone(id) {
            return Ok(id);
        }
        at = checkpoint.change.and_then(|change| change.back).or(checkpoint.parent);
    }
    Err(nothing(head))
}

fn nothing(head: &Head) -> Failure {
    let name = &head.name;
    if !head.autos.is_empty() {
        return Failure::new(
            "not_found",
            format!("nobody has taken a checkpoint of {name} to go back to"),
            format!(
                "it has automatic ones: `collective undo {name} --to \"10 minutes ago\"`; \
                 `collective history {name}` lists them"
            ),
        );
    }
    Failure::new(
        "not_found",
        format!("{name} has no checkpoint to go back to"),
        format!("`collective checkpoint {name}` takes one; `collective history {name}` lists them"),
    )
}
