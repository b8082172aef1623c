//! Sealing: what is frozen becomes a new manifest, at a cost proportional to what was written.
//!
//! ```text
//! frozen overlays --pages, ascending--> workers: read, check, id, compare with base
//!                                          | in order
//!                                          v
//!                                  sink.put (page) --then--> Manifest::update --> sink.put (nodes)
//! ```
//! Two steps. [`Volume::seal`] only reads: whatever fails, the volume is as it was, and sealing
//! again is right. Then the caller finishes its sink, and when everything is durable there
//! [`Volume::adopt`] makes the new manifest the base and drops the overlays that are part of it.
//! A crash between the two leaves the old base under all overlays: the next seal merges them.
//!
//! Reads stay local afterwards: nodes go into the host's cache on the way, and the overlay's data
//! file becomes a part of it when the seal is adopted. Not a page is copied for that.
//!
//! Memory: 40 bytes for each page written, and a few MiB for pages on their way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use chunk::{ChunkId, ChunkSink, Put, SinkError, id_of};
use manifest::{Manifest, ManifestError, Visit};
use model::{ManifestId, PAGE_BYTES};

use crate::cache::Cache;
use crate::error::{Result, VolumeError};
use crate::layers::{self, Layers};
use crate::lock::{exclusive, lock};
use crate::overlay::{Overlay, PageState};
use crate::volume::{PAGE, Volume};

/// Pages that a worker takes at once: 1 MiB.
const BATCH_PAGES: usize = 256;
/// Batches on their way for each worker.
const BATCHES_PER_WORKER: usize = 3;
/// Threads that read and hash.
const WORKERS_MAX: usize = 8;
/// Pages of the base that are looked up together below zeros.
const ZERO_WINDOW: u64 = 128 * 128;
/// With more zero pages than this (64 GiB), the whole base is walked instead.
const ZEROS_LOOKED_UP_MAX: u64 = 1 << 24;

/// What a seal made. Nothing changes before it is adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Names the volume's content at the freeze.
    pub manifest: ManifestId,
    /// Bytes of all pages that were written since the base.
    pub dirty_bytes: u64,
    /// Bytes (uncompressed) of pages and index nodes that the store did not have.
    pub stored_bytes: u64,
    /// Bytes of pages and index nodes that were there already: unchanged, or known to the store.
    pub reused_bytes: u64,
    base: ManifestId,
    new_base: Manifest,
    /// The overlays that are part of it, newest first.
    overlays: Vec<u64>,
}

impl Volume {
    /// Turns what is frozen into a new manifest. The caller finishes `sink`, and then adopts.
    ///
    /// When nothing is frozen, this is the base itself.
    pub fn seal(&self, sink: &mut dyn ChunkSink) -> Result<Sealed> {
        let _sealing = lock(&self.sealing);
        // Not part of the seal, but here nobody is paused: the next freeze must find its overlay.
        self.keeper.make_spares(1)?;
        let layers = self.layers();
        let mut sink =
            Counting { sink, cache: self.fetcher.cache(), stored_bytes: 0, reused_bytes: 0 };
        let (changes, dirty_pages) = self.put_pages(&layers, &mut sink)?;
        let zeros = self.zeros_over_base(&layers)?;
        let mut changes =
            Merged { data: changes.iter().peekable(), zeros: zeros.iter().peekable() };
        let new_base = layers
            .base
            .update(&self.nodes, &mut changes, Some(self.size_bytes), &mut sink)
            .map_err(|error| match error {
                ManifestError::Sink(error) => self.seal_error(error),
                error => VolumeError::SealIndex { volume: self.name.clone(), error },
            })?;
        Ok(Sealed {
            manifest: new_base.id(),
            dirty_bytes: dirty_pages * PAGE,
            stored_bytes: sink.stored_bytes,
            reused_bytes: sink.reused_bytes,
            base: layers.base.id(),
            new_base,
            overlays: layers.frozen.iter().map(|overlay| overlay.number()).collect(),
        })
    }

