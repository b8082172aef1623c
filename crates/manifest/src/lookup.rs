//! Which chunk a page has.

use chunk::Urgency;
use model::ChunkId;

use crate::cache::{NodeCache, Place};
use crate::shape::{child_span, slot_of};
use crate::{FAN_OUT, Manifest, ManifestError};

impl Manifest {
    /// The chunk of one page; nothing when it is a hole. Reads at most [`Self::depth`] nodes.
    pub fn lookup(&self, nodes: &NodeCache, page: u64) -> Result<Option<ChunkId>, ManifestError> {
        self.check_page(page)?;
        let mut child = self.root();
        for level in (0..self.depth()).rev() {
            let Some(id) = child else { return Ok(None) };
            let start = page - page % (child_span(level) * FAN_OUT as u64);
            let place = Place { level, start, pages: self.pages() };
            child = nodes.node(&id, place, Urgency::Urgent)?.child(slot_of(level, page));
        }
        Ok(child)
    }

    /// The chunks of `count` pages from `first`, appended to `out` in order; each node on the
    /// way is read once. On an error `out` is as it was.
    pub fn lookup_range(
        &self,
        nodes: &NodeCache,
        first: u64,
        count: u64,
        out: &mut Vec<Option<ChunkId>>,
    ) -> Result<(), ManifestError> {
        if count == 0 {
            return Ok(());
        }
        let last = first.saturating_add(count - 1);
        self.check_page(last)?;
        let before = out.len();
        // The range is bounded by what the caller wants to hold, not by the volume.
        out.resize(before + count as usize, None);
        let range = Range { manifest: self, nodes, first, last };
        let found = match self.root() {
            Some(root) => range.fill(&root, self.depth() - 1, 0, &mut out[before..]),
            None => Ok(()),
        };
        if found.is_err() {
            out.truncate(before);
        }
        found
    }

    pub(crate) fn check_page(&self, page: u64) -> Result<(), ManifestError> {
        let pages = self.pages();
        if page < pages { Ok(()) } else { Err(ManifestError::OutOfRange { page, pages }) }
    }
}

struct Range<'a> {
    manifest: &'a Manifest,
    nodes: &'a NodeCache,
    first: u64,
    last: u64,
}

impl Range<'_> {
    fn fill(
        &self,
        id: &ChunkId,
        level: u8,
        start: u64,
        out: &mut [Option<ChunkId>],
    ) -> Result<(), ManifestError> {
        let place = Place { level, start, pages: self.manifest.pages() };
        let node = self.nodes.node(id, place, Urgency::Urgent)?;
        let step = child_span(level);
        let from = self.first.saturating_sub(start) / step;
        let to = ((self.last - start) / step).min(FAN_OUT as u64 - 1);
        for slot in from..=to {
            let Some(child) = node.child(slot as usize) else { continue };
            let child_start = start + slot * step;
            if level == 0 {
                out[(child_start - self.first) as usize] = Some(child);
            } else {
                self.fill(&child, level - 1, child_start, out)?;
            }
        }
        Ok(())
    }
}
