//! From refs to every chunk that they need: records, manifests, nodes, pages.
//!
//! What a subtree needs never changes (ids are hashes), so a visitor that has seen a chunk
//! skips what is below it. What a ref says to be *gone* ([`Target::Gone`]) is the exception: of such a record,
//! where that ref's roots lead to it, only itself is needed, and what its `parent` leads to; where another ref
//! leads to it, all of it. So one walk has to have the roots of all refs that count, and the records that are
//! gone are shown to the visitor at its end, as leaves, if nothing led to all of them. What a ref names itself
//! is not gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chunk::{ChunkSource, Urgency};
use manifest::{Manifest, NodeCache, Visit};
use model::ChunkId;

use crate::record::{PARENT, Target, parse_record};
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
    /// What the ref says to be gone.
    gone: Arc<BTreeSet<ChunkId>>,
}

/// The roots of a ref, for a walk.
pub(crate) fn roots(root: &str, targets: &[Target]) -> Vec<(Place, Target)> {
    let is_gone = |target: &&Target| matches!(target, Target::Gone(_));
    let gone = targets.iter().filter(is_gone).map(Target::chunk).collect();
    let place = Place { root: root.into(), record: None, label: "".into(), gone: Arc::new(gone) };
    let named = targets.iter().filter(|target| !is_gone(target));
    named.map(|target| (place.clone(), *target)).collect()
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

/// Walks from the roots of refs down, one root after the other.
pub(crate) fn walk(
    repository: &Repository,
    roots: impl IntoIterator<Item = (Place, Target)>,
    visitor: &mut dyn Visitor,
) -> Result<(), RepositoryError> {
    let source: Arc<dyn ChunkSource> = Arc::new(repository.clone());
    walk_through(&source, roots, visitor)
}

/// The records that a walk has seen.
#[derive(Default)]
struct Seen {
    /// Each set of what is gone has a number.
    sets: BTreeMap<Arc<BTreeSet<ChunkId>>, u32>,
    /// What was gone on from, under which of them, and whether as a whole.
    done: HashSet<(u32, ChunkId, bool)>,
    /// Whether the visitor wanted to know what is below.
    answers: HashMap<ChunkId, bool>,
    gone: HashMap<ChunkId, Place>,
}

impl Seen {
    fn is_new(&mut self, place: &Place, id: ChunkId, whole: bool) -> bool {
        let next = self.sets.len() as u32;
        let set = *self.sets.entry(place.gone.clone()).or_insert(next);
        self.done.insert((set, id, whole))
    }
}

/// The same, with everything read through `source`.
pub(crate) fn walk_through(
    source: &Arc<dyn ChunkSource>,
    roots: impl IntoIterator<Item = (Place, Target)>,
    visitor: &mut dyn Visitor,
) -> Result<(), RepositoryError> {
    let nodes = NodeCache::new(source.clone(), NODES_KEPT);
    let (mut roots, mut pending) = (roots.into_iter(), Vec::new());
    let mut seen = Seen::default();
    while let Some((place, target)) = pending.pop().or_else(|| roots.next()) {
        let place: Place = place;
        match target {
            // Taken out with the roots.
            Target::Gone(_) => {}
            Target::Chunk(id) => {
                visitor.needs(&place, What::Leaf, &id)?;
            }
            Target::Record(id) => {
                let whole = place.record.is_none() || !place.gone.contains(&id);
                if !seen.is_new(&place, id, whole) {
                    continue;
                }
                let first = whole && !seen.answers.contains_key(&id);
                if first {
                    let descend = visitor.needs(&place, What::Record, &id)?;
                    seen.answers.insert(id, descend);
                }
                if whole && !seen.answers[&id] {
                    continue;
                }
                let read = source.fetch(&id, Urgency::Background).map_err(Into::into);
                let record = match read.and_then(|chunks| parse_record(&id, &chunks[0])) {
                    Ok(record) => record,
                    Err(error) => {
                        unreadable(visitor, &place, error)?;
                        continue;
                    }
                };
                for child in record.children {
                    // Under another set of what is gone a record leads elsewhere; all else is done.
                    let leads = match whole {
                        true => first || matches!(child.target, Target::Record(_)),
                        false => child.label == PARENT,
                    };
                    if leads {
                        let label = child.label.into();
                        let place = Place { record: Some(id), label, ..place.clone() };
                        pending.push((place, child.target));
                    }
                }
                if !whole {
                    seen.gone.insert(id, place);
                }
            }
            Target::Manifest(id) => {
                if visitor.needs(&place, What::Manifest, &id.into())? {
                    walk_manifest(&nodes, &place, id, visitor)?;
                }
            }
        }
    }
    for (id, place) in seen.gone {
        if !seen.answers.contains_key(&id) {
            visitor.needs(&place, What::Leaf, &id)?;
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
