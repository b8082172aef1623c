//! A sorted run of index entries, in memory while it is small and in a local file when not.

use std::collections::HashMap;
use std::path::Path;

use chunk::crypt::{PackId, StoredName};

use super::file::{BLOCK_ENTRIES, EntryFile, EntryWriter};
use super::local::LocalDir;
use super::{Location, locations_of};
use crate::RepositoryError;
use crate::pack::PackEntry;

/// A segment with more entries than this is kept in a file, if there is a place for it: 2 MiB.
const MEMORY_ENTRIES_MAX: usize = 1 << 16;

/// One entry: 32 bytes in memory and in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: StoredName,
    /// Which of the segment's packs.
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) frame: u16,
    pub(super) slot: u16,
}

/// A sorted run of entries, with the packs that they speak of.
pub(crate) struct Segment {
    packs: Vec<PackId>,
    entries: Entries,
}

enum Entries {
    Memory(Vec<Entry>),
    File(EntryFile),
}

impl Segment {
    pub(crate) fn from_packs(
        packs: &[PackEntry],
        local: Option<&LocalDir>,
    ) -> Result<Self, RepositoryError> {
        let mut entries = Vec::with_capacity(packs.iter().map(PackEntry::chunks).sum());
        for (number, pack) in packs.iter().enumerate() {
            entries.extend(
                locations_of(pack).map(|(name, location)| entry(name, number as u32, &location)),
            );
        }
        entries.sort_unstable();
        let packs = packs.iter().map(|pack| pack.id).collect();
        let segment = Self { packs, entries: Entries::Memory(entries) };
        match local {
            Some(local) if segment.len() > MEMORY_ENTRIES_MAX => segment.into_file(local),
            _ => Ok(segment),
        }
    }

    /// Without entries.
    pub(crate) fn empty() -> Self {
        Self { packs: Vec::new(), entries: Entries::Memory(Vec::new()) }
    }

    /// Opens a segment that [`Self::into_file`] wrote and a state names.
    pub(crate) fn open(path: &Path) -> Result<Self, RepositoryError> {
        let segment = Self::open_own(path)?;
        segment.keep_file();
        Ok(segment)
    }

    /// Opens one that no state names yet.
    fn open_own(path: &Path) -> Result<Self, RepositoryError> {
        let (file, packs) = EntryFile::open(path)?;
        Ok(Self { packs, entries: Entries::File(file) })
    }

    /// The same segment in a file.
    pub(crate) fn into_file(self, local: &LocalDir) -> Result<Self, RepositoryError> {
        let Entries::Memory(entries) = &self.entries else { return Ok(self) };
        let path = local.new_segment();
        let write = || {
            let mut writer = EntryWriter::create(&path)?;
            entries.iter().try_for_each(|entry| writer.push(entry))?;
            writer.finish(&self.packs)
        };
        let written = write().map_err(|error| failed(&path, &error))?;
        Self::open_own(&written)
    }