    /// Makes what was sealed the base, and drops the overlays that are part of it. Only when the
    /// caller's store has everything durably: this volume's copy goes.
    ///
    /// After an error the volume is as it was, and adopting again is right.
    pub fn adopt(&self, sealed: &Sealed) -> Result<()> {
        let _sealing = lock(&self.sealing);
        let stale = || VolumeError::StaleSeal { volume: self.name.clone() };
        // Freezes go on meanwhile, but they only add newer overlays.
        let now = self.layers();
        let kept = now.frozen.len().checked_sub(sealed.overlays.len()).ok_or_else(stale)?;
        let merged = now.frozen[kept..].iter().map(|overlay| overlay.number());
        if now.base.id() != sealed.base || !merged.eq(sealed.overlays.iter().copied()) {
            return Err(stale());
        }
        self.keeper.replace_base(sealed.manifest, &sealed.overlays)?;
        let old = {
            let mut layers = exclusive(&self.layers);
            let mut frozen = layers.frozen.clone();
            frozen.truncate(frozen.len() - sealed.overlays.len());
            let base = Arc::new(sealed.new_base.clone());
            let active = layers.active.clone();
            std::mem::replace(&mut *layers, Arc::new(Layers { active, frozen, base }))
        };
        // Not under the lock: the last one to let go of a large file waits while it is freed.
        drop(old);
        for overlay in &now.frozen[kept..] {
            self.keeper.give_overlay(overlay, self.fetcher.cache());
        }
        Ok(())
    }

