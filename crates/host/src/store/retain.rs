//! Thinning out what instances keep: automatic checkpoints, on their line and on branches; branches
//! that are nothing but what somebody undid; and, where that is asked for by itself, what somebody took on
//! an instance's line.
//!
//! *Invariants.* What somebody took stays unless there is a policy for just that; heads, what a host may hold
//! writes on top of, what a branch left the line at, what an update that stays goes back to, the origins of forks
//! and what is before them, labels, and what a crashed or fenced host had not stored stay whatever a policy
//! says. Of an instance that somebody runs, the line is its holder's to thin: who collects asks for it, and also what
//! lies shortly before its head stays.
//!
//! Each checkpoint that somebody took names the one before it. So one that goes leaves its record: its head says
//! that it is *gone*, and a collection keeps of it the record alone. Branches that lead over it say so too; a fork
//! that was made before does not, and keeps it.
//!
//! *Crash.* Each head and each branch is as it was, or thinned. While they do not all say that a checkpoint is
//! gone, all of it is kept. To be repeated.

use std::collections::BTreeSet;

use model::{CheckpointId, Generation, InstanceId};
use repository::{RefPayload, Target};

use super::{Advance, BRANCH, Branch, INSTANCE, Store, roots_of};
use crate::auto::Keep;
use crate::auto::thin::thin;
use crate::failure::{Failure, Result};
use crate::record::{self, AutoPoint, Checkpoint, GONE_MAX, Head, Why};

/// How many checkpoints before one that a host was seen to be based on may be what it is based on.
const BEFORE_HOLDS: u32 = 2;

/// What would go.
#[derive(Default)]
pub struct Thinning {
    heads: Vec<(Generation, Head)>,
    /// What those who run an instance are to be asked for, before the rest is done.
    pub running: Vec<Asked>,
    /// With the head that it is to have; none: all of it goes.
    branches: Vec<(Branch, Option<Head>)>,
    /// What that is, in words.
    pub words: Vec<String>,
}

/// Checkpoints that are to be gone of a line that somebody runs.
pub struct Asked {
    /// As it was when this was decided.
    pub head: Head,
    pub generation: Generation,
    pub checkpoints: Vec<CheckpointId>,
}

impl Thinning {
    /// Leaves the branches of an instance as they are.
    pub fn leave(&mut self, instance: InstanceId) {
        self.branches.retain(|(branch, _)| branch.head.instance != instance);
    }

    /// A line is to be as `next`.
    fn plan_line(&mut self, generation: Generation, head: &Head, next: Head) {
        if next == *head {
            return;
        }
        if head.lease.is_none() {
            self.heads.push((generation, next));
            return;
        }
        let autos = head.autos.iter().filter(|auto| !next.autos.contains(auto)).map(|auto| auto.id);
        let checkpoints = autos.chain(next.gone[head.gone.len()..].iter().copied()).collect();
        self.running.push(Asked { head: head.clone(), generation, checkpoints });
    }
}

impl Store {
    /// What `keep` does not keep of what was taken by itself and of what was undone, and `taken` of what somebody
    /// took, of all instances that say nothing of the latter themselves; None: all of that stays.
    pub fn plan_thinning(&self, keep: Option<&Keep>, taken: Option<&Keep>) -> Result<Thinning> {
        let mut plan = Thinning::default();
        let heads = self.heads()?;
        let origins: BTreeSet<CheckpointId> = heads.iter().filter_map(|(_, h)| h.origin).collect();
        for (generation, head) in heads {
            let taken = head.keep_taken.as_ref().or(taken);
            if keep.is_none() && taken.is_none() && head.gone.is_empty() {
                continue;
            }
            let branches = self.branches(head.instance)?;
            let mut held = origins.clone();
            held.extend(branches.iter().filter_map(|branch| branch.head.left));
            held.extend(head.holds.iter().map(|hold| hold.checkpoint));
            held.extend(head.checkpoint);
            held.extend(head.trial.map(|trial| trial.back));
            let name = head.name.clone();
            let mut next = head.clone();
            if let Some(keep) = keep {
                next.autos = thinned(&head.autos, keep, &held);
            }
            if let Some(taken) = taken {
                held.extend(branches.iter().flat_map(|b| &b.head.holds).map(|h| h.checkpoint));
                held.extend(branches.iter().map(|branch| branch.checkpoint));
                let mut gone = self.thinned_taken(&head, &branches, taken, &held)?;
                let room = GONE_MAX.saturating_sub(head.gone.len());
                if let Some(over @ 1..) = gone.len().checked_sub(room) {
                    plan.words.push(format!(
                        "{name}: {over} more stay: no more than {GONE_MAX} can be gone of one instance"
                    ));
                }
                gone.truncate(room);
                next.gone.extend(gone);
            }
            let (gone, all) = (head.autos.len() - next.autos.len(), head.autos.len());
            let more = next.gone.len() - head.gone.len();
            if gone > 0 && head.lease.is_some() {
                plan.words.push(format!("{name}: runs; its own policy thins out its line"));
                next.autos.clone_from(&head.autos);
            } else if gone > 0 {
                plan.words.push(format!("{name}: {gone} of {all} automatic"));
            }
            if more > 0 {
                plan.words.push(format!("{name}: {more} that somebody took"));
            }
            plan.plan_line(generation, &head, next.clone());
            self.plan_branches(&head, branches, keep, &next.gone, &held, &mut plan)?;
        }
        Ok(plan)
    }

