//! A session that stores chunks: deduplicate, compress, seal, upload, list.
//!
//! ```text
//! put ──dedupe──> frames ──> compress (one thread a core) ──> seal and pack (one thread)
//!                                                                   │ 16 MiB packs
//!                            finish <── index object <── upload (two threads)
//! ```
//!
//! Every queue is bounded, so a slow store slows `put` down and nothing grows: in flight are at
//! most a few packs and a few frames.
//!
//! Ordering: packs, then the index object that lists them; the ref is the caller's, after
//! [`PackWriter::finish`].
//!
//! Long sessions: packs are listed in the index as the session goes, at the latest after a
//! quarter of the grace age, so that no collector takes them for the leavings of the dead.
//!
//! Cancellation and crash: dropping the writer, or dying, leaves packs that no ref reaches;
//! the collector removes them.

mod pipeline;

use std::collections::HashSet;

use chunk::crypt::{PackId, StoredName};
use chunk::frame::{Effort, FrameBuilder};
use chunk::{CHUNK_BYTES_MAX, ChunkId, ChunkSink, PAGE_BYTES, Put, SinkError};

use crate::pack::PackEntry;
use crate::{Repository, RepositoryError};
use pipeline::Pipeline;

/// Chunks that are packed but not yet listed, at most: the size of an index object, and of the
/// set in which a session knows its own chunks, follow from it.
const UNLISTED_CHUNKS_MAX: usize = 1 << 20;

/// What a session did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Chunks that were put.
    pub chunks: u64,
    /// Chunks that were new.
    pub stored_chunks: u64,
    /// Bytes that were put, before compression.
    pub logical_bytes: u64,
    /// Bytes that the packs took in the store.
    pub stored_bytes: u64,
    /// Bytes of chunks that were there already, before compression.
    pub reused_bytes: u64,
    /// Packs written.
    pub packs: u64,
}

/// A session that stores chunks. Nothing that is put is visible or durable until
/// [`PackWriter::finish`] has returned, and nothing is kept unless a ref names it soon.
pub struct PackWriter {
    repository: Repository,
    pipeline: Option<Pipeline>,
    pages: FrameBuilder,
    others: FrameBuilder,
    /// Pages and what names them are in packs of their own.
    apart: bool,
    /// Chunks of this session that the index does not list yet.
    unlisted: HashSet<StoredName>,
    /// Packs that this session found chunks in, or listed itself.
    relied: HashSet<PackId>,
    /// The log must not be cut between this and listing our packs.
    epoch: u64,
    listed: ambient::Instant,
    stats: StoreStats,
}

impl PackWriter {
    pub(crate) fn new(repository: &Repository, effort: Effort) -> Result<Self, RepositoryError> {
        repository.must_be_writable()?;
        // What others condemned must be known before anything is deduplicated.
        repository.refresh()?;
        let epoch = repository.index().epoch;
        Ok(Self {
            repository: repository.clone(),
            pipeline: None,
            pages: FrameBuilder::new(effort),
            others: FrameBuilder::new(effort),
            apart: effort == Effort::THOROUGH,
            unlisted: HashSet::new(),
            relied: HashSet::new(),
            epoch,
            listed: ambient::now(),
            stats: StoreStats::default(),
        })
    }

    /// Makes everything that was put durable and findable.
    pub fn finish(mut self) -> Result<StoreStats, RepositoryError> {
        self.complete()?;
        self.repository.inner.sessions.finished(std::mem::take(&mut self.relied));
        Ok(self.stats)
    }

    /// [`Self::finish`] for copies of chunks that refs name already. Gives the packs that they are in.
    pub(crate) fn finish_copies(mut self) -> Result<HashSet<PackId>, RepositoryError> {
        self.complete()?;
        Ok(std::mem::take(&mut self.relied))
    }

    fn complete(&mut self) -> Result<(), RepositoryError> {
        for others in [false, true] {
            self.send(others)?;
        }
        let packs = match self.pipeline.take() {
            Some(pipeline) => pipeline.finish()?,
            None => Vec::new(),
        };
        ambient::step("session: uploaded");
        self.list(packs)?;
        ambient::step("session: listed");
        Ok(())
    }

    /// What this session did so far.
    pub fn stats(&self) -> StoreStats {
        self.stats
    }

    /// The bytes that everything put so far takes in packs, whether or not they are uploaded.
    /// Waits until it is compressed.
    pub fn packed_bytes(&mut self) -> Result<u64, RepositoryError> {
        for others in [false, true] {
            self.send(others)?;
        }
        self.pipeline.as_ref().map_or(Ok(0), Pipeline::packed_bytes)
    }

