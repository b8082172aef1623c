//! Collecting what nothing references any more, while others go on writing.
//!
//! Deleting has two phases, with a grace age between them, and both are objects in the log:
//!
//! ```text
//!   in use ──nothing references it──> condemned ──still so, a grace age later──> removed ──> deleted
//!      ^                                  │
//!      └── a writer relies on it, or a ref names it: revived
//! ```
//!
//! Why nothing that is referenced is lost: a writer deduplicates only against packs in use, and
//! before it writes a ref it applies the whole log and revives what was condemned meanwhile
//! ([`crate::sessions`]). So a ref whose writer did *not* see a condemnation was written within
//! the grace age after it, and the mark phase that precedes the removal, which begins at least
//! that much later, sees the ref. A writer that did see it has put the revival into the log,
//! and the removal, which is created on top of the whole log, sees that.
//!
//! Time: only the store's own modification times are compared with each other: that of a
//! marker that this run writes, of packs, of refs and of index objects.
//!
//! Crash: each step leaves a state from which the next run goes on. Deletion goes from what
//! names to what is named: refs' generations, log entry, packs.

mod compact;
mod repack;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use chunk::crypt::PackId;
use model::{ChunkId, Generation};
use objects::ObjectError;

use crate::index::{Index, Marks};
use crate::layout::{MARKERS, PACKS, index_key, pack_key, pack_of, ref_key};
use crate::log::IndexObject;
use crate::walk::{Place, Visitor, What, walk};
use crate::wire::hex;
use crate::{Repository, RepositoryError};

/// What a collection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// Generations of each ref that are kept whatever their age, at least 1.
    pub keep_generations: u64,
    /// A pack is rewritten when less than this share of its chunks is needed, percent.
    pub repack_below_percent: u8,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { keep_generations: 10, repack_below_percent: 50 }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcStats {
    /// Different chunks that refs need.
    pub live_chunks: u64,
    /// Packs that nothing needs any more: to be removed by a later run, after the grace age.
    pub condemned_packs: u64,
    /// Bytes of all packs that are condemned after this run.
    pub condemned_bytes: u64,
    /// Packs that were condemned and are needed after all.
    pub revived_packs: u64,
    /// Packs that were deleted.
    pub removed_packs: u64,
    /// Bytes of the packs that were deleted.
    pub removed_bytes: u64,
    /// Packs whose needed chunks were copied into new ones.
    pub repacked_packs: u64,
    /// Old generations of refs that were deleted.
    pub deleted_generations: u64,
    /// Superseded objects of the index that were deleted.
    pub deleted_index_objects: u64,
    /// Index objects that were gathered into one snapshot.
    pub compacted_index_objects: u64,
}

/// The state of one run.
struct Run<'a> {
    repository: &'a Repository,
    options: GcOptions,
    /// The store's time when this run began, milliseconds since the Unix epoch.
    now_unix_ms: u64,
    stats: GcStats,
}

impl Repository {
    /// Collects what nothing references any more. Safe while others write, also other
    /// collections. See [`GcStats`] for what it takes two runs, a grace age apart, to do.
    pub fn gc(&self, options: GcOptions) -> Result<GcStats, RepositoryError> {
        self.must_be_writable()?;
        if options.keep_generations == 0 || options.repack_below_percent > 100 {
            return Err(RepositoryError::Invalid {
                what: "an option of gc",
                detail: "keep at least 1 generation; repack below at most 100 percent".to_owned(),
            });
        }
        let marker = format!("{MARKERS}/{}", hex(&ambient::random::<16>()));
        let objects = &self.inner.objects;
        objects.put_new(&marker, Bytes::new())?;
        let result = objects.head(&marker).map_err(RepositoryError::from).and_then(|meta| {
            let (now_unix_ms, stats) = (meta.modified_unix_ms, GcStats::default());
            let mut run = Run { repository: self, options, now_unix_ms, stats };
            run.run()?;
            Ok(run.stats)
        });
        objects.delete(&marker)?;
        result
    }
}