    /// Where its entries are, if in a file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.entries {
            Entries::Memory(_) => None,
            Entries::File(file) => Some(file.path()),
        }
    }

    /// A state on this host's disk is about to name its file, which stays from then on.
    pub(super) fn keep_file(&self) {
        if let Entries::File(file) = &self.entries {
            file.keep();
        }
    }

    /// One segment of two; entries whose pack is not kept are dropped.
    pub(crate) fn merge(
        older: &Self,
        newer: &Self,
        local: Option<&LocalDir>,
        keep: impl Fn(&PackId) -> bool,
    ) -> Result<Self, RepositoryError> {
        let mut packs = Vec::new();
        let mut numbers: HashMap<PackId, u32> = HashMap::new();
        let mut renumber = |segment: &Self| -> Vec<Option<u32>> {
            let number = |pack: &PackId| {
                keep(pack).then(|| {
                    *numbers.entry(*pack).or_insert_with(|| {
                        packs.push(*pack);
                        packs.len() as u32 - 1
                    })
                })
            };
            segment.packs.iter().map(number).collect()
        };
        let (old_numbers, new_numbers) = (renumber(older), renumber(newer));
        let mut out = match local {
            Some(local) if older.len() + newer.len() > MEMORY_ENTRIES_MAX => {
                let path = local.new_segment();
                Out::File(EntryWriter::create(&path).map_err(|error| failed(&path, &error))?, path)
            }
            _ => Out::Memory(Vec::with_capacity(older.len() + newer.len())),
        };
        let (mut left, mut right) = (older.cursor(&old_numbers), newer.cursor(&new_numbers));
        let (mut a, mut b) = (left.next()?, right.next()?);
        while let Some(entry) = [a, b].into_iter().flatten().min_by_key(|entry| entry.name) {
            let from_left = a.is_some_and(|a| a == entry);
            out.push(&entry)?;
            if from_left {
                a = left.next()?;
            } else {
                b = right.next()?;
            }
        }
        match out {
            Out::Memory(entries) => Ok(Self { packs, entries: Entries::Memory(entries) }),
            Out::File(writer, path) => {
                Self::open_own(&writer.finish(&packs).map_err(|error| failed(&path, &error))?)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.entries {
            Entries::Memory(entries) => entries.len(),
            Entries::File(file) => file.len(),
        }
    }

    /// Calls `each` with every entry of this name, and its number in the segment.
    pub(crate) fn find(
        &self,
        name: &StoredName,
        mut each: impl FnMut(usize, Location),
    ) -> Result<(), RepositoryError> {
        match &self.entries {
            Entries::Memory(entries) => {
                let start = entries.partition_point(|entry| entry.name < *name);
                let same = entries.iter().enumerate().skip(start);
                for (at, entry) in same.take_while(|(_, entry)| entry.name == *name) {
                    if let Some(location) = self.location(entry) {
                        each(at, location);
                    }
                }
            }
            Entries::File(file) => {
                for block in file.candidates(name) {
                    file.find_in(block, name, |at, entry| {
                        if let Some(location) = self.location(entry) {
                            each(block * BLOCK_ENTRIES + at, location);
                        }
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with every entry in order, and its number in the segment.
    pub(crate) fn for_each(
        &self,
        mut each: impl FnMut(usize, &StoredName, &Location),
    ) -> Result<(), RepositoryError> {
        let mut visit = |base: usize, entries: &[Entry]| {
            for (at, entry) in entries.iter().enumerate() {
                if let Some(location) = self.location(entry) {
                    each(base + at, &entry.name, &location);
                }
            }
        };
        match &self.entries {
            Entries::Memory(entries) => visit(0, entries),
            Entries::File(file) => {
                for block in 0..file.blocks() {
                    visit(block * BLOCK_ENTRIES, &file.block(block)?);
                }
            }
        }
        Ok(())
    }

    fn location(&self, entry: &Entry) -> Option<Location> {
        Some(Location {
            pack: *self.packs.get(entry.pack as usize)?,
            offset: u64::from(entry.offset),
            bytes: entry.bytes,
            frame: u32::from(entry.frame),
            slot: entry.slot,
        })
    }

    fn cursor<'a>(&'a self, numbers: &'a [Option<u32>]) -> Cursor<'a> {
        Cursor { segment: self, numbers, block: Vec::new(), at: 0, next_block: 0 }
    }
}

/// Where a merge goes.
enum Out {
    Memory(Vec<Entry>),
    File(EntryWriter, std::path::PathBuf),
}

impl Out {
    fn push(&mut self, entry: &Entry) -> Result<(), RepositoryError> {
        match self {
            Self::Memory(entries) => entries.push(*entry),
            Self::File(writer, path) => {
                writer.push(entry).map_err(|error| failed(path, &error))?;
            }
        }
        Ok(())
    }
}

/// Entries in order, with new numbers for their packs; those of packs that are not kept are
/// left out.
struct Cursor<'a> {
    segment: &'a Segment,
    numbers: &'a [Option<u32>],
    block: Vec<Entry>,
    at: usize,
    next_block: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<Option<Entry>, RepositoryError> {
        loop {
            let entry = match &self.segment.entries {
                Entries::Memory(entries) => entries.get(self.at),
                Entries::File(file) => {
                    if self.at == self.block.len() && self.next_block < file.blocks() {
                        self.block = file.block(self.next_block)?;
                        self.next_block += 1;
                        self.at = 0;
                    }
                    self.block.get(self.at)
                }
            };
            let Some(entry) = entry else { return Ok(None) };
            self.at += 1;
            if let Some(pack) = self.numbers.get(entry.pack as usize).copied().flatten() {
                return Ok(Some(Entry { pack, ..*entry }));
            }
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> RepositoryError {
    RepositoryError::Local { path: path.display().to_string(), detail: error.to_string() }
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