    /// What `keep` does not keep of what somebody took on an instance's line.
    fn thinned_taken(
        &self,
        head: &Head,
        branches: &[Branch],
        keep: &Keep,
        held: &BTreeSet<CheckpointId>,
    ) -> Result<Vec<CheckpointId>> {
        let mut stays: BTreeSet<CheckpointId> = held.clone();
        let taken = self.taken_here(head)?;
        let times: Vec<u64> = taken.iter().map(|(_, one)| one.taken_unix_ms).collect();
        let kept = thin(&times, keep).into_iter().zip(&taken);
        let kept = kept.filter(|(kept, (_, one))| *kept || one.label.is_some());
        stays.extend(kept.map(|(_, (id, _))| *id));
        self.keep_what_is_needed(head, branches, &taken, &mut stays)?;
        Ok(taken.into_iter().map(|(id, _)| id).filter(|id| !stays.contains(id)).collect())
    }

    /// What somebody took on an instance's line and is not gone, the oldest first.
    fn taken_here(&self, head: &Head) -> Result<Vec<(CheckpointId, Checkpoint)>> {
        let mut taken = Vec::new();
        for id in self.taken_on(head)? {
            let one = self.checkpoint(id)?;
            // Behind the origin of a fork is another instance's line.
            if one.instance == head.instance && !head.gone.contains(&id) {
                taken.push((id, one));
            }
        }
        taken.reverse();
        Ok(taken)
    }

    /// Adds to what stays what else has to: what the head rests on, and what is gone back to.
    fn keep_what_is_needed(
        &self,
        head: &Head,
        branches: &[Branch],
        taken: &[(CheckpointId, Checkpoint)],
        stays: &mut BTreeSet<CheckpointId>,
    ) -> Result<()> {
        stays.extend(head.explicit());
        // What `rollback` goes back to.
        if let Some((id, update, change)) = self.last_change(head)? {
            stays.extend([Some(id), update.parent, change.back].into_iter().flatten());
        }
        for branch in branches {
            stays.extend(self.taken_on(&branch.head)?.into_iter().filter(|id| {
                // What it shares with the line is the line's to keep.
                taken.iter().all(|(on_line, _)| on_line != id) && !head.gone.contains(id)
            }));
        }
        self.keep_ways_back(head, stays)
    }

