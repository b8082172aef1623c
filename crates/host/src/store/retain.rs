//! Thinning out what instances keep: automatic checkpoints, on their line and on branches, and branches
//! that are nothing but what somebody undid.
//!
//! *Invariants.* What somebody took and is on an instance's line stays, for each keeps the one before it;
//! so do heads, what a host may hold writes on top of, what a branch left the line at, what an update goes
//! back to, the origins of forks, labels, and what a crashed or fenced host had not stored. Of an instance
//! that somebody runs, the line is its holder's to thin.
//!
//! *Crash.* Each head and each branch is as it was, or thinned. To be repeated.

use std::collections::BTreeSet;

use model::{CheckpointId, Generation};
use repository::{RefPayload, Target};

use super::{BRANCH, Branch, INSTANCE, Store, roots_of};
use crate::auto::Keep;
use crate::auto::thin::thin;
use crate::failure::Result;
use crate::record::{self, AutoPoint, Checkpoint, Head, Why};

/// What would go.
#[derive(Default)]
pub struct Thinning {
    heads: Vec<(Generation, Head)>,
    /// With the head that it is to have; none: all of it goes.
    branches: Vec<(Branch, Option<Head>)>,
    /// What that is, in words.
    pub words: Vec<String>,
}

impl Store {
    /// What `keep` does not keep of all instances.
    pub fn plan_thinning(&self, keep: &Keep) -> Result<Thinning> {
        let mut plan = Thinning::default();
        let heads = self.heads()?;
        let origins: BTreeSet<CheckpointId> = heads.iter().filter_map(|(_, h)| h.origin).collect();
        for (generation, head) in heads {
            let branches = self.branches(head.instance)?;
            let mut held = origins.clone();
            held.extend(branches.iter().filter_map(|branch| branch.head.left));
            held.extend(head.holds.iter().map(|hold| hold.checkpoint));
            held.extend(head.checkpoint);
            held.extend(head.trial.map(|trial| trial.back));
            let name = head.name.clone();
            let stay = thinned(&head.autos, keep, &held);
            let gone = head.autos.len() - stay.len();
            if gone > 0 && head.lease.is_some() {
                plan.words.push(format!("{name}: runs; its own policy thins out its line"));
            } else if gone > 0 {
                plan.words.push(format!("{name}: {gone} of {} automatic", head.autos.len()));
                plan.heads.push((generation, Head { autos: stay, ..head.clone() }));
            }
            self.plan_branches(&head, branches, keep, &held, &mut plan)?;
        }
        Ok(plan)
    }

    fn plan_branches(
        &self,
        line: &Head,
        branches: Vec<Branch>,
        keep: &Keep,
        held: &BTreeSet<CheckpointId>,
        plan: &mut Thinning,
    ) -> Result<()> {
        let taken: BTreeSet<CheckpointId> = self.taken_on(line)?.into_iter().collect();
        let mut undone = Vec::new();
        for branch in branches {
            let tip = self.checkpoint(branch.checkpoint)?;
            if tip.why != Why::Undo {
                self.plan_autos(branch, keep, held, plan);
                continue;
            }
            // The label of its tip says that it was undone.
            let own = self.only_on(&branch, line, &taken)?;
            let named = |(id, one): &(CheckpointId, Checkpoint)| {
                held.contains(id) || (*id != branch.checkpoint && one.label.is_some())
            };
            if own.iter().any(named) {
                self.plan_autos(branch, keep, held, plan);
            } else {
                undone.push((tip.taken_unix_ms, branch));
            }
        }
        undone.sort_by_key(|(taken_unix_ms, _)| *taken_unix_ms);
        let times: Vec<u64> = undone.iter().map(|(taken_unix_ms, _)| *taken_unix_ms).collect();
        for (stays, (_, branch)) in thin(&times, keep).into_iter().zip(undone) {
            if stays {
                self.plan_autos(branch, keep, held, plan);
                continue;
            }
            let (name, id) = (&line.name, branch.checkpoint.short());
            plan.words.push(format!("{name}: branch {id}, which was undone"));
            plan.branches.push((branch, None));
        }
        Ok(())
    }

    fn plan_autos(
        &self,
        branch: Branch,
        keep: &Keep,
        held: &BTreeSet<CheckpointId>,
        plan: &mut Thinning,
    ) {
        let mut held = held.clone();
        held.insert(branch.checkpoint);
        let stay = thinned(&branch.head.autos, keep, &held);
        let (all, gone) = (branch.head.autos.len(), branch.head.autos.len() - stay.len());
        if gone > 0 {
            let (name, id) = (&branch.head.name, branch.checkpoint.short());
            plan.words.push(format!("{name}: {gone} of {all} automatic on branch {id}"));
            let head = Head { autos: stay, ..branch.head.clone() };
            plan.branches.push((branch, Some(head)));
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
        for (branch, head) in &plan.branches {
            changed.push((BRANCH, branch.name.clone(), head.as_ref().map_or(Vec::new(), roots_of)));
        }
        Ok(self.repository.would_free(&changed)?)
    }

    /// Does it. What somebody has moved meanwhile is left for the next time.
    pub fn thin_out(&self, plan: Thinning) -> Result<()> {
        for (generation, head) in plan.heads {
            self.advance(generation, &head)?;
            ambient::step("retain: thinned");
        }
        for (branch, head) in plan.branches {
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
        Ok(())
    }
}

/// Those that stay.
fn thinned(autos: &[AutoPoint], keep: &Keep, held: &BTreeSet<CheckpointId>) -> Vec<AutoPoint> {
    let times: Vec<u64> = autos.iter().map(|auto| auto.taken_unix_ms).collect();
    let stays = thin(&times, keep).into_iter().zip(autos);
    stays.filter(|(stays, auto)| *stays || held.contains(&auto.id)).map(|(_, auto)| *auto).collect()
}
