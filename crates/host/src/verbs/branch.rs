//! `rm NAME@BRANCH`: forgets a branch, and nothing else; `rm NAME@CHECKPOINT`: forgets one checkpoint of the line.
//!
//! *Invariants.* What the branch shares with the instance's own line, with other branches and with forks
//! stays: each of those names it too. A branch that something needs is refused.
//!
//! *Crash.* The branch is there, or it is not; its bytes go with the collections after that.

use std::collections::BTreeSet;

use api::StatePrint;
use model::CheckpointId;

use crate::Host;
use crate::failure::{Failure, Result};
use crate::inside::Subject;
use crate::record::Head;
use crate::store::{Branch, Store};

impl Host {
    /// Removes a branch of an instance: what `undo` kept, or what a host that crashed or was fenced out
    /// had. With `force`, also one that something needs.
    pub fn rm_branch(&self, subject: &Subject, force: bool) -> Result<StatePrint> {
        let store = self.writable_store()?;
        let name = &subject.name;
        let wanted = subject.checkpoint.as_deref().unwrap_or_default();
        let Some((generation, head)) = store.head(name)?.head else {
            return Err(self.absent(&store, name));
        };
        let tip = store.find_checkpoint(&head, wanted)?;
        let removed = StatePrint {
            name: format!("{name}@{}", tip.short()),
            state: "removed".to_owned(),
            checkpoint: Some(tip.to_string()),
        };
        if store.taken_on(&head)?.contains(&tip) || head.autos.iter().any(|auto| auto.id == tip) {
            let mut plan = store.plan_forgetting(generation, &head, tip, force)?;
            plan.running.drain(..).try_for_each(|asked| self.ask_to_forget(&asked))?;
            if store.thin_out(plan)?.contains(&head.instance) {
                let again = format!("`collective rm {name}@{}` again", tip.short());
                return Err(Failure::new("fenced", format!("{name} has gone on meanwhile"), again));
            }
            return Ok(removed);
        }
        let mut branch = Some(find(&store, &head, tip)?);
        // Somebody may thin it out meanwhile.
        while let Some(found) = branch {
            if !force {
                unneeded(&store, &head, &found)?;
            }
            store.retire_branch(&found)?;
            let left = store.branches(head.instance)?;
            branch = left.into_iter().find(|branch| branch.checkpoint == tip);
        }
        ambient::step("rm: branch forgotten");
        Ok(removed)
    }
}

/// The branch whose last checkpoint this is, which is not on the line.
fn find(store: &Store, head: &Head, id: CheckpointId) -> Result<Branch> {
    let name = &head.name;
    let mut on: Option<(usize, CheckpointId)> = None;
    for branch in store.branches(head.instance)? {
        if branch.checkpoint == id {
            return Ok(branch);
        }
        let there = store.taken_on(&branch.head)?;
        let is_there = there.contains(&id) || branch.head.autos.iter().any(|auto| auto.id == id);
        // Of several that have it, the one that it is nearest to the end of.
        if is_there && on.is_none_or(|(length, _)| there.len() < length) {
            on = Some((there.len(), branch.checkpoint));
        }
    }
    let short = id.short();
    Err(match on.map(|(_, tip)| tip.short()) {
        Some(tip) => Failure::new(
            "usage",
            format!("{short} is a part of the branch {tip}, and goes with it"),
            format!("`collective rm {name}@{tip}` removes that branch"),
        ),
        None => Failure::new(
            "usage",
            format!("{short} is neither on the line of {name} nor on a branch of it"),
            format!("`collective history {name}` lists what is"),
        ),
    })
}

/// Refuses what something needs of a branch that nothing else keeps.
fn unneeded(store: &Store, head: &Head, branch: &Branch) -> Result<()> {
    let name = &head.name;
    let taken: BTreeSet<CheckpointId> = store.taken_on(head)?.into_iter().collect();
    let own = store.only_on(branch, head, &taken)?;
    let own: BTreeSet<CheckpointId> = own.into_iter().map(|(id, _)| id).collect();
    let tip = branch.checkpoint.short();
    if head.holds.iter().any(|hold| own.contains(&hold.checkpoint)) {
        return Err(Failure::new(
            "state",
            format!("a host that lost {name} may have writes that rest on the branch {tip}"),
            format!(
                "use {name} once on that host, which stores them; if it is gone for good: `collective rm \
                 {name}@{tip} --force`"
            ),
        ));
    }
    if head.trial.is_some_and(|trial| own.contains(&trial.back)) {
        return Err(Failure::new(
            "state",
            format!("{name} goes back to the branch {tip} if its update does not work"),
            format!("`collective inspect {name}` says when that is decided"),
        ));
    }
    for other in store.branches(head.instance)? {
        if other.checkpoint != branch.checkpoint
            && other.head.left.is_some_and(|left| own.contains(&left))
        {
            let other = other.checkpoint.short();
            return Err(Failure::new(
                "state",
                format!("the branch {other} of {name} began on the branch {tip}"),
                format!(
                    "`collective rm {name}@{other}` first; or `collective rm {name}@{tip} --force`: the other \
                     one then stands by itself"
                ),
            ));
        }
    }
    Ok(())
}
