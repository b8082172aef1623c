//! From refs to every chunk that they need: records, manifests, nodes, pages.
//!
//! What a subtree needs never changes (ids are hashes), so a visitor that has seen a chunk
//! skips what is below it.

use std::sync::Arc;

use chunk::{ChunkSource, Urgency};
use manifest::{Manifest, NodeCache, Visit};
use model::ChunkId;

use crate::record::{Target, parse_record};
use crate::{Repository, RepositoryError};

/// Nodes that are kept while walking.
const NODES_KEPT: usize = 1024;

/// Where in the repository something was found, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The ref and generation.
    pub(crate) root: Arc<str>,
    /// The record that names it, if it is not the ref itself.
    pub(crate) record: Option<ChunkId>,
    /// Its label in that record.
    pub(crate) label: Arc<str>,
}

impl Place {
    pub(crate) fn root(root: &str) -> Self {
        Self { root: root.into(), record: None, label: "".into() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root)?;
        if let Some(record) = &self.record {
            write!(f, ", record {}", record.short())?;
        }
        if self.label.is_empty() { Ok(()) } else { write!(f, ", {}", self.label) }
    }
}

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Record,
    /// A manifest's header.
    Manifest,
    Node,
    Page(u64),
    /// A chunk that names nothing further.
    Leaf,
}

/// Who is told of every chunk.
pub(crate) trait Visitor {
    /// A chunk is needed. Whether what is below it should be walked as well.
    fn needs(&mut self, place: &Place, what: What, id: &ChunkId) -> Result<bool, RepositoryError>;

    /// Something is not readable, so what is below it is unknown. An error ends the walk. Nobody is
    /// told so of what a store that is away did not give: that ends the walk by itself.
    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError>;
}

/// Walks from targets down.
pub(crate) fn walk(
    repository: &Repository,
    roots: impl IntoIterator<Item = (Place, Target)>,
    visitor: &mut dyn Visitor,
) -> Result<(), RepositoryError> {
    let source: Arc<dyn ChunkSource> = Arc::new(repository.clone());
    walk_through(&source, roots, visitor)
}

/// The same, with everything read through `source`.
pub(crate) fn walk_through(
    source: &Arc<dyn ChunkSource>,
    roots: impl IntoIterator<Item = (Place, Target)>,
    visitor: &mut dyn Visitor,
) -> Result<(), RepositoryError> {
    let nodes = NodeCache::new(source.clone(), NODES_KEPT);
    let mut pending: Vec<(Place, Target)> = roots.into_iter().collect();
    while let Some((place, target)) = pending.pop() {
        match target {
            Target::Chunk(id) => {
                visitor.needs(&place, What::Leaf, &id)?;
            }
            Target::Record(id) => {
                if !visitor.needs(&place, What::Record, &id)? {
                    continue;
                }
                let read = source.fetch(&id, Urgency::Background).map_err(Into::into);
                match read.and_then(|chunks| parse_record(&id, &chunks[0])) {
                    Ok(record) => pending.extend(record.children.into_iter().map(|child| {
                        let label = child.label.into();
                        let root = Arc::clone(&place.root);
                        (Place { root, record: Some(id), label }, child.target)
                    })),
                    Err(error) => unreadable(visitor, &place, error)?,
                }
            }
            Target::Manifest(id) => {
                if visitor.needs(&place, What::Manifest, &id.into())? {
                    walk_manifest(&nodes, &place, id, visitor)?;
                }
            }
        }
    }
    Ok(())
}

fn unreadable(
    visitor: &mut dyn Visitor,
    place: &Place,
    error: RepositoryError,
) -> Result<(), RepositoryError> {
    if error.is_away() { Err(error) } else { visitor.unreadable(place, error) }
}

fn walk_manifest(
    nodes: &NodeCache,
    place: &Place,
    id: model::ManifestId,
    visitor: &mut dyn Visitor,
) -> Result<(), RepositoryError> {
    let manifest = match Manifest::open(id, &**nodes.source()) {
        Ok(manifest) => manifest,
        Err(error) => return unreadable(visitor, place, RepositoryError::of_manifest(error)),
    };
    // Both callbacks need the visitor, and neither can fail by itself.
    let visitor = std::cell::RefCell::new(visitor);
    let failure = std::cell::RefCell::new(None);
    let ask = |what, id: &ChunkId| match visitor.borrow_mut().needs(place, what, id) {
        Ok(descend) => descend && failure.borrow().is_none(),
        Err(error) => {
            failure.borrow_mut().get_or_insert(error);
            false
        }
    };
    let walked = manifest.walk(
        nodes,
        &mut |id, _| if ask(What::Node, id) { Visit::Descend } else { Visit::Skip },
        &mut |page, id| {
            ask(What::Page(page), id);
        },
    );
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    match walked {
        Ok(()) => Ok(()),
        Err(error) => unreadable(visitor.into_inner(), place, RepositoryError::of_manifest(error)),
    }
}
