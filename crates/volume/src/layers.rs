//! The layers of a volume at one moment, from the newest to the base.
//!
//! ```text
//! active    written now
//! frozen    newest first; read only, on their way into a new base
//! base      a manifest; its pages are in the host's cache or in the repository
//! ```
//! A page is what the first layer says that says anything; what none says is zero. The layers are
//! immutable: freeze and adopt put new ones in place, whoever holds the old ones reads on.

use std::sync::Arc;

use chunk::ChunkId;
use manifest::{Manifest, ManifestError, NodeCache};

use crate::error::Result;
use crate::overlay::{Overlay, PageState};

/// The layers of a volume at one moment.
#[derive(Clone)]
pub struct Layers {
    /// Takes writes.
    pub active: Arc<Overlay>,
    /// Newest first.
    pub frozen: Vec<Arc<Overlay>>,
    /// Below all overlays.
    pub base: Arc<Manifest>,
}

impl Layers {
    /// All overlays, newest first.
    pub fn overlays(&self) -> impl Iterator<Item = &Arc<Overlay>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// Fills what the overlays hold of the pages from `first` and marks it.
    pub fn read(&self, first: u64, buf: &mut [u8], found: &mut [bool]) -> Result<()> {
        read(self.overlays(), first, buf, found)
    }

    /// The chunks of pages of the base, appended to `ids`; `None` is a hole, and what lies beyond
    /// the base's end.
    pub fn base_ids(
        &self,
        nodes: &NodeCache,
        first: u64,
        count: u64,
        ids: &mut Vec<Option<ChunkId>>,
    ) -> Result<(), ManifestError> {
        let inside = count.min(self.base.pages().saturating_sub(first));
        let before = ids.len();
        self.base.lookup_range(nodes, first, inside, ids)?;
        ids.resize(before + count as usize, None);
        Ok(())
    }

    /// Marks what the overlays hold of the pages from `first`.
    pub fn mark_held(&self, first: u64, held: &mut [bool]) {
        self.overlays().for_each(|overlay| overlay.mark_held(first, held));
    }
}

/// Reads pages from overlays, newest first.
pub fn read<'a>(
    overlays: impl Iterator<Item = &'a Arc<Overlay>>,
    first: u64,
    buf: &mut [u8],
    found: &mut [bool],
) -> Result<()> {
    for overlay in overlays {
        overlay.read(first, buf, found)?;
        if found.iter().all(|&found| found) {
            break;
        }
    }
    Ok(())
}

/// What overlays, newest first, say about a page.
pub fn state<'a>(overlays: impl Iterator<Item = &'a Arc<Overlay>>, page: u64) -> PageState {
    overlays
        .map(|overlay| overlay.state(page))
        .find(|&state| state != PageState::Absent)
        .unwrap_or(PageState::Absent)
}

/// Where the bytes of a page are that overlays, newest first, have: the number that their data file
/// has as a segment of the cache, and the offset.
pub fn locate(overlays: &[Arc<Overlay>], page: u64) -> Option<(u64, u64)> {
    overlays.iter().find_map(|overlay| Some((overlay.segment(), overlay.offset(page)?)))
}