    /// Puts every page that is frozen and differs from the base: the changes, ascending, and the
    /// number of pages that were looked at.
    fn put_pages(
        &self,
        layers: &Layers,
        sink: &mut Counting<'_>,
    ) -> Result<(Vec<(u64, ChunkId)>, u64)> {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
        let workers = ambient::threads(workers.min(WORKERS_MAX));
        let permits_max = workers * BATCHES_PER_WORKER;
        let cursor = Mutex::new(Cursor { frozen: &layers.frozen, next_page: 0, next_batch: 0 });
        let stopped = AtomicBool::new(false);
        // A permit is a buffer that was used before.
        let (permit, permits) = sync_channel::<Vec<u8>>(permits_max);
        let permits = Mutex::new(permits);
        let (done, batches) = sync_channel::<(u64, Result<Batch>)>(permits_max);
        for _ in 0..permits_max {
            let _ = permit.try_send(Vec::new());
        }
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let done = done.clone();
                let (cursor, permits, stopped) = (&cursor, &permits, &stopped);
                let work = move || self.hash_batches(layers, cursor, permits, stopped, &done);
                let thread = std::thread::Builder::new().name("seal-hash".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, work) {
                    return Err(VolumeError::io(&self.name, "starting a thread", error));
                }
            }
            drop(done);
            let put = self.put_batches(&batches, &permit, sink);
            stopped.store(true, Ordering::Relaxed);
            // Workers that wait for a permit find the channel closed, those that want to deliver
            // find nobody.
            drop(permit);
            drop(batches);
            put
        })
    }

    /// A worker: takes batches in order until there are none.
    fn hash_batches(
        &self,
        layers: &Layers,
        cursor: &Mutex<Cursor<'_>>,
        permits: &Mutex<Receiver<Vec<u8>>>,
        stopped: &AtomicBool,
        done: &SyncSender<(u64, Result<Batch>)>,
    ) {
        while !stopped.load(Ordering::Relaxed) {
            // The others wait at the lock; when the channel is closed, all see it in turn.
            let Ok(buffer) = lock(permits).recv() else { return };
            let (batch, pages) = lock(cursor).take();
            if pages.is_empty() {
                return;
            }
            if done.send((batch, self.hash_batch(layers, pages, buffer))).is_err() {
                return;
            }
        }
    }

    /// Reads pages into `bytes`, whose content does not matter, and finds those that changed.
    fn hash_batch(&self, layers: &Layers, pages: Vec<u64>, mut bytes: Vec<u8>) -> Result<Batch> {
        bytes.resize(pages.len() * PAGE_BYTES, 0);
        let mut found = vec![false; pages.len()];
        let mut old = Vec::with_capacity(pages.len());
        for run in runs(&pages, |a, b| b == a + 1) {
            let part = &mut bytes[run.start * PAGE_BYTES..run.end * PAGE_BYTES];
            layers::read(layers.frozen.iter(), pages[run.start], part, &mut found[run])?;
        }
        // What is frozen does not change, so there is none. But a buffer holds another page's bytes,
        // and those must never be taken for this one's.
        if let Some(at) = found.iter().position(|found| !found) {
            let detail = "its overlay lists it and does not have it".to_owned();
            let (volume, page) = (self.name.clone(), pages[at]);
            return Err(VolumeError::DamagedPage { volume, page, detail });
        }
        // One lookup for pages under the same leaf.
        let mut ids = Vec::new();
        for run in runs(&pages, |a, b| a / 128 == b / 128) {
            let first = pages[run.start];
            ids.clear();
            self.base_ids(layers, &self.nodes, first, pages[run.end - 1] - first + 1, &mut ids)?;
            old.extend(pages[run].iter().map(|page| ids[(page - first) as usize]));
        }
        let cache = self.fetcher.cache();
        let mut changed = Vec::with_capacity(pages.len());
        for (at, page) in bytes.chunks_exact(PAGE_BYTES).enumerate() {
            let id = id_of(page);
            if let Some((segment, offset)) = layers::locate(&layers.frozen, pages[at]) {
                cache.announce(&id, segment, offset);
            }
            if old[at] != Some(id) {
                changed.push((at, id));
            }
        }
        Ok(Batch { pages, bytes, changed })
    }

    /// Gives batches to the sink in the order of their pages.
    fn put_batches(
        &self,
        batches: &Receiver<(u64, Result<Batch>)>,
        permit: &SyncSender<Vec<u8>>,
        sink: &mut Counting<'_>,
    ) -> Result<(Vec<(u64, ChunkId)>, u64)> {
        let mut changes = Vec::new();
        let mut dirty_pages = 0;
        let mut early = BTreeMap::new();
        let mut next_batch = 0;
        for (number, batch) in batches {
            early.insert(number, batch?);
            while let Some(batch) = early.remove(&next_batch) {
                next_batch += 1;
                dirty_pages += batch.pages.len() as u64;
                sink.reused_bytes += (batch.pages.len() - batch.changed.len()) as u64 * PAGE;
                for &(at, id) in &batch.changed {
                    let page = &batch.bytes[at * PAGE_BYTES..][..PAGE_BYTES];
                    sink.put(id, page).map_err(|error| self.seal_error(error))?;
                    changes.push((batch.pages[at], id));
                }
                // All workers may have ended already.
                let _ = permit.try_send(batch.bytes);
            }
        }
        Ok((changes, dirty_pages))
    }

    /// Pages that are zero now and are not in the base, ascending.
    fn zeros_over_base(&self, layers: &Layers) -> Result<Vec<u64>> {
        let mut zeros = crate::ranges::RangeSet::default();
        for overlay in &layers.frozen {
            for (first, count) in overlay.zero_ranges().iter() {
                zeros.insert(first, count);
            }
        }
        let mut holes = Vec::new();
        if layers.base.root().is_none() || zeros.is_empty() {
            return Ok(holes);
        }
        let is_hole = |page| layers::state(layers.frozen.iter(), page) == PageState::Zero;
        if zeros.iter().map(|(_, count)| count).sum::<u64>() > ZEROS_LOOKED_UP_MAX {
            // Cheaper to see all that the base has than all that is zero now.
            let descend = &mut |_: &ChunkId, _| Visit::Descend;
            let walked = layers.base.walk(&self.nodes, descend, &mut |page, _| {
                if zeros.contains(page) && is_hole(page) {
                    holes.push(page);
                }
            });
            return walked.map(|()| holes).map_err(|error| self.index_error(0, error));
        }
        let mut ids = Vec::new();
        for (first, count) in zeros.iter() {
            let end = first + count;
            for window in (first..end).step_by(ZERO_WINDOW as usize) {
                ids.clear();
                let count = ZERO_WINDOW.min(end - window);
                self.base_ids(layers, &self.nodes, window, count, &mut ids)?;
                let present = ids.iter().zip(window..).filter(|(id, _)| id.is_some());
                holes.extend(present.map(|(_, page)| page).filter(|&page| is_hole(page)));
            }
        }
        Ok(holes)
    }

    fn seal_error(&self, error: SinkError) -> VolumeError {
        VolumeError::Seal { volume: self.name.clone(), error }
    }
}

