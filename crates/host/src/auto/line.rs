//! What taking a checkpoint, taking an instance over and going back do to the list of automatic
//! checkpoints in its head. The list is in the order in which they were taken.

use std::collections::BTreeSet;

use model::{CheckpointId, HostId};

use super::Keep;
use super::thin::thin;
use crate::record::{AutoPoint, Head, Hold, Why};

/// Hosts that are remembered to hold unsaved writes: the newest ones.
const HOLDS_MAX: usize = 64;

/// A checkpoint that is to become the head.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub id: CheckpointId,
    pub why: Why,
    pub taken_unix_ms: u64,
}

/// The head after `taken` by the host that holds the lease; its volumes may still be based on
/// `bases`. What `keep` does not keep is dropped when an automatic one was taken.
pub fn advance(head: &Head, taken: Taken, keep: &Keep, bases: &[CheckpointId]) -> Head {
    // What was on its way is there, or is not waited for.
    let mut next = Head { checkpoint: Some(taken.id), fresh: false, parcel: None, ..head.clone() };
    let holder = head.lease.as_ref().map(|lease| lease.holder);
    next.holds.retain(|hold| Some(hold.host) != holder);
    for base in bases.iter().filter(|base| is_auto(head, **base)) {
        next.holds.extend(holder.map(|host| Hold { host, checkpoint: *base }));
    }
    bound(&mut next.holds);
    if taken.why == Why::Auto {
        let AutoPoint { id, taken_unix_ms, parent } =
            AutoPoint { id: taken.id, taken_unix_ms: taken.taken_unix_ms, parent: head.explicit() };
        next.autos.push(AutoPoint { id, taken_unix_ms, parent });
        let times: Vec<u64> = next.autos.iter().map(|auto| auto.taken_unix_ms).collect();
        let held: BTreeSet<_> = next.holds.iter().map(|hold| hold.checkpoint).collect();
        let mut stays = thin(&times, keep).into_iter();
        next.autos.retain(|auto| stays.next() == Some(true) || held.contains(&auto.id));
    }
    next
}

/// Notes that `host`, from which the instance is taken, may hold writes on top of its head.
pub fn taken_over(head: &mut Head, host: HostId) {
    // Also one that somebody took: an `undo` puts that on a branch, which may be removed.
    if let Some(checkpoint) = head.checkpoint {
        head.holds.push(Hold { host, checkpoint });
        bound(&mut head.holds);
    }
}

/// The head of who goes on from its checkpoint and not from what is on its way: that becomes a branch, on top
/// of this checkpoint, when the host that has it comes back.
pub fn without_parcel(mut head: Head) -> Head {
    if let Some(parcel) = head.parcel.take() {
        taken_over(&mut head, parcel.host);
    }
    head
}

fn bound(holds: &mut Vec<Hold>) {
    let excess = holds.len().saturating_sub(HOLDS_MAX);
    holds.drain(..excess);
}

fn is_auto(head: &Head, id: CheckpointId) -> bool {
    head.autos.iter().any(|auto| auto.id == id)
}

/// How a line parts when its instance goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parting {
    /// Automatic checkpoints that stay on the line, in order.
    pub stay: Vec<AutoPoint>,
    /// Those that go with what is undone.
    pub leave: Vec<AutoPoint>,
    /// Where the two part.
    pub left: Option<CheckpointId>,
}

/// How `head`'s line parts when it goes back to `target`. `taken` are the checkpoints that somebody
/// took on this line, the newest first.
pub fn go_back(head: &Head, taken: &[CheckpointId], target: CheckpointId) -> Parting {
    let (stay, leave, left) = if let Some(at) = head.autos.iter().position(|auto| auto.id == target)
    {
        let (stay, leave) = head.autos.split_at(at + 1);
        (stay.to_vec(), leave.to_vec(), Some(target))
    } else if let Some(at) = taken.iter().position(|id| *id == target) {
        // Everything whose parent is the target, or came after it, is later than it.
        let later: BTreeSet<_> = taken[..=at].iter().copied().collect();
        let is_later = |auto: &AutoPoint| auto.parent.is_some_and(|id| later.contains(&id));
        let (leave, stay) = head.autos.iter().copied().partition(is_later);
        (stay, leave, Some(target))
    } else {
        // On no line that is known here: all of it goes with what is undone.
        (Vec::new(), head.autos.clone(), None)
    };
    Parting { stay, leave, left }
}

/// The same when the target lies on a branch: the line parts where the branch left it, and what the
/// branch has up to the target becomes a part of the line. `branch_taken` are the checkpoints that
/// somebody took on the branch, the newest first.
pub fn go_over(
    head: &Head,
    taken: &[CheckpointId],
    branch: &Head,
    branch_taken: &[CheckpointId],
    target: CheckpointId,
) -> Parting {
    let mut parting = match branch.left {
        Some(left) => go_back(head, taken, left),
        None => Parting { stay: Vec::new(), leave: head.autos.clone(), left: None },
    };
    let there = if branch.checkpoint == Some(target) {
        branch.autos.clone()
    } else {
        go_back(branch, branch_taken, target).stay
    };
    parting.stay.extend(there);
    // What both had is left behind by neither.
    let Parting { stay, leave, .. } = &mut parting;
    leave.retain(|auto| stay.iter().all(|other| other.id != auto.id));
    parting
}
