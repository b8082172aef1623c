//! `history`: an instance's checkpoints as a line of time, with its branches.

use std::collections::{BTreeMap, BTreeSet};

use api::HistoryPrint;
use model::{CheckpointId, Name};

use crate::Host;
use crate::failure::{Failure, Result};
use crate::record::{Head, Why};
use crate::shim::claim;
use crate::store::Store;

/// Most lines: bounds what a wrong repository can make us do.
const LINES_MAX: usize = 100_000;

/// The lines so far.
struct Lines<'a> {
    store: &'a Store,
    now_unix_ms: u64,
    head: Option<CheckpointId>,
    seen: BTreeSet<CheckpointId>,
}

impl Host {
    /// An instance's checkpoints, newest first. A branch stands before the checkpoint at which it
    /// left the line.
    pub fn history(&self, name: &Name) -> Result<Vec<HistoryPrint>> {
        let offline = |failure: Failure| match failure.kind {
            "unavailable" => failure.during(format!(
                "the history of {name} is in its repository, which cannot be reached"
            )),
            _ => failure,
        };
        let store = self.store().map_err(offline)?;
        read(&store, name).map_err(offline)
    }
}

fn read(store: &Store, name: &Name) -> Result<Vec<HistoryPrint>> {
    let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
    let now_unix_ms = ambient::unix_ms();
    let mut lines = Lines { store, now_unix_ms, head: head.checkpoint, seen: BTreeSet::new() };
    let line = lines.of(&head, None)?;
    let mut branches = Vec::new();
    for branch in store.branches(head.instance)? {
        let part = lines.of(&branch.head, Some(branch.checkpoint.short()))?;
        branches.push((branch.head.left, part));
    }
    // Of several that left at the same point, the newest stands above.
    branches.sort_by_key(|(_, part)| part.first().map_or(0, |first| first.age_s));
    let parts = branches.iter().flat_map(|(_, part)| part);
    let known: BTreeSet<String> = line.iter().chain(parts).map(|print| print.id.clone()).collect();
    let mut at: BTreeMap<String, Vec<HistoryPrint>> = BTreeMap::new();
    let mut elsewhere = Vec::new();
    for (left, part) in branches {
        match left.map(|id| id.to_string()).filter(|id| known.contains(id)) {
            Some(left) => at.entry(left).or_default().extend(part),
            None => elsewhere.extend(part),
        }
    }
    // A branch may have left a branch.
    let mut all = Vec::new();
    let mut pending: Vec<HistoryPrint> = line.into_iter().rev().collect();
    while let Some(print) = pending.pop() {
        match at.remove(&print.id) {
            Some(part) => {
                pending.push(print);
                pending.extend(part.into_iter().rev());
            }
            None => all.push(print),
        }
    }
    // Those whose place on the line is not known, or was thinned out.
    all.extend(elsewhere.into_iter().chain(at.into_values().flatten()));
    Ok(all)
}

impl Lines<'_> {
    /// The checkpoints of one line that were not on those before, newest first.
    fn of(&mut self, line: &Head, branch: Option<String>) -> Result<Vec<HistoryPrint>> {
        let mut prints = Vec::new();
        let mut autos: BTreeMap<Option<CheckpointId>, Vec<CheckpointId>> = BTreeMap::new();
        for auto in &line.autos {
            autos.entry(auto.parent).or_default().push(auto.id);
        }
        // A branch's own tip, when that is an automatic checkpoint, is in its list.
        let mut next = line.explicit();
        loop {
            for id in autos.remove(&next).unwrap_or_default().into_iter().rev() {
                self.print(id, line, &branch, &mut prints)?;
            }
            let Some(id) = next else { break };
            if self.seen.len() >= LINES_MAX {
                break;
            }
            match self.print(id, line, &branch, &mut prints)? {
                Some(parent) => next = parent,
                // The rest was on a line before.
                None => break,
            }
        }
        for id in autos.into_values().flatten().rev().collect::<Vec<_>>() {
            self.print(id, line, &branch, &mut prints)?;
        }
        Ok(prints)
    }

    /// Adds a checkpoint, unless it was there; gives its parent.
    fn print(
        &mut self,
        id: CheckpointId,
        line: &Head,
        branch: &Option<String>,
        prints: &mut Vec<HistoryPrint>,
    ) -> Result<Option<Option<CheckpointId>>> {
        if !self.seen.insert(id) {
            return Ok(None);
        }
        let checkpoint = self.store.checkpoint(id)?;
        let age_ms = self.now_unix_ms.saturating_sub(checkpoint.taken_unix_ms);
        prints.push(HistoryPrint {
            id: id.to_string(),
            label: checkpoint.label,
            time: crate::time::rfc3339(checkpoint.taken_unix_ms),
            age_s: age_ms / 1000,
            written_bytes: checkpoint.dirty_bytes,
            size_bytes: checkpoint.stored_bytes,
            pause_ms: checkpoint.pause_us.map(|us| us as f64 / 1000.0),
            why: checkpoint.why.as_str().to_owned(),
            auto: checkpoint.why == Why::Auto,
            head: self.head == Some(id),
            gone: line.is_gone(id),
            memory: checkpoint.memory.is_some(),
            branch: branch.clone(),
            left: branch.as_ref().and(line.left).map(|id| id.to_string()),
        });
        Ok(Some(checkpoint.parent))
    }
}
