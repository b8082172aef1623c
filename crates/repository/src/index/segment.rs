//! A sorted run of index entries of fixed width.

use std::collections::HashMap;

use chunk::crypt::{PackId, StoredName};

use super::{Location, locations_of};
use crate::pack::PackEntry;

/// One entry: 32 bytes, as in a segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: StoredName,
    /// Which of the segment's packs.
    pack: u32,
    offset: u32,
    bytes: u32,
    frame: u16,
    slot: u16,
}

/// A sorted run of entries, with the packs that they speak of.
pub(crate) struct Segment {
    packs: Vec<PackId>,
    entries: Vec<Entry>,
}

impl Segment {
    pub(crate) fn from_packs(packs: &[PackEntry]) -> Self {
        let mut entries = Vec::with_capacity(packs.iter().map(PackEntry::chunks).sum());
        for (number, pack) in packs.iter().enumerate() {
            entries.extend(
                locations_of(pack).map(|(name, location)| entry(name, number as u32, &location)),
            );
        }
        entries.sort_unstable();
        Self { packs: packs.iter().map(|pack| pack.id).collect(), entries }
    }

    /// One segment of two; entries whose pack is not kept are dropped.
    pub(crate) fn merge(older: &Self, newer: &Self, keep: impl Fn(&PackId) -> bool) -> Self {
        let mut packs = Vec::new();
        let mut numbers: HashMap<PackId, u32> = HashMap::new();
        let mut entries = Vec::with_capacity(older.len() + newer.len());
        for segment in [older, newer] {
            let renumbered: Vec<Option<u32>> = segment
                .packs
                .iter()
                .map(|pack| {
                    keep(pack).then(|| {
                        *numbers.entry(*pack).or_insert_with(|| {
                            packs.push(*pack);
                            packs.len() as u32 - 1
                        })
                    })
                })
                .collect();
            entries.extend(segment.entries.iter().filter_map(|entry| {
                renumbered[entry.pack as usize].map(|pack| Entry { pack, ..*entry })
            }));
        }
        entries.sort_unstable();
        entries.dedup();
        Self { packs, entries }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(&self, name: &StoredName, mut each: impl FnMut(usize, Location)) {
        let start = self.entries.partition_point(|entry| entry.name < *name);
        for (at, entry) in self.entries.iter().enumerate().skip(start) {
            if entry.name != *name {
                break;
            }
            each(at, self.location(entry));
        }
    }

    pub(crate) fn for_each(&self, mut each: impl FnMut(usize, &StoredName, &Location)) {
        for (at, entry) in self.entries.iter().enumerate() {
            each(at, &entry.name, &self.location(entry));
        }
    }

    fn location(&self, entry: &Entry) -> Location {
        Location {
            pack: self.packs[entry.pack as usize],
            offset: u64::from(entry.offset),
            bytes: entry.bytes,
            frame: u32::from(entry.frame),
            slot: entry.slot,
        }
    }
}

fn entry(name: StoredName, pack: u32, location: &Location) -> Entry {
    Entry {
        name,
        pack,
        // Packs are smaller than 64 MiB and have at most 65536 frames: see `pack`.
        offset: location.offset as u32,
        bytes: location.bytes,
        frame: location.frame as u16,
        slot: location.slot,
    }
}