impl Run<'_> {
    fn run(&mut self) -> Result<(), RepositoryError> {
        // Refs first, index after: so the index has all that these refs name.
        let (kept, old) = self.sort_generations()?;
        let listed = self.repository.inner.objects.list(PACKS)?;
        let ages: HashMap<PackId, (u64, u64)> = listed
            .iter()
            .filter_map(|o| Some((pack_of(&o.key)?, (o.bytes, o.modified_unix_ms))))
            .collect();
        self.repository.refresh()?;
        let index = self.repository.sound_index()?;
        let marks = self.mark(&index, &kept, &ages)?;
        ambient::step("gc: marked");
        for (stored, generation) in &old {
            self.repository.inner.objects.delete(&ref_key(stored, *generation))?;
            self.stats.deleted_generations += 1;
        }
        ambient::step("gc: old generations deleted");
        let mut needed: HashMap<PackId, u32> = HashMap::new();
        index.for_each(&marks, |_, location, marked| {
            if marked {
                *needed.entry(location.pack).or_default() += 1;
            }
        })?;
        self.stats.live_chunks = needed.values().map(|count| u64::from(*count)).sum();
        let rewritten = self.repack(&index, &marks, &needed, &ages)?;
        ambient::step("gc: repacked");
        self.judge(&index, &needed, &rewritten, &ages)?;
        ambient::step("gc: judged");
        self.compact()?;
        ambient::step("gc: compacted");
        self.tidy()
    }

    fn is_old(&self, modified_unix_ms: u64) -> bool {
        modified_unix_ms.saturating_add(self.repository.grace_ms()) <= self.now_unix_ms
    }

    /// The generations that count, and those that can go: beyond the number to keep, and
    /// superseded for at least the grace age.
    #[allow(clippy::type_complexity)]
    fn sort_generations(
        &self,
    ) -> Result<(Vec<([u8; 32], Generation)>, Vec<([u8; 32], Generation)>), RepositoryError> {
        let (mut kept, mut old) = (Vec::new(), Vec::new());
        for (stored, generations) in self.repository.refs().all()? {
            let Some((last, _)) = generations.last().copied() else { continue };
            let removed = self.repository.refs().open(&stored, last)?.removed;
            let keep = if removed { 1 } else { self.options.keep_generations };
            for (at, (generation, _)) in generations.iter().enumerate() {
                let successor = generations.get(at + 1);
                let superseded = successor.is_some_and(|(_, modified)| self.is_old(*modified));
                if superseded && generation.0.saturating_add(keep) <= last.0 {
                    old.push((stored, *generation));
                } else {
                    kept.push((stored, *generation));
                }
            }
        }
        Ok((kept, old))
    }

    fn mark(
        &self,
        index: &Index,
        kept: &[([u8; 32], Generation)],
        ages: &HashMap<PackId, (u64, u64)>,
    ) -> Result<Marks, RepositoryError> {
        let mut marker = Marker { repository: self.repository, index, marks: index.marks(), ages };
        let mut roots = Vec::new();
        for (stored, generation) in kept {
            let opened = match self.repository.refs().open(stored, *generation) {
                // Another collection was faster: then this generation is none to keep.
                Err(RepositoryError::Object(ObjectError::NotFound { .. })) => continue,
                other => other?,
            };
            let root = format!("{} {}, generation {generation}", opened.kind, opened.name);
            roots.extend(crate::walk::roots(&root, &opened.value.roots));
        }
        walk(self.repository, roots, &mut marker)?;
        Ok(marker.marks)
    }

    /// Condemns, revives and removes, in one object of the log; then deletes what was removed.
    fn judge(
        &mut self,
        index: &Index,
        needed: &HashMap<PackId, u32>,
        rewritten: &HashSet<PackId>,
        ages: &HashMap<PackId, (u64, u64)>,
    ) -> Result<(), RepositoryError> {
        let is_needed = |id: &PackId| needed.contains_key(id) && !rewritten.contains(id);
        let mut condemn = Vec::new();
        let mut revive = Vec::new();
        let mut due: Vec<(PackId, u64)> = Vec::new();
        for (id, info) in &index.packs {
            match (is_needed(id), info.condemned_at) {
                (true, 0) => {}
                (true, _) => revive.push(*id),
                (false, 0) => {
                    let young = ages.get(id).is_some_and(|(_, modified)| !self.is_old(*modified));
                    if !young {
                        condemn.push(*id);
                    }
                }
                (false, number) => due.push((*id, number)),
            }
        }
        for (id, (_, modified)) in ages {
            if index.packs.contains_key(id) {
                continue;
            }
            match index.condemned_orphans.get(id) {
                Some(number) => due.push((*id, *number)),
                None if self.is_old(*modified) => condemn.push(*id),
                None => {}
            }
        }
        // In an order that is the same for whoever sees the same.
        condemn.sort_unstable();
        revive.sort_unstable();
        due.sort_unstable();
        let mut remove = Vec::new();
        for (id, number) in due {
            if self.condemned_long_ago(number)? {
                remove.push((id, number));
            }
        }
        let mut removed = Vec::new();
        self.repository.extend(|index| {
            // Others may have extended the log since we looked: what they revived stays.
            let condemned_at = |id: &PackId| match index.packs.get(id) {
                Some(info) => info.condemned_at,
                None => index.condemned_orphans.get(id).copied().unwrap_or(0),
            };
            removed = remove
                .iter()
                .filter(|(id, number)| condemned_at(id) == *number)
                .map(|(id, _)| *id)
                .collect();
            Ok(IndexObject {
                condemned: condemn.iter().filter(|id| condemned_at(id) == 0).copied().collect(),
                revived: revive.iter().filter(|id| condemned_at(id) != 0).copied().collect(),
                removed: removed.clone(),
                ..IndexObject::default()
            })
        })?;
        ambient::step("gc: in the log");
        self.stats.condemned_packs = condemn.len() as u64;
        self.stats.revived_packs = revive.len() as u64;
        for id in &removed {
            self.repository.inner.objects.delete(&pack_key(id))?;
            self.stats.removed_packs += 1;
            self.stats.removed_bytes += ages.get(id).map_or(0, |(bytes, _)| *bytes);
        }
        let index = self.repository.index();
        let condemned = index.packs.values().filter(|info| info.condemned_at != 0);
        self.stats.condemned_bytes = condemned.map(|info| info.bytes).sum();
        Ok(())
    }

    /// Whether the index object that condemned something is older than the grace age. One that
    /// is gone was superseded for that long.
    fn condemned_long_ago(&self, number: u64) -> Result<bool, RepositoryError> {
        match self.repository.inner.objects.head(&index_key(number)) {
            Ok(meta) => Ok(self.is_old(meta.modified_unix_ms)),
            Err(ObjectError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what dead runs, probes and writers left.
    fn tidy(&self) -> Result<(), RepositoryError> {
        let objects = &self.repository.inner.objects;
        for folder in [MARKERS, "probe"] {
            for object in objects.list(folder)? {
                if self.is_old(object.modified_unix_ms) {
                    objects.delete(&object.key)?;
                }
            }
        }
        // A staged file is written within minutes, however short the grace age.
        objects.sweep(self.repository.grace_ms().max(3_600_000))?;
        Ok(())
    }
}

/// Marks what is needed. What is not in our index is not ours to keep: it is in the repository
/// of a maker, and so is all that only it names.
struct Marker<'a> {
    repository: &'a Repository,
    index: &'a Index,
    marks: Marks,
    /// Of several copies the youngest counts: where one was damaged, that is the one that mended it.
    ages: &'a HashMap<PackId, (u64, u64)>,
}

impl Visitor for Marker<'_> {
    fn needs(&mut self, _: &Place, _: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let name = self.repository.inner.cipher.stored_name(id);
        let rank = |pack: &PackId| self.ages.get(pack).map_or(0, |(_, modified)| *modified);
        Ok(self.index.mark_preferring(&mut self.marks, &name, rank)? == Some(false))
    }

    /// What cannot be read may name anything: so nothing may be deleted.
    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        let detail = format!("{place} cannot be read, so nothing was collected: {error}");
        Err(RepositoryError::damaged("the repository", detail))
    }
}
