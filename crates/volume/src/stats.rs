//! What a volume counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::overlay::OverlayStats;
use crate::volume::{PAGE, Volume};

/// What a volume counts as it goes; it is there as long as somebody wants to know.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) cache_hits: AtomicU64,
    pub(crate) fetched_pages: AtomicU64,
}

impl Counters {
    /// Bytes of the base's pages that reads found in the host's cache.
    pub fn cached_bytes(&self) -> u64 {
        self.cache_hits.load(Ordering::Relaxed) * PAGE
    }
}

/// What a volume has and did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// The overlay that takes writes.
    pub active: OverlayStats,
    /// All frozen overlays together.
    pub frozen: OverlayStats,
    /// Number of frozen overlays.
    pub frozen_overlays: usize,
    /// Bytes of the base's pages that reads waited for the source to bring.
    pub fetched_bytes: u64,
    /// Pages of the base that reads found in the host's cache.
    pub cache_hits: u64,
}

impl Volume {
    /// What it counts, for who reads that when it is gone.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Counts.
    pub fn stats(&self) -> VolumeStats {
        let layers = self.layers();
        let mut frozen = OverlayStats::default();
        for overlay in &layers.frozen {
            let stats = overlay.stats();
            frozen.data_pages += stats.data_pages;
            frozen.zero_pages += stats.zero_pages;
            frozen.file_bytes += stats.file_bytes;
            frozen.journal_bytes += stats.journal_bytes;
        }
        VolumeStats {
            active: layers.active.stats(),
            frozen,
            frozen_overlays: layers.frozen.len(),
            fetched_bytes: self.counters.fetched_pages.load(Ordering::Relaxed) * PAGE,
            cache_hits: self.counters.cache_hits.load(Ordering::Relaxed),
        }
    }
}
