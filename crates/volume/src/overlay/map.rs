//! What an overlay knows in memory: where each page is, and what the journal does not say yet.

use crate::journal::{Record, Records};
use crate::pages::{PageMap, Slot};
use crate::ranges::RangeSet;
use crate::slots::Slots;

/// The state of an overlay's pages.
#[derive(Default)]
pub struct Map {
    pub pages: PageMap,
    /// Pages that hide what is below. One that is also in `pages` has the bytes of its slot.
    pub zeros: RangeSet,
    /// What became zero since the last flush began.
    fresh_zeros: RangeSet,
    pub slots: Slots,
    /// Slots that a durable batch may still name; free after the next one.
    leaving: Vec<(u32, u32)>,
}

impl Map {
    /// A page has new bytes. Its old slot is free at once if no batch may name it.
    pub fn set_slot(&mut self, page: u64, slot: u32, sum: u64) {
        let new = Slot { slot, sum, fresh: true };
        match self.pages.set(page, new) {
            Some(old) if old.slot == slot => {}
            Some(old) => self.free(old),
            None => {}
        }
    }

    pub fn set_zero(&mut self, first: u64, count: u64) {
        let mut removed = Vec::new();
        self.pages.remove_range(first, count, |slot| removed.push(slot));
        if removed.is_empty() && self.zeros.overlaps(first, count).eq([(first, count)]) {
            return;
        }
        for slot in removed {
            self.free(slot);
        }
        self.zeros.insert(first, count);
        self.fresh_zeros.insert(first, count);
    }

    fn free(&mut self, old: Slot) {
        if old.fresh {
            self.slots.give_back(old.slot, 1);
            return;
        }
        match self.leaving.last_mut() {
            Some((first, count)) if *first + *count == old.slot => *count += 1,
            _ => self.leaving.push((old.slot, 1)),
        }
    }

    /// Moves what changed since the last call into `records`: zeros first, because a page that is
    /// both was written after it became zero.
    pub fn take_fresh(&mut self, records: &mut Vec<Record>, leaving: &mut Vec<(u32, u32)>) {
        let mut taken = Records(std::mem::take(records));
        for (first, count) in std::mem::take(&mut self.fresh_zeros).iter() {
            taken.zero(first, count);
        }
        for (page, slot) in self.pages.take_fresh() {
            taken.slot(page, slot.slot, slot.sum);
        }
        *records = taken.0;
        leaving.append(&mut self.leaving);
    }

    /// Everything, as records. Nothing may be fresh.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = Records::default();
        for (first, count) in self.zeros.iter() {
            records.zero(first, count);
        }
        self.pages.for_range(0, u64::MAX, |page, slot| {
            records.slot(page, slot.slot, slot.sum);
        });
        records.0
    }

    /// About as many bytes as [`Map::snapshot`] needs at most.
    pub fn said_bytes(&self) -> u64 {
        self.pages.len() * 16 + self.zeros.ranges() as u64 * 24
    }

    pub fn replay(&mut self, record: Record) {
        match record {
            Record::Zero { first, count } => {
                self.pages.remove_range(first, count, |_| {});
                self.zeros.insert(first, count);
            }
            Record::Slots { first, slot, sums } => {
                for (i, sum) in sums.into_iter().enumerate() {
                    let slot = Slot { slot: slot + i as u32, sum, fresh: false };
                    self.pages.set(first + i as u64, slot);
                }
            }
        }
    }

    /// After everything was replayed: what no page uses is free.
    pub fn find_free_slots(&mut self) {
        let mut used = Vec::with_capacity(self.pages.len() as usize);
        self.pages.for_range(0, u64::MAX, |_, slot| used.push(slot.slot));
        used.sort_unstable();
        self.slots = Slots::with_used(used.into_iter().map(|slot| (slot, 1)));
    }
}
