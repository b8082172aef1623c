//! How much a delta may ask of who uses it.
//!
//! A group is some ten bytes that may name 24 MiB of old pages, and a part has room for a hundred thousand of
//! them. So what is read and unpacked is held to what comes of it. Who makes a delta keeps to the same bounds,
//! in the same order: one that is honest is used whole.

use delta::{Group, NEW_BYTES_MAX, OLD_BYTES_MAX, Run};

use super::PAGE;

/// Pages that are read and unpacked for each one that a delta gives. A file of which all changed is packed with
/// eight times as many old pages.
const WORK: u64 = 16;
/// And so many more: four groups that name all they can.
const WORK_FREE: u64 = 4 * (OLD_BYTES_MAX / PAGE) as u64;
/// Streams that were compressed are given whole, whatever of them is new.
const NAMED: u64 = 2;

/// What is left.
pub struct Budget {
    /// Pages that groups may name as theirs.
    named: u64,
    /// Pages that may be read, and unpacked.
    work: u64,
}

impl Budget {
    /// For a delta that gives so many pages, some of `all`.
    pub fn new(all: u64, gives: u64) -> Self {
        Self {
            named: all.saturating_mul(NAMED).saturating_add((NEW_BYTES_MAX / PAGE) as u64),
            work: gives.saturating_mul(WORK).saturating_add(WORK_FREE),
        }
    }

    /// How many pages a group gives; none: none at all, or too many.
    pub fn name(&mut self, group: &Group) -> Option<usize> {
        let pages = pages(&group.new);
        if pages == 0 || pages > (NEW_BYTES_MAX / PAGE) as u64 {
            return None;
        }
        self.named = self.named.checked_sub(pages)?;
        Some(pages as usize)
    }

    /// Whether a group may be unpacked.
    pub fn work(&mut self, group: &Group) -> bool {
        let old = pages(&group.old);
        if old > (OLD_BYTES_MAX / PAGE) as u64 {
            return false;
        }
        let left = self.work.checked_sub(old + pages(&group.new));
        self.work = left.unwrap_or(self.work);
        left.is_some()
    }
}

fn pages(runs: &[Run]) -> u64 {
    runs.iter().map(|run| u64::from(run.count)).sum()
}
