//! What can be answered without the network.

use std::sync::Arc;

use chunk::{ChunkId, ChunkSource, FetchError, Urgency, Verified};
use model::PAGE_BYTES;

use crate::cache::Cache;
use crate::error::Result;
use crate::volume::{PAGE, Volume};

/// A source that knows only what the host's cache has.
pub struct CacheOnly(pub Arc<Cache>);

impl ChunkSource for CacheOnly {
    fn fetch(&self, id: &ChunkId, _: Urgency) -> Result<Vec<Verified>, FetchError> {
        match self.0.read(id) {
            Some(chunk) => Ok(vec![chunk]),
            None => Err(FetchError::Unavailable { detail: "it is not on this host".to_owned() }),
        }
    }
}

impl Volume {
    /// Whether reading this range needs nothing from the repository. A range that reaches beyond
    /// the end is not local.
    ///
    /// Pages of the base are judged by the cache's tags: when a cached page turns out damaged, or
    /// is evicted in between, the read fetches after all.
    pub fn is_local(&self, offset: u64, len: u64) -> bool {
        if self.check_range(offset, len).is_err() {
            return false;
        }
        let first = offset / PAGE;
        let count = (offset + len).div_ceil(PAGE) - first;
        let layers = self.layers();
        let cache = self.fetcher.cache();
        let mut ids = Vec::new();
        // In pieces, so that a question about a whole disk costs no memory.
        (first..first + count).step_by(WINDOW_PAGES).all(|window| {
            let count = (first + count - window).min(WINDOW_PAGES as u64);
            let mut held = vec![false; count as usize];
            layers.mark_held(window, &mut held);
            if held.iter().all(|&held| held) {
                return true;
            }
            ids.clear();
            let known = self.base_ids(&layers, &self.local_nodes, window, count, &mut ids);
            known.is_ok()
                && std::iter::zip(&held, &ids)
                    .all(|(&held, id)| held || id.is_none_or(|id| cache.has(&id)))
        })
    }

    /// Reads like [`Volume::read_at`] when that needs nothing from the repository; else `false`, and
    /// `buf` holds nothing of use.
    pub fn try_read_local(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let is_local = self.read_local(offset, buf, true)?;
        if is_local {
            self.read_ahead(offset, buf.len() as u64);
        }
        Ok(is_local)
    }

    /// The same for somebody who is not the guest: nothing is recorded, and nothing read ahead.
    pub fn peek_local(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        self.read_local(offset, buf, false)
    }

    fn read_local(&self, offset: u64, buf: &mut [u8], is_touched: bool) -> Result<bool> {
        self.check_range(offset, buf.len() as u64)?;
        let first = offset / PAGE;
        let end = (offset + buf.len() as u64).div_ceil(PAGE);
        let whole = buf.len() as u64 == (end - first) * PAGE;
        let mut pages = if whole { Vec::new() } else { vec![0; ((end - first) * PAGE) as usize] };
        let target = if whole { &mut *buf } else { &mut pages[..] };
        let layers = self.layers();
        let mut found = vec![false; (end - first) as usize];
        layers.read(first, target, &mut found)?;
        if !found.iter().all(|&found| found)
            && !self.read_cached_base(&layers, first, target, &found, is_touched)
        {
            return Ok(false);
        }
        if !whole {
            buf.copy_from_slice(&pages[(offset % PAGE) as usize..][..buf.len()]);
        }
        Ok(true)
    }
}

/// Pages looked at together.
const WINDOW_PAGES: usize = (16 << 20) / PAGE_BYTES;
