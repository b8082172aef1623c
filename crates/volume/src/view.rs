//! A base alone, to read: no overlay, and nothing on disk but the host's cache.
//!
//! For looking into a checkpoint without running it. What is true of a volume's base is true here:
//! what is not in the cache is fetched, every byte is checked, and a read that cannot be answered
//! is an error that names the page.

use std::sync::Arc;

use chunk::{ChunkId, ChunkSource, FetchError, Urgency};
use manifest::{Manifest, NodeCache};
use model::{ManifestId, PAGE_BYTES};

use crate::error::{Result, VolumeError};
use crate::fetch::{Cancel, Fetcher};
use crate::volume::PAGE;

/// Decoded nodes kept: 4 KiB each.
const NODES_MAX: usize = 1024;
/// Bytes fetched together, at most.
const STEP_BYTES: usize = 1 << 20;

/// A volume's content as a manifest names it.
pub struct View {
    name: String,
    manifest: Manifest,
    nodes: NodeCache,
    fetcher: Arc<Fetcher>,
}

impl View {
    /// Opens what `manifest` names; errors call it `name`.
    pub fn open(name: &str, manifest: ManifestId, fetcher: Arc<Fetcher>) -> Result<Self> {
        let source: Arc<dyn ChunkSource> = fetcher.clone();
        let manifest = Manifest::open(manifest, &fetcher).map_err(|error| VolumeError::Index {
            volume: name.to_owned(),
            page: 0,
            error,
        })?;
        let nodes = NodeCache::new(source, NODES_MAX);
        Ok(Self { name: name.to_owned(), manifest, nodes, fetcher })
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.manifest.size_bytes()
    }

    /// Fills `buf` from `offset`, any alignment.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (len, size_bytes) = (buf.len() as u64, self.size_bytes());
        if offset.checked_add(len).is_none_or(|end| end > size_bytes) {
            let volume = self.name.clone();
            return Err(VolumeError::OutOfRange { volume, offset, len, size_bytes });
        }
        let mut pages = Vec::new();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let skipped = (at % PAGE) as usize;
            let step = (buf.len() - done).min(STEP_BYTES - skipped);
            pages.resize((skipped + step).next_multiple_of(PAGE_BYTES), 0);
            self.read_pages(at / PAGE, &mut pages)?;
            buf[done..done + step].copy_from_slice(&pages[skipped..skipped + step]);
            done += step;
        }
        Ok(())
    }

    /// The chunks of `count` pages from the page `first` on; `None` for a hole and for what lies beyond
    /// the end.
    pub fn ids(&self, first: u64, count: u64) -> Result<Vec<Option<ChunkId>>> {
        let mut ids = Vec::new();
        let inside = count.min(self.manifest.pages().saturating_sub(first));
        self.manifest.lookup_range(&self.nodes, first, inside, &mut ids).map_err(|error| {
            VolumeError::Index { volume: self.name.clone(), page: first, error }
        })?;
        ids.resize(count as usize, None);
        Ok(ids)
    }

    fn read_pages(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        let ids = self.ids(first, (buf.len() / PAGE_BYTES) as u64)?;
        let mut wanted = Vec::with_capacity(ids.len());
        for (at, (page, id)) in buf.chunks_exact_mut(PAGE_BYTES).zip(&ids).enumerate() {
            match id {
                None => page.fill(0),
                Some(id) => wanted.push((at, *id)),
            }
        }
        let missing = self.fetcher.cache().read_pages(&wanted, buf);
        let ids: Vec<ChunkId> = missing.iter().map(|(_, id)| *id).collect();
        let chunks = self.fetcher.get_many(&ids, Urgency::Urgent, &Cancel::default());
        let chunks = chunks.ok_or_else(|| VolumeError::Cancelled { volume: self.name.clone() })?;
        for ((at, id), chunk) in missing.into_iter().zip(chunks) {
            let failed = |error| {
                let page = first + at as u64;
                VolumeError::Fetch { volume: self.name.clone(), page, error }
            };
            let chunk = chunk.map_err(failed)?;
            if chunk.len() != PAGE_BYTES {
                let detail = format!("it has {} bytes and should be a page", chunk.len());
                return Err(failed(FetchError::Damaged { id, detail }));
            }
            buf[at * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&chunk);
        }
        Ok(())
    }
}
