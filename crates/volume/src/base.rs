//! Reading pages through the layers, down to the base.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chunk::{ChunkId, FetchError, Urgency};
use manifest::NodeCache;
use model::PAGE_BYTES;

use crate::error::{Result, VolumeError};
use crate::layers::Layers;
use crate::volume::Volume;

impl Volume {
    /// Reads whole pages.
    pub(crate) fn read_pages(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        self.read_layers(&self.layers(), first, buf)
    }

    /// Reads whole pages from certain layers.
    pub(crate) fn read_layers(
        &self,
        layers: &Arc<Layers>,
        first: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let mut found = vec![false; buf.len() / PAGE_BYTES];
        layers.read(first, buf, &mut found)?;
        if found.iter().all(|&found| found) {
            return Ok(());
        }
        self.read_base(layers, first, buf, &found)
    }

    /// Fills the pages that no overlay has. What the host's cache lacks is fetched all at once.
    fn read_base(
        &self,
        layers: &Arc<Layers>,
        first: u64,
        buf: &mut [u8],
        found: &[bool],
    ) -> Result<()> {
        let mut ids = Vec::with_capacity(found.len());
        self.base_ids(layers, &self.nodes, first, found.len() as u64, &mut ids)?;
        let (hits, missing) = self.read_cached(&ids, buf, found);
        self.hit(hits);
        self.touch(first, found, &ids, &missing);
        if missing.is_empty() {
            return Ok(());
        }
        let wanted: Vec<ChunkId> = missing.iter().map(|&(_, id)| id).collect();
        let chunks = self
            .fetcher
            .get_many(&wanted, Urgency::Urgent, &self.cancel)
            .ok_or_else(|| VolumeError::Cancelled { volume: self.name.clone() })?;
        for ((at, id), chunk) in missing.into_iter().zip(chunks) {
            let page = first + at as u64;
            let chunk = chunk.map_err(|error| self.fetch_error(page, error))?;
            if chunk.len() != PAGE_BYTES {
                let detail = format!("it has {} bytes and should be a page", chunk.len());
                return Err(self.fetch_error(page, FetchError::Damaged { id, detail }));
            }
            buf[at * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&chunk);
            self.counters.fetched_pages.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fills the pages that no overlay has, if the index and the host's cache suffice.
    pub(crate) fn read_cached_base(
        &self,
        layers: &Layers,
        first: u64,
        buf: &mut [u8],
        found: &[bool],
        is_touched: bool,
    ) -> bool {
        let mut ids = Vec::with_capacity(found.len());
        let count = found.len() as u64;
        if self.base_ids(layers, &self.local_nodes, first, count, &mut ids).is_err() {
            return false;
        }
        let (hits, missing) = self.read_cached(&ids, buf, found);
        if !missing.is_empty() {
            // Whoever reads it then reads all of it, and counts it.
            return false;
        }
        self.hit(hits);
        if is_touched {
            self.touch(first, found, &ids, &[]);
        }
        true
    }

    /// Fills holes and cached pages; says how many the cache had, and gives the others.
    fn read_cached(
        &self,
        ids: &[Option<ChunkId>],
        buf: &mut [u8],
        found: &[bool],
    ) -> (usize, Vec<(usize, ChunkId)>) {
        let mut wanted = Vec::with_capacity(ids.len());
        for (at, page) in buf.chunks_exact_mut(PAGE_BYTES).enumerate() {
            match ids[at] {
                _ if found[at] => {}
                None => page.fill(0),
                Some(id) => wanted.push((at, id)),
            }
        }
        let missing = self.fetcher.cache().read_pages(&wanted, buf);
        (wanted.len() - missing.len(), missing)
    }

    fn hit(&self, pages: usize) {
        self.counters.cache_hits.fetch_add(pages as u64, Ordering::Relaxed);
    }

    /// Lets the recorder know which pages of the base were wanted, and which were missing here.
    fn touch(
        &self,
        first: u64,
        found: &[bool],
        ids: &[Option<ChunkId>],
        missing: &[(usize, ChunkId)],
    ) {
        let Some((recorder, place)) = self.recorder.get() else { return };
        let mut missing = missing.iter().map(|(at, _)| *at).peekable();
        let wanted = (0..ids.len()).filter(|&at| !found[at] && ids[at].is_some());
        recorder
            .touch(*place, wanted.map(|at| (first + at as u64, missing.next_if_eq(&at).is_some())));
    }

    /// The chunks of pages of the base; `None` is a hole.
    pub(crate) fn base_ids(
        &self,
        layers: &Layers,
        nodes: &NodeCache,
        first: u64,
        count: u64,
        ids: &mut Vec<Option<ChunkId>>,
    ) -> Result<()> {
        layers.base_ids(nodes, first, count, ids).map_err(|error| self.index_error(first, error))
    }

    /// The chunk of a page of the base; `None` for a hole. May wait for the index.
    pub fn base_chunk(&self, page: u64) -> Result<Option<ChunkId>> {
        let mut ids = Vec::with_capacity(1);
        self.base_ids(&self.layers(), &self.nodes, page, 1, &mut ids)?;
        Ok(ids.pop().flatten())
    }

    pub(crate) fn index_error(&self, page: u64, error: manifest::ManifestError) -> VolumeError {
        VolumeError::Index { volume: self.name.clone(), page, error }
    }

    pub(crate) fn fetch_error(&self, page: u64, error: FetchError) -> VolumeError {
        VolumeError::Fetch { volume: self.name.clone(), page, error }
    }
}
