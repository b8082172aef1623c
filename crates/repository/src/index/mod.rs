//! The index as this host sees it: where each chunk lies, as of one point of the log.
//!
//! The log (`index/<number>`) is dense and linear: whoever writes object n has applied every
//! object before it, because n is *created*, and only one can create it. So the state after n
//! is the same for everyone.
//!
//! Invariants
//! * A pack that is condemned still serves reads, but nobody deduplicates against it.
//! * A location is only ever a hint for reading: what it leads to is verified.

mod file;
mod local;
mod segment;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chunk::crypt::{PackId, StoredName};

pub(crate) use local::LocalDir;
pub(crate) use segment::Segment;

use crate::RepositoryError;
use crate::log::{IndexObject, Snapshot};
use crate::pack::PackEntry;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    /// Where its frame begins in the pack.
    pub(crate) offset: u64,
    /// The frame's sealed bytes.
    pub(crate) bytes: u32,
    /// The frame's number in the pack.
    pub(crate) frame: u32,
    /// The chunk's place in the frame.
    pub(crate) slot: u16,
}

/// What the index says about a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackInfo {
    pub(crate) bytes: u64,
    pub(crate) chunks: u32,
    /// Number of the index object that condemned it; 0 for a pack in use.
    pub(crate) condemned_at: u64,
}

/// The state of the index at one point of the log.
///
/// Cloning is cheap in chunks (the segments are shared) and costs some 50 bytes a pack.
#[derive(Default, Clone)]
pub(crate) struct Index {
    /// The last index object that is applied; 0 for none.
    pub(crate) applied: u64,
    /// The latest snapshot at or before `applied`; 0 for none.
    pub(crate) latest_snapshot: u64,
    /// Tables that the latest snapshot names.
    pub(crate) tables: Vec<[u8; 16]>,
    pub(crate) packs: HashMap<PackId, PackInfo>,
    /// Packs that were condemned before any index listed them, and by which object.
    pub(crate) condemned_orphans: HashMap<PackId, u64>,
    /// Packs that were removed while we watched.
    pub(crate) removed: HashSet<PackId>,
    /// Counts how often the log had been cut behind our back, so that a whole new state was
    /// loaded and `removed` may be incomplete.
    pub(crate) epoch: u64,
    /// Oldest first, and each at least twice as large as the next.
    segments: Vec<Arc<Segment>>,
    /// Where segments that are too large for memory go.
    pub(crate) local: Option<Arc<LocalDir>>,
    /// The object after which the state was last written to `local`.
    saved: u64,
    /// Entries that came since then, wherever they are now.
    unsaved: usize,
}

/// A state is written again after so many more objects of the log.
const SAVE_EVERY: u64 = 16;
/// Or when so many entries would have to be fetched again: 128 KiB of them.
const SAVE_ENTRIES: usize = 4096;

impl Index {
    /// Goes on from the newest state in a local directory, if there is a whole one.
    pub(crate) fn open(local: Option<Arc<LocalDir>>) -> Self {
        let kept = local.as_ref().and_then(|local| local.load()).unwrap_or_default();
        Self { saved: kept.applied, local, ..kept }
    }

    /// Applies object `number`, which must follow, or be the snapshot with which a new state
    /// begins; then `tables` are the segments of its tables.
    pub(crate) fn apply(
        &mut self,
        number: u64,
        object: &IndexObject,
        tables: Vec<Segment>,
    ) -> Result<(), RepositoryError> {
        let added = (!object.added.is_empty())
            .then(|| Segment::from_packs(&object.added, self.local.as_deref()))
            .transpose()?;
        self.apply_state(number, object);
        let come = tables.into_iter().chain(added).map(Arc::new);
        self.segments.extend(come.inspect(|segment| self.unsaved += segment.len()));
        self.merge()
    }

    /// What an object says about packs.
    fn apply_state(&mut self, number: u64, object: &IndexObject) {
        if let Some(snapshot) = &object.snapshot {
            // Who comes from the object before has this state already.
            if self.applied + 1 != number || self.applied == 0 {
                self.load(snapshot);
            }
            self.latest_snapshot = number;
            self.tables.clone_from(&snapshot.tables);
        }
        for pack in &object.added {
            let info =
                PackInfo { bytes: pack.bytes, chunks: pack.chunks() as u32, condemned_at: 0 };
            self.packs.insert(pack.id, info);
            self.condemned_orphans.remove(&pack.id);
        }
        for id in &object.condemned {
            match self.packs.get_mut(id) {
                Some(info) => info.condemned_at = number,
                None => {
                    self.condemned_orphans.insert(*id, number);
                }
            }
        }
        for id in &object.revived {
            if let Some(info) = self.packs.get_mut(id) {
                info.condemned_at = 0;
            }
        }
        for id in &object.removed {
            self.packs.remove(id);
            self.condemned_orphans.remove(id);
            self.removed.insert(*id);
        }
        self.applied = number;
    }

    /// Puts other segments in the place of those we have: the state stays as it is.
    pub(crate) fn replace_segments(
        &mut self,
        segments: Vec<Segment>,
    ) -> Result<(), RepositoryError> {
        self.segments = segments.into_iter().map(Arc::new).collect();
        self.saved = 0;
        self.merge()
    }

    /// Writes the state to the local directory when it has moved on far enough.
    pub(crate) fn save(&mut self) -> Result<(), RepositoryError> {
        let Some(local) = self.local.clone() else { return Ok(()) };
        if self.applied < self.saved + SAVE_EVERY && self.unsaved < SAVE_ENTRIES {
            return Ok(());
        }
        for segment in &mut self.segments {
            if segment.path().is_none() {
                let alone = Segment::merge(segment, &Segment::empty(), None, |_| true)?;
                *segment = Arc::new(alone.into_file(&local)?);
            }
        }
        local.save(self)?;
        (self.saved, self.unsaved) = (self.applied, 0);
        Ok(())
    }