/// Some pages, ascending, with their bytes.
struct Batch {
    pages: Vec<u64>,
    bytes: Vec<u8>,
    /// Which of them (by index) differ from the base, with their new ids.
    changed: Vec<(usize, ChunkId)>,
}

/// Hands out the frozen pages in ascending batches.
struct Cursor<'a> {
    frozen: &'a [Arc<Overlay>],
    next_page: u64,
    next_batch: u64,
}

impl Cursor<'_> {
    /// The next batch; without pages when there are no more.
    fn take(&mut self) -> (u64, Vec<u64>) {
        loop {
            let mut pages: Vec<u64> = Vec::new();
            for overlay in self.frozen {
                pages.extend(overlay.next_data(self.next_page, BATCH_PAGES));
            }
            pages.sort_unstable();
            pages.dedup();
            // Beyond the first BATCH_PAGES, an overlay may have more than it said.
            pages.truncate(BATCH_PAGES);
            let Some(&last) = pages.last() else { return (self.next_batch, pages) };
            self.next_page = last + 1;
            if self.frozen.len() > 1 {
                // Bytes in an old overlay may be zero in a newer one.
                pages.retain(|&page| layers::state(self.frozen.iter(), page) == PageState::Data);
            }
            if !pages.is_empty() {
                self.next_batch += 1;
                return (self.next_batch - 1, pages);
            }
        }
    }
}

/// Cuts a sorted list into runs within which `together` holds for neighbours.
fn runs(
    pages: &[u64],
    together: impl Fn(u64, u64) -> bool,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == pages.len() {
            return None;
        }
        let more = pages[start..].windows(2).take_while(|pair| together(pair[0], pair[1])).count();
        let run = start..start + more + 1;
        start = run.end;
        Some(run)
    })
}

/// Changes of pages with bytes and of pages that became holes, ascending.
struct Merged<'a> {
    data: std::iter::Peekable<std::slice::Iter<'a, (u64, ChunkId)>>,
    zeros: std::iter::Peekable<std::slice::Iter<'a, u64>>,
}

impl Iterator for Merged<'_> {
    type Item = (u64, Option<ChunkId>);

    fn next(&mut self) -> Option<Self::Item> {
        let zero_first = match (self.data.peek(), self.zeros.peek()) {
            (Some((data, _)), Some(zero)) => *zero < data,
            (None, Some(_)) => true,
            _ => false,
        };
        if zero_first {
            self.zeros.next().map(|&page| (page, None))
        } else {
            self.data.next().map(|&(page, id)| (page, Some(id)))
        }
    }
}

/// The caller's sink, with what goes into it counted and kept in the host's cache.
struct Counting<'a> {
    sink: &'a mut dyn ChunkSink,
    cache: &'a Cache,
    stored_bytes: u64,
    reused_bytes: u64,
}

impl ChunkSink for Counting<'_> {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        let put = self.sink.put(id, bytes)?;
        match put {
            Put::Stored => self.stored_bytes += bytes.len() as u64,
            Put::Reused => self.reused_bytes += bytes.len() as u64,
        }
        // Pages come with the overlay that they are in.
        if bytes.len() != PAGE_BYTES {
            self.cache.insert(id, bytes);
        }
        Ok(put)
    }
}
