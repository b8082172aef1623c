//! A new manifest from an old one and some changes.
//!
//! One pass over the changes, depth first: a node is made when everything below it is, so
//! children are put before parents, and no more than one node a level is in memory. Only nodes on
//! the way to a change, or on the edge where a smaller size cuts the tree, are read or written.

use std::iter::Peekable;

use chunk::{ChunkSink, Urgency, Verified, zero_page_id};
use model::ChunkId;

use crate::cache::{NodeCache, Place};
use crate::diff::Subtree;
use crate::node::Children;
use crate::shape::{child_span, depth_of, pages_of, slot_of, span};
use crate::{FAN_OUT, Manifest, ManifestError};

/// Changes of pages: the new chunk, or nothing for a hole.
type Changes<'a> = &'a mut dyn Iterator<Item = (u64, Option<ChunkId>)>;

impl Manifest {
    /// The manifest after these changes, which are given in ascending order, each page once.
    /// With a `new_size_bytes` the volume is first cut or extended with zeros; changes beyond it
    /// are refused. The nodes that are new and the header are put into `sink`; the pages
    /// themselves are the caller's to put, before.
    ///
    /// Canonical: only the resulting content decides the id. Nothing is put for a manifest that
    /// cannot be finished except nodes that nothing names.
    pub fn update(
        &self,
        nodes: &NodeCache,
        changes: Changes<'_>,
        new_size_bytes: Option<u64>,
        sink: &mut dyn ChunkSink,
    ) -> Result<Manifest, ManifestError> {
        self.writable()?;
        let size_bytes = new_size_bytes.unwrap_or(self.size_bytes());
        let pages = pages_of(size_bytes)?;
        let depth = depth_of(pages);
        let mut update = Update {
            nodes,
            sink,
            changes: Ascending { changes: changes.peekable(), least: 0, pages },
            pages_before: self.pages(),
            pages,
        };
        let tree = update.cut_to_depth(Subtree::root(self), depth)?;
        let root = update.subtree(depth - 1, 0, tree)?;
        // What is left, if anything, lies beyond the end.
        update.changes.next_before(u64::MAX)?;
        let manifest = Manifest::new(size_bytes, root)?;
        manifest.put_header(update.sink)?;
        Ok(manifest)
    }
}

struct Update<'a, 'c> {
    nodes: &'a NodeCache,
    sink: &'a mut dyn ChunkSink,
    changes: Ascending<'c>,
    pages_before: u64,
    pages: u64,
}

impl Update<'_, '_> {
    /// The part of the old tree that a smaller one keeps: its first child, level by level.
    fn cut_to_depth(
        &self,
        mut tree: Option<Subtree>,
        depth: u8,
    ) -> Result<Option<Subtree>, ManifestError> {
        while let Some(subtree) = tree
            && subtree.level() >= depth
        {
            let level = subtree.level();
            tree = self.load(subtree, level, 0)?.0[0].map(|id| Subtree::new(id, level - 1));
        }
        Ok(tree)
    }

    /// The children of a node of the old tree.
    fn load(&self, subtree: Subtree, level: u8, start: u64) -> Result<Children, ManifestError> {
        let place = Place { level, start, pages: self.pages_before };
        match subtree.id_at(level) {
            Some(id) => Ok(Children::of(&*self.nodes.node(&id, place, Urgency::Background)?)),
            None => Ok(Children::none()),
        }
    }

    /// The new node over the pages from `start`, or nothing when they are all holes.
    fn subtree(
        &mut self,
        level: u8,
        start: u64,
        before: Option<Subtree>,
    ) -> Result<Option<ChunkId>, ManifestError> {
        let end = start.saturating_add(span(level));
        let cut = end > self.pages && self.pages < self.pages_before && before.is_some();
        let changed = self.changes.peek_before(end)?;
        let unchanged = before.map_or(Some(None), |subtree| subtree.id_at(level).map(Some));
        if let (false, false, Some(id)) = (cut, changed, unchanged) {
            return Ok(id);
        }

        let step = child_span(level);
        let mut children = match before {
            Some(subtree) => self.load(subtree, level, start)?,
            None => Children::none(),
        };
        // The child under which a smaller tree continues, when this one is a tower over it.
        let tower = before.filter(|subtree| subtree.level() < level);
        if cut {
            let kept = (self.pages.saturating_sub(start)).div_ceil(step).min(FAN_OUT as u64);
            children.0[kept as usize..].fill(None);
        }
        if level == 0 {
            while let Some((page, id)) = self.changes.next_before(end)? {
                children.0[slot_of(0, page)] = id.filter(|id| id != zero_page_id());
            }
        } else {
            for slot in 0..FAN_OUT {
                let child_start = start + slot as u64 * step;
                let below = match tower {
                    Some(subtree) => (slot == 0).then_some(subtree),
                    None => children.0[slot].map(|id| Subtree::new(id, level - 1)),
                };
                children.0[slot] = self.subtree(level - 1, child_start, below)?;
            }
        }
        let Some(bytes) = children.encode(level) else { return Ok(None) };
        let node = Verified::of(bytes);
        if before.and_then(|subtree| subtree.id_at(level)) != Some(node.id()) {
            self.sink.put(node.id(), &node)?;
            // Its bytes are right whatever becomes of the sink, and it will be read next.
            self.nodes.offer(&node);
        }
        Ok(Some(node.id()))
    }
}

/// Changes whose order and bounds are checked as they are taken.
struct Ascending<'a> {
    changes: Peekable<Changes<'a>>,
    least: u64,
    pages: u64,
}

impl Ascending<'_> {
    /// Whether the next change lies before this page.
    fn peek_before(&mut self, end: u64) -> Result<bool, ManifestError> {
        let Some(&(page, _)) = self.changes.peek() else { return Ok(false) };
        if page < self.least {
            return Err(ManifestError::NotAscending { page });
        }
        if page >= self.pages {
            return Err(ManifestError::OutOfRange { page, pages: self.pages });
        }
        Ok(page < end)
    }

    /// The next change, if it lies before this page.
    fn next_before(&mut self, end: u64) -> Result<Option<(u64, Option<ChunkId>)>, ManifestError> {
        if !self.peek_before(end)? {
            return Ok(None);
        }
        let change = self.changes.next();
        self.least = change.map_or(self.least, |(page, _)| page + 1);
        Ok(change)
    }
}