    /// Reads every block of every local file.
    pub(crate) fn verify(&self) -> Result<(), RepositoryError> {
        self.segments.iter().try_for_each(|segment| segment.for_each(|_, _, _| ()))
    }

    fn load(&mut self, snapshot: &Snapshot) {
        for pack in &snapshot.packs {
            // A pack without a size was never listed: an orphan that is condemned.
            if pack.bytes == 0 {
                self.condemned_orphans.insert(pack.id, pack.condemned_at);
                continue;
            }
            let info = PackInfo {
                bytes: pack.bytes,
                chunks: pack.chunks,
                condemned_at: pack.condemned_at,
            };
            self.packs.insert(pack.id, info);
        }
    }

    /// Forgets everything: a whole new state follows.
    pub(crate) fn reset(&mut self) {
        let (epoch, local) = (self.epoch + 1, self.local.take());
        *self = Self { epoch, local, ..Self::default() };
    }

    /// All places where a chunk lies, those in packs in use first.
    pub(crate) fn locations(&self, name: &StoredName) -> Result<Vec<Location>, RepositoryError> {
        let mut found = Vec::new();
        for segment in self.segments.iter().rev() {
            segment.find(name, |_, location| {
                if let Some(info) = self.packs.get(&location.pack) {
                    found.push((info.condemned_at != 0, location));
                }
            })?;
        }
        found.sort_by_key(|(condemned, _)| *condemned);
        Ok(found.into_iter().map(|(_, location)| location).collect())
    }

    /// The pack in use that holds a chunk, if one does: what a writer may rely on.
    pub(crate) fn pack_in_use(&self, name: &StoredName) -> Result<Option<PackId>, RepositoryError> {
        let mut found = None;
        for segment in self.segments.iter().rev() {
            segment.find(name, |_, location| {
                if self.packs.get(&location.pack).is_some_and(|info| info.condemned_at == 0) {
                    found = Some(location.pack);
                }
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// No chunk is marked yet.
    pub(crate) fn marks(&self) -> Marks {
        Marks(self.segments.iter().map(|segment| vec![0; segment.len().div_ceil(64)]).collect())
    }

    /// Marks one copy of a chunk, the one that readers would take. `None` when the index does
    /// not have it, else whether it was marked already.
    pub(crate) fn mark(
        &self,
        marks: &mut Marks,
        name: &StoredName,
    ) -> Result<Option<bool>, RepositoryError> {
        self.mark_preferring(marks, name, |_| 0)
    }

    /// The same; of several copies in packs in use, the one whose pack ranks highest.
    pub(crate) fn mark_preferring(
        &self,
        marks: &mut Marks,
        name: &StoredName,
        rank: impl Fn(&PackId) -> u64,
    ) -> Result<Option<bool>, RepositoryError> {
        let mut best: Option<((bool, u64), usize, usize)> = None;
        for (number, segment) in self.segments.iter().enumerate().rev() {
            segment.find(name, |at, location| {
                if let Some(info) = self.packs.get(&location.pack) {
                    let order = (info.condemned_at != 0, u64::MAX - rank(&location.pack));
                    if best.is_none_or(|(least, ..)| order < least) {
                        best = Some((order, number, at));
                    }
                }
            })?;
        }
        let Some((_, number, at)) = best else { return Ok(None) };
        let word = &mut marks.0[number][at / 64];
        let before = *word >> (at % 64) & 1 == 1;
        *word |= 1 << (at % 64);
        Ok(Some(before))
    }

    /// Calls `each` with every chunk of every pack that is still there, and whether it is
    /// marked.
    pub(crate) fn for_each(
        &self,
        marks: &Marks,
        mut each: impl FnMut(&StoredName, &Location, bool),
    ) -> Result<(), RepositoryError> {
        for (segment, bits) in self.segments.iter().zip(&marks.0) {
            segment.for_each(|at, name, location| {
                if self.packs.contains_key(&location.pack) {
                    each(name, location, bits[at / 64] >> (at % 64) & 1 == 1);
                }
            })?;
        }
        Ok(())
    }

    /// Keeps the segments few: neighbours of similar size become one.
    fn merge(&mut self) -> Result<(), RepositoryError> {
        while let [.., older, newer] = self.segments.as_slice() {
            if older.len() > newer.len() * 2 {
                break;
            }
            let packs = &self.packs;
            let local = self.local.as_deref();
            let merged = Segment::merge(older, newer, local, |pack| packs.contains_key(pack))?;
            self.segments.truncate(self.segments.len() - 2);
            self.segments.push(Arc::new(merged));
        }
        Ok(())
    }
}

/// One bit for each entry of an index: whether something needs it.
pub(crate) struct Marks(Vec<Vec<u64>>);

/// The locations of a pack's chunks, frame by frame.
pub(crate) fn locations_of(pack: &PackEntry) -> impl Iterator<Item = (StoredName, Location)> + '_ {
    let mut offset = crate::pack::PACK_HEAD_BYTES;
    pack.frames.iter().enumerate().flat_map(move |(number, frame)| {
        let start = offset;
        offset += u64::from(frame.stored_bytes);
        frame.names.iter().enumerate().map(move |(slot, name)| {
            let location = Location {
                pack: pack.id,
                offset: start,
                bytes: frame.stored_bytes,
                frame: number as u32,
                slot: slot as u16,
            };
            (*name, location)
        })
    })
}