    /// What goes with one checkpoint of an instance's line; an error where something needs it. With `force` also
    /// one that has a label.
    pub fn plan_forgetting(
        &self,
        generation: Generation,
        head: &Head,
        id: CheckpointId,
        force: bool,
    ) -> Result<Thinning> {
        let (name, short) = (&head.name, id.short());
        let refuse = |why: String, hint: String| Err(Failure::new("state", why, hint));
        if [head.checkpoint, head.explicit()].contains(&Some(id)) {
            return refuse(
                format!("{name} is at {short}, or rests on it"),
                format!(
                    "take another one first (`collective checkpoint {name}`), or `collective undo {name}`"
                ),
            );
        }
        let one = self.checkpoint(id)?;
        if one.instance != head.instance {
            return refuse(
                format!("{short} is of the instance that {name} was forked from"),
                "it stays as long as that instance or a fork needs it".to_owned(),
            );
        }
        if let Some((_, fork)) = self.heads()?.into_iter().find(|(_, h)| h.origin == Some(id)) {
            let fork = fork.name;
            return refuse(
                format!("{fork} was forked from {short}"),
                format!("it stays as long as {fork} is there"),
            );
        }
        let branches = self.branches(head.instance)?;
        if branches.iter().any(|branch| branch.checkpoint == id) {
            return refuse(
                format!("a branch of {name} that was left and gone back to ends at {short}"),
                format!("`collective history {name}` lists the others"),
            );
        }
        if let Some(branch) = branches.iter().find(|branch| branch.head.left == Some(id)) {
            let tip = branch.checkpoint.short();
            return refuse(
                format!("the branch {tip} of {name} began at {short}"),
                format!("`collective rm {name}@{tip}` first"),
            );
        }
        let holds = branches.iter().flat_map(|branch| &branch.head.holds).chain(&head.holds);
        let mut held: BTreeSet<CheckpointId> = holds.map(|hold| hold.checkpoint).collect();
        if held.contains(&id) {
            return refuse(
                format!("a host that lost {name} may have writes that rest on {short}"),
                format!("use {name} once on that host, which stores them"),
            );
        }
        if !force && let Some(label) = one.label {
            return refuse(
                format!("{short} has the label {label:?}"),
                format!("`collective rm {name}@{short} --force` removes it all the same"),
            );
        }
        let taken = self.taken_here(head)?;
        held.extend(taken.iter().map(|(id, _)| *id).filter(|other| *other != id));
        held.extend(head.trial.map(|trial| trial.back));
        self.keep_what_is_needed(head, &branches, &taken, &mut held)?;
        if held.contains(&id) {
            return refuse(
                format!(
                    "{short} is what an update of {name} goes back to, or what a host that runs or ran it may rest on"
                ),
                format!(
                    "while it runs, the two before its last one stay: `collective history {name}` lists the others"
                ),
            );
        }
        let mut next = head.clone();
        next.autos.retain(|auto| auto.id != id);
        if next.autos == head.autos {
            if head.gone.len() >= GONE_MAX {
                return refuse(
                    format!("{GONE_MAX} checkpoints of {name} are gone, and no more can be"),
                    format!(
                        "what is taken by itself has no such bound: `collective checkpoint {name} --every 1h`"
                    ),
                );
            }
            next.gone.push(id);
        }
        let mut plan = Thinning::default();
        plan.plan_line(generation, head, next.clone());
        self.plan_branches(head, branches, None, &next.gone, &held, &mut plan)?;
        Ok(plan)
    }

    /// Adds what those that stay may go back to: before an update, should that be tried again and
    /// not work; and before what another host was seen to be based on, since it may not have written
    /// down yet that it was.
    fn keep_ways_back(&self, head: &Head, stays: &mut BTreeSet<CheckpointId>) -> Result<()> {
        let mut to_look_at: Vec<(CheckpointId, u32)> = stays.iter().map(|id| (*id, 0)).collect();
        to_look_at.extend(head.holds.iter().map(|hold| (hold.checkpoint, BEFORE_HOLDS)));
        let runs_on = head.lease.as_ref().and(head.checkpoint);
        to_look_at.extend(runs_on.map(|id| (id, BEFORE_HOLDS)));
        while let Some((id, before)) = to_look_at.pop() {
            let one = self.checkpoint(id)?;
            let mut also = Vec::new();
            if let Some(change) = &one.change {
                also.extend(change.back.or(one.parent).map(|back| (back, 0)));
                also.extend(one.parent.map(|parent| (parent, 0)));
            }
            if before > 0 {
                also.extend(one.parent.map(|parent| (parent, before - 1)));
            }
            for (id, before) in also {
                if stays.insert(id) || before > 0 {
                    to_look_at.push((id, before));
                }
            }
        }
        Ok(())
    }

    fn plan_branches(
        &self,
        line: &Head,
        branches: Vec<Branch>,
        keep: Option<&Keep>,
        gone: &[CheckpointId],
        held: &BTreeSet<CheckpointId>,
        plan: &mut Thinning,
    ) -> Result<()> {
        let Some(keep) = keep else {
            branches
                .into_iter()
                .for_each(|branch| Self::plan_branch(branch, None, gone, held, plan));
            return Ok(());
        };
        let taken: BTreeSet<CheckpointId> = self.taken_on(line)?.into_iter().collect();
        let mut undone = Vec::new();
        for branch in branches {
            let tip = self.checkpoint(branch.checkpoint)?;
            if tip.why != Why::Undo {
                Self::plan_branch(branch, Some(keep), gone, held, plan);
                continue;
            }
            // The label of its tip says that it was undone.
            let own = self.only_on(&branch, line, &taken)?;
            let named = |(id, one): &(CheckpointId, Checkpoint)| {
                held.contains(id) || (*id != branch.checkpoint && one.label.is_some())
            };
            if own.iter().any(named) {
                Self::plan_branch(branch, Some(keep), gone, held, plan);
            } else {
                undone.push((tip.taken_unix_ms, branch));
            }
        }
        undone.sort_by_key(|(taken_unix_ms, _)| *taken_unix_ms);
        let times: Vec<u64> = undone.iter().map(|(taken_unix_ms, _)| *taken_unix_ms).collect();
        for (stays, (_, branch)) in thin(&times, keep).into_iter().zip(undone) {
            if stays {
                Self::plan_branch(branch, Some(keep), gone, held, plan);
                continue;
            }
            let (name, id) = (&line.name, branch.checkpoint.short());
            plan.words.push(format!("{name}: branch {id}, which was undone"));
            plan.branches.push((branch, None));
        }
        Ok(())
    }

