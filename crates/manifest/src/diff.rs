//! What differs between two manifests, without reading what is equal.

use chunk::Urgency;
use model::ChunkId;

use crate::cache::{NodeCache, Place};
use crate::shape::child_span;
use crate::{FAN_OUT, Manifest, ManifestError};

impl Manifest {
    /// Calls `on_page` for every page whose chunk differs, ascending, with the chunk in `a` and
    /// in `b`; nothing stands for a hole and for what is beyond the end. Subtrees that are equal
    /// are not read: two manifests that differ in one page cost at most two nodes a level.
    pub fn diff(
        a: &Manifest,
        b: &Manifest,
        nodes: &NodeCache,
        on_page: &mut dyn FnMut(u64, Option<ChunkId>, Option<ChunkId>),
    ) -> Result<(), ManifestError> {
        let level = a.depth().max(b.depth()) - 1;
        let pages = [a.pages(), b.pages()];
        Diff { nodes, pages, on_page }.subtrees(level, 0, [Subtree::root(a), Subtree::root(b)])
    }
}

/// A node in its place; possibly one of a smaller tree, in which case it stands for the tower of
/// nodes with one child each that would lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subtree {
    id: ChunkId,
    level: u8,
}

impl Subtree {
    pub(crate) fn root(manifest: &Manifest) -> Option<Self> {
        manifest.root().map(|id| Self { id, level: manifest.depth() - 1 })
    }

    pub(crate) fn new(id: ChunkId, level: u8) -> Self {
        Self { id, level }
    }

    pub(crate) fn level(self) -> u8 {
        self.level
    }

    /// The id, when the node itself has this level.
    pub(crate) fn id_at(self, level: u8) -> Option<ChunkId> {
        (self.level == level).then_some(self.id)
    }
}

struct Diff<'a> {
    nodes: &'a NodeCache,
    pages: [u64; 2],
    on_page: &'a mut dyn FnMut(u64, Option<ChunkId>, Option<ChunkId>),
}

impl Diff<'_> {
    fn subtrees(
        &mut self,
        level: u8,
        start: u64,
        pair: [Option<Subtree>; 2],
    ) -> Result<(), ManifestError> {
        if pair[0] == pair[1] {
            return Ok(());
        }
        let mut loaded = [None, None];
        for side in 0..2 {
            if let Some(id) = pair[side].and_then(|subtree| subtree.id_at(level)) {
                let place = Place { level, start, pages: self.pages[side] };
                loaded[side] = Some(self.nodes.node(&id, place, Urgency::Background)?);
            }
        }
        for slot in 0..FAN_OUT {
            let child_start = start + slot as u64 * child_span(level);
            let child = |side: usize| match &loaded[side] {
                Some(node) => node.child(slot),
                None => None,
            };
            if level == 0 {
                let [a, b] = [child(0), child(1)];
                if a != b {
                    (self.on_page)(child_start, a, b);
                }
                continue;
            }
            let below = |side: usize| match pair[side] {
                // The tower: what is below its first child is the smaller tree itself.
                Some(subtree) if subtree.level < level => (slot == 0).then_some(subtree),
                _ => child(side).map(|id| Subtree { id, level: level - 1 }),
            };
            self.subtrees(level - 1, child_start, [below(0), below(1)])?;
        }
        Ok(())
    }
}
