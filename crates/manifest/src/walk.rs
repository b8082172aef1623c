//! Every node and page of a manifest.

use chunk::Urgency;
use model::ChunkId;

use crate::cache::{NodeCache, Place};
use crate::shape::child_span;
use crate::{FAN_OUT, Manifest, ManifestError};

/// What a visitor says about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Go on below it.
    Descend,
    /// Everything below it is known already: it is not even read.
    Skip,
}

impl Manifest {
    /// Visits every node and every page that is not a hole, in ascending order, parents before
    /// children. `on_node` gets the id and level of a node before it is read; a visitor that
    /// keeps a set of ids (gc, check) answers [`Visit::Skip`] for what it has seen, so that
    /// subtrees shared by many manifests are read once. `on_page` gets page and chunk.
    ///
    /// The header chunk is not a node: its id is [`Self::id`].
    pub fn walk(
        &self,
        nodes: &NodeCache,
        on_node: &mut dyn FnMut(&ChunkId, u8) -> Visit,
        on_page: &mut dyn FnMut(u64, &ChunkId),
    ) -> Result<(), ManifestError> {
        let Some(root) = self.root() else { return Ok(()) };
        let place = Place { level: self.depth() - 1, start: 0, pages: self.pages() };
        walk(nodes, &root, place, on_node, on_page)
    }
}

fn walk(
    nodes: &NodeCache,
    id: &ChunkId,
    place: Place,
    on_node: &mut dyn FnMut(&ChunkId, u8) -> Visit,
    on_page: &mut dyn FnMut(u64, &ChunkId),
) -> Result<(), ManifestError> {
    if on_node(id, place.level) == Visit::Skip {
        return Ok(());
    }
    let node = nodes.node(id, place, Urgency::Background)?;
    for slot in 0..FAN_OUT {
        let Some(child) = node.child(slot) else { continue };
        let start = place.start + slot as u64 * child_span(place.level);
        match place.level {
            0 => on_page(start, &child),
            level => {
                walk(nodes, &child, Place { level: level - 1, start, ..place }, on_node, on_page)?
            }
        }
    }
    Ok(())
}
