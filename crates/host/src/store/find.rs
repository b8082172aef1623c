//! Finding a checkpoint by what a person calls it: an id, the first digits of it, a label, or how long
//! ago it was.

use std::collections::BTreeSet;

use model::CheckpointId;

use super::Store;
use crate::failure::{Failure, Result};
use crate::record::{Change, Checkpoint, Follow, Head, Trial};

/// Fewest digits of an id that name one.
const DIGITS_MIN: usize = 4;

impl Store {
    /// Finds a checkpoint of an instance by its id, the first digits of it (at least 4), its label
    /// (the newest one with it), or a time like `10 minutes ago` (the newest one on the instance's
    /// own line that was there by then).
    pub fn find_checkpoint(&self, head: &Head, wanted: &str) -> Result<CheckpointId> {
        let branches = self.branches(head.instance)?;
        let lines = std::iter::once(head).chain(branches.iter().map(|branch| &branch.head));
        let mut seen = BTreeSet::new();
        let mut matches = Vec::new();
        let mut labelled: Option<(u64, CheckpointId)> = None;
        for line in lines {
            let mut look = |id: CheckpointId| -> Result<Option<CheckpointId>> {
                if !seen.insert(id) {
                    return Ok(None);
                }
                let checkpoint = self.checkpoint(id)?;
                let taken = checkpoint.taken_unix_ms;
                if checkpoint.label.as_deref() == Some(wanted)
                    && labelled.is_none_or(|(newest, _)| taken > newest)
                {
                    labelled = Some((taken, id));
                }
                if wanted.len() >= DIGITS_MIN && id.to_string().starts_with(wanted) {
                    matches.push(id);
                }
                Ok(checkpoint.parent)
            };
            for auto in &line.autos {
                look(auto.id)?;
            }
            // The origin is behind the first checkpoint of a fork.
            for start in line.checkpoint.into_iter().chain(line.origin) {
                let mut next = Some(start);
                while let Some(id) = next {
                    next = look(id)?;
                }
            }
            // A label on the instance's own line comes before one on a branch.
            if let Some((_, id)) = labelled {
                return self.must_be_here(head, id);
            }
        }
        let name = &head.name;
        match matches.as_slice() {
            [id] => self.must_be_here(head, *id),
            [] => match crate::time::parse_ago(wanted) {
                Some(ago_ms) => self.find_by_time(head, ago_ms, wanted),
                None => Err(Failure::new(
                    "not_found",
                    format!("{name} has no checkpoint {wanted:?}"),
                    format!("`collective history {name}` lists them"),
                )),
            },
            _ => Err(Failure::new(
                "usage",
                format!("{wanted} begins the ids of {} checkpoints of {name}", matches.len()),
                "write more digits of it",
            )),
        }
    }

    /// An error for one that was thinned out, with those around it that were not.
    fn must_be_here(&self, head: &Head, id: CheckpointId) -> Result<CheckpointId> {
        if !head.is_gone(id) {
            return Ok(id);
        }
        let (name, taken) = (&head.name, self.taken_on(head)?);
        let at = taken.iter().position(|other| *other == id).unwrap_or(taken.len());
        let is_here = |other: &&CheckpointId| !head.is_gone(**other);
        let later = taken[..at].iter().rev().find(is_here);
        let earlier = taken.get(at + 1..).unwrap_or_default().iter().find(is_here);
        let around: Vec<String> =
            [earlier, later].into_iter().flatten().map(|i| i.short()).collect();
        let hint = match around.is_empty() {
            true => format!("`collective history {name}` lists what is kept"),
            false => format!(
                "kept around it: {}; `collective history {name}` lists all",
                around.join(" and ")
            ),
        };
        let message = format!("checkpoint {} of {name} was thinned out", id.short());
        Err(Failure::new("gone", message, hint))
    }

    /// The newest checkpoint of the instance's own line that was there so long ago.
    fn find_by_time(&self, head: &Head, ago_ms: u64, wanted: &str) -> Result<CheckpointId> {
        let by = ambient::unix_ms().saturating_sub(ago_ms);
        let mut newest: Option<(u64, CheckpointId)> = None;
        let mut offer = |time: u64, id: CheckpointId| {
            if time <= by && newest.is_none_or(|(best, _)| time > best) {
                newest = Some((time, id));
            }
        };
        for auto in &head.autos {
            offer(auto.taken_unix_ms, auto.id);
        }
        let mut next = head.explicit();
        while let Some(id) = next {
            let checkpoint = self.checkpoint(id)?;
            if !head.is_gone(id) {
                offer(checkpoint.taken_unix_ms, id);
            }
            next = checkpoint.parent;
        }
        newest.map(|(_, id)| id).ok_or_else(|| {
            let name = &head.name;
            Failure::new(
                "not_found",
                format!("{name} has no checkpoint that is as old as {wanted:?}"),
                format!("`collective history {name}` lists them"),
            )
        })
    }

    /// What the newest update on a line changed, and its checkpoint.
    pub fn last_change(&self, line: &Head) -> Result<Option<(CheckpointId, Checkpoint, Change)>> {
        self.change_at(line.explicit())
    }

    fn change_at(
        &self,
        mut at: Option<CheckpointId>,
    ) -> Result<Option<(CheckpointId, Checkpoint, Change)>> {
        while let Some(id) = at {
            let checkpoint = self.checkpoint(id)?;
            if let Some(change) = checkpoint.change.clone() {
                return Ok(Some((id, checkpoint, change)));
            }
            at = checkpoint.parent;
        }
        Ok(None)
    }

    /// What an instance follows when it goes to `target`, of its line or of a branch: its maker's
    /// version of then.
    pub fn follow_at(
        &self,
        head: &Head,
        id: CheckpointId,
        target: &Checkpoint,
    ) -> Result<Option<Follow>> {
        let Some(follow) = head.follow.clone() else { return Ok(None) };
        if target.version == head.version {
            return Ok(Some(follow));
        }
        if let Some((_, _, change)) = self.change_at(Some(id))? {
            return Ok(Some(Follow { release: change.to, ..follow }));
        }
        // Before all updates, and so before the first one of this line too.
        let (mut first, mut at) = (follow.release, head.explicit());
        while let Some((_, checkpoint, change)) = self.change_at(at)? {
            (first, at) = (change.from, checkpoint.parent);
        }
        Ok(Some(Follow { release: first, ..follow }))
    }

    /// What an instance that goes to `target` is on trial with, if that is an update.
    pub fn trial_at(target: &Checkpoint) -> Option<Trial> {
        let change = target.change.as_ref().filter(|change| change.tried)?;
        Some(Trial { back: change.back.or(target.parent)?, release: change.from, begun: false })
    }

    /// The checkpoints that somebody took on a line, the newest first.
    pub fn taken_on(&self, line: &Head) -> Result<Vec<CheckpointId>> {
        let mut taken = Vec::new();
        let mut next = line.explicit();
        while let Some(id) = next {
            taken.push(id);
            next = self.checkpoint(id)?.parent;
        }
        Ok(taken)
    }
}
