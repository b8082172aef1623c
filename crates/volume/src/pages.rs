//! Which slot of an overlay holds a page, with the checksum that its bytes must have.
//!
//! Pages are kept in groups of eight, so that a run of pages costs about 16 bytes each and a
//! lonely page about 120: at most 3% of the bytes it stands for.

use std::collections::BTreeMap;

/// Pages in one group.
const GROUP: u64 = 8;

/// Where a page's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Index of the 4 KiB slot in the data file.
    pub slot: u32,
    /// xxh3 of the page's bytes.
    pub sum: u64,
    /// Written since the last flush began: no journal batch names this slot yet, so it may be
    /// rewritten in place.
    pub fresh: bool,
}

#[derive(Debug, Clone, Default)]
struct Group {
    present: u8,
    fresh: u8,
    slots: [u32; GROUP as usize],
    sums: [u64; GROUP as usize],
}

impl Group {
    fn slot(&self, at: usize) -> Option<Slot> {
        (self.present & 1 << at != 0).then(|| Slot {
            slot: self.slots[at],
            sum: self.sums[at],
            fresh: self.fresh & 1 << at != 0,
        })
    }

    fn remove(&mut self, at: usize) {
        self.present &= !(1 << at);
        self.fresh &= !(1 << at);
    }
}

/// The map from page to [`Slot`].
#[derive(Debug, Default)]
pub struct PageMap {
    groups: BTreeMap<u64, Group>,
    /// Groups that became fresh since the last [`PageMap::take_fresh`]; may hold one twice.
    fresh_groups: Vec<u64>,
    pages: u64,
}

impl PageMap {
    /// Number of pages in the map.
    pub fn len(&self) -> u64 {
        self.pages
    }

    /// The slot of one page.
    pub fn get(&self, page: u64) -> Option<Slot> {
        self.groups.get(&(page / GROUP))?.slot((page % GROUP) as usize)
    }

    /// Sets a page's slot and returns the one it had.
    pub fn set(&mut self, page: u64, slot: Slot) -> Option<Slot> {
        let group = self.groups.entry(page / GROUP).or_default();
        let at = (page % GROUP) as usize;
        let old = group.slot(at);
        if slot.fresh && group.fresh == 0 {
            self.fresh_groups.push(page / GROUP);
        }
        group.present |= 1 << at;
        group.fresh = group.fresh & !(1 << at) | u8::from(slot.fresh) << at;
        group.slots[at] = slot.slot;
        group.sums[at] = slot.sum;
        self.pages += u64::from(old.is_none());
        old
    }

    /// Calls `each` with the pages of `first..first + count` that are in the map, ascending.
    pub fn for_range(&self, first: u64, count: u64, mut each: impl FnMut(u64, Slot)) {
        let end = first.saturating_add(count);
        if count == 0 {
            return;
        }
        for (&key, group) in self.groups.range(first / GROUP..=(end - 1) / GROUP) {
            for at in 0..GROUP as usize {
                let page = key * GROUP + at as u64;
                if page >= first
                    && page < end
                    && let Some(slot) = group.slot(at)
                {
                    each(page, slot);
                }
            }
        }
    }

    /// The next pages at or after `first`, at most `max` of them, ascending.
    pub fn next(&self, first: u64, max: usize) -> Vec<(u64, Slot)> {
        let mut found = Vec::with_capacity(max.min(1024));
        for (&key, group) in self.groups.range(first / GROUP..) {
            for at in 0..GROUP as usize {
                let page = key * GROUP + at as u64;
                if page < first {
                    continue;
                }
                if let Some(slot) = group.slot(at) {
                    if found.len() == max {
                        return found;
                    }
                    found.push((page, slot));
                }
            }
        }
        found
    }

    /// Removes the pages of `first..first + count`, calling `each` with the slots they had.
    pub fn remove_range(&mut self, first: u64, count: u64, mut each: impl FnMut(Slot)) {
        if count == 0 {
            return;
        }
        let end = first.saturating_add(count);
        let mut empty = Vec::new();
        for (&key, group) in self.groups.range_mut(first / GROUP..=(end - 1) / GROUP) {
            for at in 0..GROUP as usize {
                let page = key * GROUP + at as u64;
                if page >= first
                    && page < end
                    && let Some(slot) = group.slot(at)
                {
                    group.remove(at);
                    self.pages -= 1;
                    each(slot);
                }
            }
            if group.present == 0 {
                empty.push(key);
            }
        }
        for key in empty {
            self.groups.remove(&key);
        }
    }

    /// All pages that are fresh, ascending; none is fresh afterwards.
    pub fn take_fresh(&mut self) -> Vec<(u64, Slot)> {
        let mut keys = std::mem::take(&mut self.fresh_groups);
        keys.sort_unstable();
        keys.dedup();
        let mut fresh = Vec::new();
        for key in keys {
            // Absent: the group was discarded after it was written.
            let Some(group) = self.groups.get_mut(&key) else {
                continue;
            };
            for at in 0..GROUP as usize {
                if let Some(slot) = group.slot(at)
                    && slot.fresh
                {
                    fresh.push((key * GROUP + at as u64, slot));
                }
            }
            group.fresh = 0;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_map(steps in prop::collection::vec((0u8..4, 0u64..100, 1u64..20), 0..80)) {
            let mut map = PageMap::default();
            let mut model: BTreeMap<u64, Slot> = BTreeMap::new();
            for (n, (kind, page, count)) in steps.into_iter().enumerate() {
                match kind {
                    0 | 1 => {
                        let slot = Slot { slot: n as u32, sum: page * 3, fresh: kind == 0 };
                        prop_assert_eq!(map.set(page, slot), model.insert(page, slot));
                    }
                    2 => {
                        let mut removed = Vec::new();
                        map.remove_range(page, count, |slot| removed.push(slot));
                        let keys: Vec<u64> =
                            model.range(page..page + count).map(|(&k, _)| k).collect();
                        let expected: Vec<Slot> =
                            keys.iter().map(|k| model.remove(k).unwrap()).collect();
                        prop_assert_eq!(removed, expected);
                    }
                    _ => {
                        let expected: Vec<(u64, Slot)> =
                            model.iter().filter(|(_, s)| s.fresh).map(|(&p, &s)| (p, s)).collect();
                        prop_assert_eq!(map.take_fresh(), expected);
                        model.values_mut().for_each(|slot| slot.fresh = false);
                    }
                }
                prop_assert_eq!(map.len(), model.len() as u64);
            }
            let all: Vec<(u64, Slot)> = model.iter().map(|(&p, &s)| (p, s)).collect();
            prop_assert_eq!(map.next(0, usize::MAX), all);
            let mut seen = Vec::new();
            map.for_range(10, 50, |page, slot| seen.push((page, slot)));
            prop_assert_eq!(seen, model.range(10..60).map(|(&p, &s)| (p, s)).collect::<Vec<_>>());
            prop_assert!((0..120).all(|p| map.get(p) == model.get(&p).copied()));
        }
    }
}
