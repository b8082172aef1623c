//! What a volume counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::overlay::OverlayStats;
use crate::volume::{PAGE, Volume};

#[derive(Default)]
pub struct Counters {
    pub cache_hits: AtomicU64,
    pub fetched_pages: AtomicU64,
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
