//! Which slots of an overlay's data file are free.
//!
//! Slots are handed out in ascending runs, so that what is written in sequence lies in sequence.
//! Free runs are reused before the file grows, except that a long request passes over short runs
//! while they are less than half of the file: it is cheaper to grow than to scatter.

use std::collections::BTreeMap;

/// A short run is one below this many slots (64 KiB).
const SHORT: u32 = 16;
/// Free runs looked at before the file is grown instead.
const PROBES_MAX: usize = 64;

/// The free slots of one data file.
#[derive(Debug, Default)]
pub struct Slots {
    /// Slots from here on have never been used.
    next: u32,
    /// Free runs below `next`: start -> length; disjoint and not adjacent.
    free: BTreeMap<u32, u32>,
    free_slots: u64,
    /// Where the last run was taken, so that the search goes on from there.
    cursor: u32,
}

impl Slots {
    /// The state in which exactly `used` (ascending runs `(first, count)`) is taken.
    pub fn with_used(used: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut slots = Self::default();
        for (first, count) in used {
            if first > slots.next {
                slots.free.insert(slots.next, first - slots.next);
                slots.free_slots += u64::from(first - slots.next);
            }
            slots.next = first + count;
        }
        slots
    }

    /// Number of slots that have ever been used: the data file's length in slots.
    pub fn high_water(&self) -> u32 {
        self.next
    }

    /// Takes a run of at least 1 and at most `want` slots: `(first, count)`. `None` when all
    /// 2^32 slots (16 TiB) are taken.
    pub fn take(&mut self, want: u32) -> Option<(u32, u32)> {
        debug_assert!(want > 0);
        let scattered = self.free_slots * 2 > u64::from(self.next);
        let enough = if scattered { 1 } else { want.min(SHORT) };
        let found = self
            .free
            .range(self.cursor..)
            .chain(self.free.range(..self.cursor))
            .take(PROBES_MAX)
            .find(|&(_, &count)| count >= enough)
            .map(|(&first, &count)| (first, count));
        if let Some((first, count)) = found {
            self.free.remove(&first);
            let taken = count.min(want);
            if count > taken {
                self.free.insert(first + taken, count - taken);
            }
            self.free_slots -= u64::from(taken);
            self.cursor = first + taken;
            return Some((first, taken));
        }
        let taken = want.min(u32::MAX - self.next);
        if taken == 0 {
            let (&first, &count) = self.free.iter().next()?;
            self.free.remove(&first);
            self.free_slots -= u64::from(count);
            return Some((first, count.min(want))).inspect(|&(_, taken)| {
                if count > taken {
                    self.give_back(first + taken, count - taken);
                }
            });
        }
        let first = self.next;
        self.next += taken;
        Some((first, taken))
    }

    /// Makes a run free again.
    pub fn give_back(&mut self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        let (mut start, mut len) = (first, count);
        if let Some((&left, &left_len)) = self.free.range(..first).next_back()
            && left + left_len == first
        {
            self.free.remove(&left);
            start = left;
            len += left_len;
        }
        if let Some(right_len) = self.free.remove(&(first + count)) {
            len += right_len;
        }
        self.free.insert(start, len);
        self.free_slots += u64::from(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn fresh_slots_are_sequential() {
        let mut slots = Slots::default();
        assert_eq!(slots.take(256), Some((0, 256)));
        assert_eq!(slots.take(1), Some((256, 1)));
        assert_eq!(slots.high_water(), 257);
    }

    #[test]
    fn a_long_request_does_not_scatter_until_it_must() {
        let mut slots = Slots::with_used([(1, 1), (3, 1000)].into_iter());
        assert_eq!(slots.take(64), Some((1003, 64)), "not the two lonely slots");
        assert_eq!(slots.take(1), Some((0, 1)));
        let mut slots = Slots::with_used([(1, 1), (3, 1)].into_iter());
        slots.give_back(1, 1);
        assert_eq!(slots.take(64), Some((0, 3)), "more than half of the file is free");
    }

    proptest! {
        #[test]
        fn never_hands_out_a_slot_twice(steps in prop::collection::vec((any::<bool>(), 1u32..40), 1..200)) {
            let mut slots = Slots::default();
            let mut used = BTreeSet::new();
            let mut runs: Vec<(u32, u32)> = Vec::new();
            for (take, n) in steps {
                if take || runs.is_empty() {
                    let (first, count) = slots.take(n).unwrap();
                    prop_assert!(count >= 1 && count <= n);
                    for slot in first..first + count {
                        prop_assert!(used.insert(slot));
                    }
                    runs.push((first, count));
                } else {
                    let (first, count) = runs.swap_remove(n as usize % runs.len());
                    for slot in first..first + count {
                        used.remove(&slot);
                    }
                    slots.give_back(first, count);
                }
            }
            prop_assert_eq!(slots.free_slots + used.len() as u64, u64::from(slots.next));
            let again = Slots::with_used(used.iter().map(|&s| (s, 1)));
            prop_assert!(again.next <= slots.next);
            prop_assert_eq!(again.free_slots + used.len() as u64, u64::from(again.next));
        }
    }
}
