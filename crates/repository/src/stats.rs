//! How much there is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chunk::{ChunkSource, PAGE_BYTES};
use manifest::{Manifest, NodeCache, Visit};
use model::{ChunkId, ManifestId};

use crate::walk::{Place, Visitor, What, walk};
use crate::{Repository, RepositoryError};

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes of the pages of all different volumes' states that refs need, without holes: what
    /// they would take if each were kept whole.
    pub logical_bytes: u64,
    /// Bytes of all objects in the store.
    pub stored_bytes: u64,
    /// Chunks that are stored, needed or not.
    pub chunks: u64,
    /// Objects in the store.
    pub objects: u64,
    /// Packs among them.
    pub packs: u64,
    /// Bytes of packs that are condemned: a collection after the grace age frees them.
    pub condemned_bytes: u64,
}

impl Repository {
    /// How much there is. Reads every node of every manifest once.
    pub fn stats(&self) -> Result<Stats, RepositoryError> {
        self.refresh()?;
        let mut stats = Stats::default();
        for object in self.inner.objects.list("")? {
            stats.objects += 1;
            stats.stored_bytes += object.bytes;
        }
        {
            let index = self.index();
            for info in index.packs.values() {
                stats.packs += 1;
                stats.chunks += u64::from(info.chunks);
                stats.condemned_bytes += if info.condemned_at == 0 { 0 } else { info.bytes };
            }
        }
        let mut manifests = Manifests::default();
        let mut roots = Vec::new();
        for (stored, generations) in self.refs().all()? {
            for (generation, _) in generations {
                let opened = match self.refs().open(&stored, generation) {
                    Err(RepositoryError::Object(objects::ObjectError::NotFound { .. })) => continue,
                    other => other?,
                };
                roots.extend(crate::walk::roots(&opened.name, &opened.value.roots));
            }
        }
        walk(self, roots, &mut manifests)?;
        let source: Arc<dyn ChunkSource> = Arc::new(self.clone());
        let mut counter = Counter { nodes: NodeCache::new(source, 1024), known: HashMap::new() };
        for id in manifests.found {
            stats.logical_bytes += counter.pages(id)? * PAGE_BYTES as u64;
        }
        Ok(stats)
    }
}

/// Finds the manifests, without walking into them.
#[derive(Default)]
struct Manifests {
    seen: HashSet<ChunkId>,
    found: Vec<ManifestId>,
}

impl Visitor for Manifests {
    fn needs(&mut self, _: &Place, what: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let new = self.seen.insert(*id);
        if what == What::Manifest && new {
            self.found.push((*id).into());
        }
        Ok(new && what == What::Record)
    }

    fn unreadable(&mut self, place: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        Err(RepositoryError::damaged("the repository", format!("{place}: {error}")))
    }
}

/// Counts pages, each shared subtree once.
struct Counter {
    nodes: NodeCache,
    known: HashMap<ChunkId, u64>,
}

/// A node that is being walked, and the pages found below it so far.
struct Open {
    id: ChunkId,
    level: u8,
    pages: u64,
}

impl Counter {
    fn pages(&mut self, id: ManifestId) -> Result<u64, RepositoryError> {
        let fail = RepositoryError::of_manifest;
        let manifest = Manifest::open(id, &**self.nodes.source()).map_err(fail)?;
        // The walk goes depth first, so the open nodes are a stack, with the root below all.
        let top = Open { id: id.into(), level: u8::MAX, pages: 0 };
        let state = std::cell::RefCell::new((vec![top], &mut self.known));
        let walked = manifest.walk(
            &self.nodes,
            &mut |id, level| {
                let (open, known) = &mut *state.borrow_mut();
                close(open, known, level);
                if let Some(pages) = known.get(id) {
                    open.last_mut().expect("the root stays").pages += *pages;
                    return Visit::Skip;
                }
                open.push(Open { id: *id, level, pages: 0 });
                Visit::Descend
            },
            &mut |_, _| {
                let (open, _) = &mut *state.borrow_mut();
                open.last_mut().expect("the root stays").pages += 1;
            },
        );
        walked.map_err(fail)?;
        let (mut open, known) = state.into_inner();
        close(&mut open, known, u8::MAX - 1);
        Ok(open[0].pages)
    }
}

/// Ends all nodes at or below a level: what follows is not under them.
fn close(open: &mut Vec<Open>, known: &mut HashMap<ChunkId, u64>, level: u8) {
    while open.last().is_some_and(|node| node.level <= level) {
        let Some(node) = open.pop() else { return };
        known.insert(node.id, node.pages);
        if let Some(parent) = open.last_mut() {
            parent.pages += node.pages;
        }
    }
}