    /// What is gone of the line is gone of what leads to it.
    fn plan_branch(
        branch: Branch,
        keep: Option<&Keep>,
        gone: &[CheckpointId],
        held: &BTreeSet<CheckpointId>,
        plan: &mut Thinning,
    ) {
        let mut held = held.clone();
        held.insert(branch.checkpoint);
        let mut next = branch.head.clone();
        if let Some(keep) = keep {
            next.autos = thinned(&branch.head.autos, keep, &held);
        }
        let more = gone.iter().filter(|id| !branch.head.gone.contains(id));
        next.gone.extend(more);
        next.gone.truncate(GONE_MAX);
        let all = branch.head.autos.len();
        let fewer = all - next.autos.len();
        if fewer > 0 {
            let (name, id) = (&branch.head.name, branch.checkpoint.short());
            plan.words.push(format!("{name}: {fewer} of {all} automatic on branch {id}"));
        }
        if next != branch.head {
            plan.branches.push((branch, Some(next)));
        }
    }

    /// The checkpoints of a branch that its instance's line, with those that somebody `taken` there, has not.
    pub fn only_on(
        &self,
        branch: &Branch,
        line: &Head,
        taken: &BTreeSet<CheckpointId>,
    ) -> Result<Vec<(CheckpointId, Checkpoint)>> {
        let mut own = Vec::new();
        for auto in &branch.head.autos {
            if !line.autos.contains(auto) && auto.id != branch.checkpoint {
                own.push((auto.id, self.checkpoint(auto.id)?));
            }
        }
        let mut next = Some(branch.checkpoint);
        // A line is as long as what its owner took.
        while let Some(id) = next.filter(|id| !taken.contains(id)) {
            let checkpoint = self.checkpoint(id)?;
            next = checkpoint.parent;
            own.push((id, checkpoint));
        }
        Ok(own)
    }

    /// Bytes of packs that nothing would need any more.
    pub fn thinning_frees(&self, plan: &Thinning) -> Result<u64> {
        let mut changed: Vec<(&str, String, Vec<Target>)> = Vec::new();
        for (_, head) in &plan.heads {
            changed.push((INSTANCE, head.name.to_string(), roots_of(head)));
        }
        for asked in &plan.running {
            let head = asked.head.without(&asked.checkpoints);
            changed.push((INSTANCE, head.name.to_string(), roots_of(&head)));
        }
        for (branch, head) in &plan.branches {
            changed.push((BRANCH, branch.name.clone(), head.as_ref().map_or(Vec::new(), roots_of)));
        }
        Ok(self.repository.would_free(&changed)?)
    }

    /// Does it. What somebody has moved meanwhile is left for the next time; says of which instances.
    pub fn thin_out(&self, plan: Thinning) -> Result<BTreeSet<InstanceId>> {
        let mut moved = BTreeSet::new();
        for (generation, head) in plan.heads {
            if self.advance(generation, &head)? == Advance::Fenced {
                moved.insert(head.instance);
            }
            ambient::step("retain: thinned");
        }
        for (branch, head) in plan.branches {
            // Nothing is gone of a branch that is there on its instance's line.
            if moved.contains(&branch.head.instance) {
                continue;
            }
            match head {
                None => self.retire_branch(&branch)?,
                Some(head) => {
                    let body = record::encode_head(&head);
                    let payload = RefPayload { roots: roots_of(&head), body };
                    self.advance_ref(BRANCH, &branch.name, branch.generation, payload)?;
                }
            }
            ambient::step("retain: branch thinned");
        }
        Ok(moved)
    }
}

/// Those that stay.
fn thinned(autos: &[AutoPoint], keep: &Keep, held: &BTreeSet<CheckpointId>) -> Vec<AutoPoint> {
    let times: Vec<u64> = autos.iter().map(|auto| auto.taken_unix_ms).collect();
    let stays = thin(&times, keep).into_iter().zip(autos);
    stays.filter(|(stays, auto)| *stays || held.contains(&auto.id)).map(|(_, auto)| *auto).collect()
}
