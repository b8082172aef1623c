//! Fetching ahead of a sequential reader. Only a hint: errors are not told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifest::NodeCache;

use crate::fetch::Fetcher;
use crate::layers::Layers;
use crate::volume::{PAGE, Volume};

/// Follows the reader.
pub struct Readahead {
    window_bytes: u64,
    /// Where it began to read in sequence.
    began: AtomicU64,
    /// Where the last read ended.
    expected: AtomicU64,
    /// Up to where was asked for already.
    asked: AtomicU64,
}

impl Readahead {
    pub fn new(window_bytes: u64) -> Self {
        Self {
            window_bytes,
            began: AtomicU64::new(0),
            expected: AtomicU64::new(u64::MAX),
            asked: AtomicU64::new(0),
        }
    }

    /// The range to ask for now, as `(offset, end)`, after a read of `offset..end`: as much as was
    /// read in sequence so far, and a window at most. Who reads two pages of a small file waits behind
    /// no more than two that nobody wants.
    fn next(&self, offset: u64, end: u64, size_bytes: u64) -> Option<(u64, u64)> {
        if self.window_bytes == 0 {
            return None;
        }
        let sequential = self.expected.swap(end, Ordering::Relaxed) == offset;
        if !sequential {
            self.began.store(offset, Ordering::Relaxed);
            self.asked.store(end, Ordering::Relaxed);
            return None;
        }
        let read = end.saturating_sub(self.began.load(Ordering::Relaxed));
        let window_bytes = self.window_bytes.min(read);
        // Half a window ahead is enough to wait with the next one.
        let asked = self.asked.load(Ordering::Relaxed).max(end);
        if asked - end > window_bytes / 2 {
            return None;
        }
        let until = (end + window_bytes).min(size_bytes);
        self.asked.store(until, Ordering::Relaxed);
        (until > asked).then_some((asked, until))
    }
}

impl Volume {
    /// Asks for what a sequential reader will want next. Returns at once: even the index may have
    /// to be fetched first, so that is done in the background too.
    pub(crate) fn read_ahead(&self, offset: u64, len: u64) {
        let next = self.readahead.next(offset, offset + len, self.size_bytes);
        let Some((from, until)) = next else { return };
        let (first, count) = (from / PAGE, (until - from).div_ceil(PAGE));
        // Weak: what waits in the queue of a fetcher must not keep it.
        let (nodes, fetcher) = (Arc::downgrade(&self.nodes), Arc::downgrade(&self.fetcher));
        let layers = self.layers();
        self.fetcher.spawn(move || {
            if let (Some(nodes), Some(fetcher)) = (nodes.upgrade(), fetcher.upgrade()) {
                prefetch(&layers, &nodes, &fetcher, first, count);
            }
        });
    }
}

fn prefetch(layers: &Layers, nodes: &NodeCache, fetcher: &Fetcher, first: u64, count: u64) {
    let mut held = vec![false; count as usize];
    layers.mark_held(first, &mut held);
    if held.iter().all(|&held| held) {
        return;
    }
    let mut ids = Vec::new();
    if layers.base_ids(nodes, first, count, &mut ids).is_ok() {
        let missing = std::iter::zip(held, ids).filter(|(held, _)| !held);
        fetcher.prefetch(missing.filter_map(|(_, id)| id));
    }
}
