//! Copying what records and manifests need into another repository: only what it lacks.
//!
//! Every chunk is looked up in the other repository before it is read here, so that what is there
//! already costs no byte on either side. Nothing is skipped because its parent is there: of garbage, a
//! collection may have kept the parent alone. Only of a manifest that a ref of the other repository keeps
//! ([`CopyHints::whole`]) the pages are not looked up, one by one: what a ref keeps is all there, and
//! stays for as long as what any session has found ([`crate::hold`]).
//!
//! Pages that lie near one another are asked for together: across a network a request for each frame
//! would wait most of the time.
//!
//! Crash: what was listed is found by the next try, which goes on from there; the rest is garbage.

use std::collections::{HashMap, HashSet};

use chunk::frame::Effort;
use chunk::{ChunkSink, ChunkSource, PAGE_BYTES, Urgency, Verified};
use model::ChunkId;

use crate::record::Target;
use crate::walk::{Place, Visitor, What, walk};
use crate::write::PackWriter;
use crate::{Repository, RepositoryError};

/// Chunks that came along with one that was asked for, and are kept in case they are next.
const NEIGHBOURS_MAX: usize = 8192;
/// Pages that are gathered before they are asked for: 16 MiB.
const GATHERED_MAX: usize = 4096;
/// So many bytes of new chunks are listed at once: what a crash costs, at most.
const LIST_BYTES: u64 = 64 << 20;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Bytes of those that the other repository had, before compression.
    pub reused_bytes: u64,
    /// Bytes of those that it lacked.
    pub new_bytes: u64,
}

/// What is known of what is copied.
#[derive(Debug, Clone, Default)]
pub struct CopyHints {
    /// Pages of it that will be wanted before the others, in this order: what of them is new lies together,
    /// so that few requests bring it and nothing else, and small; and of the rest, a page that is wanted alone
    /// brings little with it.
    pub first: Vec<ChunkId>,
    /// Manifests of which a ref of the other repository, read just now, keeps everything.
    pub whole: HashSet<ChunkId>,
}

/// Copies everything that `roots` need from `from` into the session `to`. Visible when a ref names
/// it, after the session has finished.
pub fn copy(
    from: &Repository,
    to: &mut PackWriter,
    hints: &CopyHints,
    roots: &[Target],
    progress: &mut dyn FnMut(&Copied),
) -> Result<Copied, RepositoryError> {
    let mut copying = Copying {
        from,
        to,
        whole: &hints.whole,
        in_whole: false,
        seen: HashSet::new(),
        neighbours: HashMap::new(),
        gathered: Vec::new(),
        awaited: HashSet::new(),
        ahead: HashSet::new(),
        copied: Copied::default(),
        listed: 0,
        progress,
    };
    if !hints.first.is_empty() {
        copying.to.set_effort(Effort::FORESEEN)?;
        for id in &hints.first {
            if !copying.to.reuse(id, 0)? && copying.page(id)? {
                copying.ahead.insert(*id);
            }
        }
        copying.take_gathered()?;
        copying.to.set_effort(Effort::SELDOM)?;
    }
    walk(from, crate::walk::roots("what is copied", roots), &mut copying)?;
    copying.take_gathered()?;
    Ok(copying.copied)
}

struct Copying<'a> {
    from: &'a Repository,
    to: &'a mut PackWriter,
    whole: &'a HashSet<ChunkId>,
    /// What is walked now is below one of these.
    in_whole: bool,
    /// Records, manifests and nodes that were walked.
    seen: HashSet<ChunkId>,
    neighbours: HashMap<ChunkId, Verified>,
    /// Pages that the other repository lacks, in the order of the walk, each once.
    gathered: Vec<ChunkId>,
    awaited: HashSet<ChunkId>,
    /// Pages that were brought before the walk, and that it has not come past yet.
    ahead: HashSet<ChunkId>,
    copied: Copied,
    listed: u64,
    progress: &'a mut dyn FnMut(&Copied),
}