    /// Takes a chunk of `bytes` bytes for put when it is there already; says whether it is.
    pub fn reuse(&mut self, id: &ChunkId, bytes: u64) -> Result<bool, RepositoryError> {
        let name = self.repository.inner.cipher.stored_name(id);
        if !self.unlisted.contains(&name) {
            match self.repository.look_up(|index| index.pack_in_use(&name))? {
                Some(pack) => self.relied.insert(pack),
                None => return Ok(false),
            };
        }
        self.count_reused(bytes);
        Ok(true)
    }

    /// A chunk of `bytes` bytes is there already.
    pub(crate) fn count_reused(&mut self, bytes: u64) {
        self.stats.chunks += 1;
        self.stats.logical_bytes += bytes;
        self.stats.reused_bytes += bytes;
    }

    /// Lists what has been uploaded so far: who dies after this is not alone with it, and the next
    /// session finds it.
    pub fn settle(&mut self) -> Result<(), RepositoryError> {
        let packs = match &mut self.pipeline {
            Some(pipeline) => pipeline.take_uploaded()?,
            None => Vec::new(),
        };
        self.list(packs)
    }

    /// From now on, pages are put together like this.
    pub(crate) fn set_effort(&mut self, effort: Effort) -> Result<(), RepositoryError> {
        if self.pages.effort() != effort {
            self.send(false)?;
            self.pages = FrameBuilder::new(effort);
        }
        Ok(())
    }

    /// Stores a chunk whether or not it is there already.
    pub(crate) fn put_copy(&mut self, id: ChunkId, bytes: &[u8]) -> Result<(), RepositoryError> {
        // Nodes are read by other paths than pages, and at other times.
        let others = bytes.len() != PAGE_BYTES;
        let builder = if others { &self.others } else { &self.pages };
        if !builder.fits(bytes.len()) {
            self.send(others)?;
        }
        let builder = if others { &mut self.others } else { &mut self.pages };
        builder.push(id, bytes);
        if builder.is_full() { self.send(others) } else { Ok(()) }
    }

    fn send(&mut self, others: bool) -> Result<(), RepositoryError> {
        let builder = if others { &mut self.others } else { &mut self.pages };
        if builder.is_empty() {
            return Ok(());
        }
        let pipeline = match &mut self.pipeline {
            Some(pipeline) => pipeline,
            none => none.insert(Pipeline::start(&self.repository, self.apart)?),
        };
        let effort = builder.effort();
        let empty = pipeline.empty_builder().filter(|empty| empty.effort() == effort);
        let empty = empty.unwrap_or_else(|| FrameBuilder::new(effort));
        let full = std::mem::replace(builder, empty);
        pipeline.send(full)?;
        let quarter = self.repository.grace_ms() / 4;
        let silent = ambient::now().duration_since(self.listed).as_millis() as u64 >= quarter;
        if silent || self.unlisted.len() >= UNLISTED_CHUNKS_MAX {
            let packs = pipeline.take_uploaded()?;
            self.list(packs)?;
        }
        Ok(())
    }

    /// Lists packs that are durable, and says that we rely on those we rely on.
    fn list(&mut self, packs: Vec<PackEntry>) -> Result<(), RepositoryError> {
        self.repository.publish_packs(&packs, &self.relied, self.epoch)?;
        self.epoch = self.repository.index().epoch;
        self.listed = ambient::now();
        for pack in packs {
            self.relied.insert(pack.id);
            self.stats.packs += 1;
            self.stats.stored_bytes += pack.bytes;
            for name in pack.frames.iter().flat_map(|frame| &frame.names) {
                self.unlisted.remove(name);
            }
        }
        Ok(())
    }
}

impl ChunkSink for PackWriter {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(SinkError::TooLarge { bytes: bytes.len() });
        }
        self.stats.chunks += 1;
        self.stats.logical_bytes += bytes.len() as u64;
        let name = self.repository.inner.cipher.stored_name(&id);
        if self.unlisted.contains(&name) {
            self.stats.reused_bytes += bytes.len() as u64;
            return Ok(Put::Reused);
        }
        let known = self.repository.look_up(|index| index.pack_in_use(&name));
        let known = known.map_err(RepositoryError::into_sink)?;
        if let Some(pack) = known {
            self.relied.insert(pack);
            self.stats.reused_bytes += bytes.len() as u64;
            return Ok(Put::Reused);
        }
        self.unlisted.insert(name);
        self.stats.stored_chunks += 1;
        self.put_copy(id, bytes).map_err(RepositoryError::into_sink)?;
        Ok(Put::Stored)
    }
}

impl std::fmt::Debug for PackWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackWriter({:?}, {:?})", self.repository, self.stats)
    }
}
