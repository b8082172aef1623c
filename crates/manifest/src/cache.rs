//! Nodes that were read lately, in bounded memory.
//!
//! Two generations stand in for a list in order of use: what is touched moves to the young one;
//! when that is full it becomes the old one, and what was old is forgotten. Every step is one
//! operation on a map, and a node that was touched within the last half of the bound is kept.
//!
//! # Consistency
//!
//! Nodes never change, so there is nothing to invalidate. Two threads that miss the same node
//! both fetch it: joining requests is the business of the source behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chunk::{ChunkSource, FetchError, Urgency, Verified};
use model::ChunkId;

use crate::ManifestError;
use crate::node::Node;
use crate::shape::children_allowed;

/// A bounded cache of nodes over a source of chunks. Shared by all threads of a volume.
pub struct NodeCache {
    source: Arc<dyn ChunkSource>,
    half: usize,
    generations: Mutex<Generations>,
    fetches: AtomicU64,
}

#[derive(Default)]
struct Generations {
    young: HashMap<ChunkId, Arc<Node>>,
    old: HashMap<ChunkId, Arc<Node>>,
}

/// Where a node was found, which decides what it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its level.
    pub(crate) level: u8,
    /// The first page under it.
    pub(crate) start: u64,
    /// Pages in the volume.
    pub(crate) pages: u64,
}

impl NodeCache {
    /// Keeps at most `nodes_max` nodes, each up to 4.2 KiB; 4096 nodes (17 MiB) are enough for
    /// the hot part of 2 GiB.
    pub fn new(source: Arc<dyn ChunkSource>, nodes_max: usize) -> Self {
        let half = (nodes_max / 2).max(1);
        Self { source, half, generations: Mutex::default(), fetches: AtomicU64::new(0) }
    }

    /// The source behind.
    pub fn source(&self) -> &Arc<dyn ChunkSource> {
        &self.source
    }

    /// How many nodes had to be fetched since it was made.
    pub fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Remembers a node that is at hand anyway; anything that is not a node is ignored.
    pub(crate) fn offer(&self, chunk: &Verified) {
        if let Ok(node) = Node::decode(chunk.clone()) {
            self.insert(chunk.id(), Arc::new(node));
        }
    }

    /// The node `id`, which must be one that belongs to `place`.
    pub(crate) fn node(
        &self,
        id: &ChunkId,
        place: Place,
        urgency: Urgency,
    ) -> Result<Arc<Node>, ManifestError> {
        let invalid = |detail| ManifestError::Invalid { id: *id, detail };
        let node = match self.cached(id) {
            Some(node) => node,
            None => self.fetch(id, urgency)?.map_err(invalid)?,
        };
        if node.level() != place.level {
            return Err(invalid("a node of another level"));
        }
        if node.children_end() > children_allowed(place.level, place.start, place.pages) {
            return Err(invalid("a node with children beyond the end of the volume"));
        }
        Ok(node)
    }

    fn fetch(
        &self,
        id: &ChunkId,
        urgency: Urgency,
    ) -> Result<Result<Arc<Node>, &'static str>, FetchError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let chunks = self.source.fetch(id, urgency)?;
        let chunk = asked_for(id, &chunks)?;
        // Neighbours in a frame are siblings of this node more often than not.
        chunks[1..].iter().for_each(|neighbour| self.offer(neighbour));
        let node = Node::decode(chunk.clone()).map(Arc::new);
        if let Ok(node) = &node {
            self.insert(*id, node.clone());
        }
        Ok(node)
    }

    fn cached(&self, id: &ChunkId) -> Option<Arc<Node>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = generations.young.get(id) {
            return Some(node.clone());
        }
        let node = generations.old.remove(id)?;
        generations.insert(*id, node.clone(), self.half);
        Some(node)
    }

    fn insert(&self, id: ChunkId, node: Arc<Node>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(id, node, self.half);
    }

    /// Nodes that it has now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }
}

impl Generations {
    fn insert(&mut self, id: ChunkId, node: Arc<Node>, half: usize) {
        if self.young.len() >= half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, node);
    }
}

/// The first chunk of a fetch, if the source kept its word.
pub(crate) fn asked_for<'a>(
    id: &ChunkId,
    chunks: &'a [Verified],
) -> Result<&'a Verified, FetchError> {
    let answer = chunks.first().filter(|chunk| chunk.id() == *id);
    answer.ok_or_else(|| FetchError::Damaged {
        id: *id,
        detail: "the source answered with other chunks".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Children;
    use chunk::Memory;

    fn leaf(n: u64) -> Verified {
        let mut children = Children::none();
        children.0[0] = Some(chunk::id_of(&n.to_le_bytes()));
        Verified::of(children.encode(0).unwrap())
    }

    const PLACE: Place = Place { level: 0, start: 0, pages: 1 };

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let memory = Arc::new(Memory::new());
        let leaves: Vec<_> = (0..100).map(leaf).collect();
        for leaf in &leaves {
            memory.insert(leaf.id(), leaf);
        }
        let cache = NodeCache::new(memory.clone(), 10);
        for leaf in &leaves {
            cache.node(&leaf.id(), PLACE, Urgency::Urgent).unwrap();
            cache.node(&leaves[0].id(), PLACE, Urgency::Urgent).unwrap();
            assert!(cache.len() <= 10, "{}", cache.len());
        }
        assert_eq!((cache.fetches(), memory.fetches()), (100, 100));
    }

    #[test]
    fn a_node_must_fit_its_place() {
        let memory = Arc::new(Memory::new());
        let node = leaf(1);
        memory.insert(node.id(), &node);
        memory.insert(chunk::id_of(b"no node"), b"no node");
        let cache = NodeCache::new(memory, 10);
        let fails = |id: ChunkId, place| match cache.node(&id, place, Urgency::Urgent) {
            Err(ManifestError::Invalid { detail, .. }) => detail,
            other => panic!("{other:?}"),
        };
        assert_eq!(fails(node.id(), Place { level: 1, ..PLACE }), "a node of another level");
        assert_eq!(
            fails(node.id(), Place { start: 128, ..PLACE }),
            "a node with children beyond the end of the volume"
        );
        assert_eq!(fails(chunk::id_of(b"no node"), PLACE), "too short to be a node");
    }
}