impl Copying<'_> {
    fn bytes_of(&mut self, id: &ChunkId) -> Result<Verified, RepositoryError> {
        if let Some(known) = self.neighbours.remove(id) {
            return Ok(known);
        }
        let mut chunks = self.from.fetch(id, Urgency::Background)?.into_iter();
        let wanted = chunks.next().ok_or(chunk::FetchError::Missing { id: *id })?;
        if self.neighbours.len() > NEIGHBOURS_MAX {
            self.neighbours.clear();
        }
        self.neighbours.extend(chunks.map(|chunk| (chunk.id(), chunk)));
        Ok(wanted)
    }

    /// Brings the pages that were gathered, in their order.
    fn take_gathered(&mut self) -> Result<(), RepositoryError> {
        let gathered = std::mem::take(&mut self.gathered);
        let mut awaited = std::mem::take(&mut self.awaited);
        let mut here: HashMap<ChunkId, Verified> = HashMap::new();
        let mut left = gathered.clone();
        let mut together = true;
        while let Some(first) = left.first().copied() {
            let chunks = match together {
                true => self.from.fetch_near(&left, Urgency::Background),
                // With all that is done about damage.
                false => self.from.fetch(&first, Urgency::Background)?,
            };
            let before = left.len();
            here.extend(
                chunks.into_iter().filter(|c| awaited.remove(&c.id())).map(|c| (c.id(), c)),
            );
            left.retain(|id| awaited.contains(id));
            together &= left.len() < before;
        }
        for id in gathered {
            let page = here.remove(&id).ok_or(chunk::FetchError::Missing { id })?;
            self.put(id, &page)?;
        }
        Ok(())
    }

    /// Gathers a page that the other repository lacks; `false` if it was gathered before.
    fn page(&mut self, id: &ChunkId) -> Result<bool, RepositoryError> {
        let is_new = self.awaited.insert(*id);
        if is_new {
            self.gathered.push(*id);
            if self.gathered.len() >= GATHERED_MAX {
                self.take_gathered()?;
            }
        }
        Ok(is_new)
    }

    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.to.put(id, bytes).map_err(crate::record::from_sink)?;
        self.copied.new_bytes += bytes.len() as u64;
        if self.copied.new_bytes - self.listed >= LIST_BYTES {
            self.to.settle()?;
            self.listed = self.copied.new_bytes;
            ambient::step("copy: listed");
        }
        Ok(())
    }
}

impl Visitor for Copying<'_> {
    fn needs(&mut self, _: &Place, what: What, id: &ChunkId) -> Result<bool, RepositoryError> {
        let page = matches!(what, What::Page(_));
        match what {
            What::Manifest => self.in_whole = self.whole.contains(id),
            What::Record | What::Leaf => self.in_whole = false,
            What::Node | What::Page(_) => {}
        }
        // Pages are many, and looked up as cheaply there as here.
        if !page && !self.seen.insert(*id) {
            return Ok(false);
        }
        self.copied.chunks += 1;
        if self.copied.chunks.is_multiple_of(16_384) {
            (self.progress)(&self.copied);
        }
        if page && self.ahead.remove(id) {
            return Ok(true);
        }
        if page && self.in_whole {
            self.to.count_reused(PAGE_BYTES as u64);
            self.copied.reused_bytes += PAGE_BYTES as u64;
            return Ok(true);
        }
        if self.to.reuse(id, if page { PAGE_BYTES as u64 } else { 0 })? {
            self.copied.reused_bytes += if page { PAGE_BYTES as u64 } else { 0 };
            return Ok(true);
        }
        if !page {
            let bytes = self.bytes_of(id)?;
            self.put(*id, &bytes)?;
        } else if !self.page(id)? {
            self.copied.reused_bytes += PAGE_BYTES as u64;
        }
        Ok(true)
    }

    fn unreadable(&mut self, _: &Place, error: RepositoryError) -> Result<(), RepositoryError> {
        Err(error)
    }
}
