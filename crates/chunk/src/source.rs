//! Where chunks come from and where they go.
//!
//! Repositories, caches, peers and test doubles all stand behind these two traits, so decorators
//! (cache, retry, limit, fault) compose. Both are blocking: whoever has an async store brings its
//! own runtime.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ChunkId;

use crate::Verified;

/// How soon a chunk is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Urgency {
    /// A guest is waiting for it.
    Urgent,
    /// Scrubbing, prefetching, checking: whatever is urgent goes first.
    Background,
}

/// Where verified chunks come from.
pub trait ChunkSource: Send + Sync {
    /// Fetches one chunk. The first element is the one asked for; after it there may be
    /// neighbours that came along for free (they were in the same frame). Never empty.
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError>;

    /// Where a chunk lies, as far as is known here and now: a hint, so that what comes together
    /// is not asked for twice, and what lies near is asked for at once. Cheap: never asks the
    /// network.
    fn place(&self, _id: &ChunkId) -> Option<Place> {
        None
    }

    /// A number that chunks have in common which one fetch brings together.
    fn together(&self, id: &ChunkId) -> Option<u64> {
        self.place(id).map(|place| place.object.wrapping_add(place.offset))
    }

    /// Fetches what a single request can bring of chunks that lie near one another
    /// ([`Self::place`]), and whatever comes along. There is no error: what does not come is to be
    /// asked for alone.
    fn fetch_near(&self, _ids: &[ChunkId], _urgency: Urgency) -> Vec<Verified> {
        Vec::new()
    }
}

/// Where a source keeps what one fetch brings (a frame).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A number that tells one object from another.
    pub object: u64,
    /// The first byte in it.
    pub offset: u64,
    /// How many.
    pub bytes: u32,
}

/// Where chunks go. What was put is neither visible nor durable until the implementor's own
/// finish step has returned.
pub trait ChunkSink {
    /// Takes one chunk. `id` is `id_of(bytes)`: the caller has already hashed them.
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError>;
}

/// What became of a chunk that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there before, and takes space now.
    Stored,
    /// It was there already.
    Reused,
}

/// Why a chunk could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The source does not have it: trying again will not help, another source may.
    #[error("chunk {} is not there", id.short())]
    Missing {
        /// The chunk that was asked for.
        id: ChunkId,
    },
    /// What the source has is not this chunk: another source or copy may be whole.
    #[error("chunk {} is damaged: {detail}", id.short())]
    Damaged {
        /// The chunk that was asked for.
        id: ChunkId,
        /// Which object, where in it, and how it showed.
        detail: String,
    },
    /// The source did not answer: try again later.
    #[error("chunks cannot be fetched now: {detail}")]
    Unavailable {
        /// What was tried and what came back.
        detail: String,
    },
}

/// Why a chunk could not be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The store is full.
    #[error("no space for more chunks: {detail}")]
    NoSpace {
        /// Which store, and what it said.
        detail: String,
    },
    /// The store may not be written by us.
    #[error("chunks cannot be stored: {detail}")]
    Denied {
        /// Which store, and what it said.
        detail: String,
    },
    /// The store did not answer: try again later.
    #[error("chunks cannot be stored now: {detail}")]
    Unavailable {
        /// What was tried and what came back.
        detail: String,
    },
    /// The chunk is larger than [`crate::CHUNK_BYTES_MAX`].
    #[error("a chunk of {bytes} bytes is too large")]
    TooLarge {
        /// Its size, bytes.
        bytes: usize,
    },
}

/// Chunks in memory: a source and a sink at once. For tests and for small sets of chunks that
/// are put together before they are written. What is put is visible at once.
#[derive(Debug, Default)]
pub struct Memory {
    chunks: Mutex<HashMap<ChunkId, Arc<[u8]>>>,
    fetches: AtomicU64,
}

impl Memory {
    /// Without any chunk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many fetches were asked for since it was made.
    pub fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// How many different chunks it has.
    pub fn len(&self) -> usize {
        self.chunks().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has this one.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.chunks().contains_key(id)
    }

    /// The ids of all its chunks, sorted.
    pub fn ids(&self) -> Vec<ChunkId> {
        let mut ids: Vec<_> = self.chunks().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Forgets a chunk; says whether it was there.
    pub fn remove(&self, id: &ChunkId) -> bool {
        self.chunks().remove(id).is_some()
    }

    /// Puts bytes under an id without believing that they match: for tests of damage.
    pub fn plant(&self, id: ChunkId, bytes: impl Into<Arc<[u8]>>) {
        self.chunks().insert(id, bytes.into());
    }

    /// As [`ChunkSink::put`], through a shared reference.
    pub fn insert(&self, id: ChunkId, bytes: &[u8]) -> Put {
        match self.chunks().entry(id) {
            std::collections::hash_map::Entry::Occupied(_) => Put::Reused,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(bytes.into());
                Put::Stored
            }
        }
    }

    fn chunks(&self) -> MutexGuard<'_, HashMap<ChunkId, Arc<[u8]>>> {
        // Each critical section is one call of the map: a panic elsewhere leaves it whole.
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkSource for Memory {
    fn fetch(&self, id: &ChunkId, _urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let bytes = self.chunks().get(id).cloned().ok_or(FetchError::Missing { id: *id })?;
        Verified::check(*id, bytes)
            .map(|chunk| vec![chunk])
            .map_err(|mismatch| FetchError::Damaged { id: *id, detail: mismatch.to_string() })
    }
}

impl ChunkSink for &Memory {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        if bytes.len() > crate::CHUNK_BYTES_MAX {
            return Err(SinkError::TooLarge { bytes: bytes.len() });
        }
        Ok(self.insert(id, bytes))
    }
}

impl ChunkSink for Memory {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        (&*self).put(id, bytes)
    }
}

impl ChunkSink for Arc<Memory> {
    fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<Put, SinkError> {
        (&**self).put(id, bytes)
    }
}

impl<S: ChunkSource + ?Sized> ChunkSource for Arc<S> {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        (**self).fetch(id, urgency)
    }

    fn place(&self, id: &ChunkId) -> Option<Place> {
        (**self).place(id)
    }

    fn together(&self, id: &ChunkId) -> Option<u64> {
        (**self).together(id)
    }

    fn fetch_near(&self, ids: &[ChunkId], urgency: Urgency) -> Vec<Verified> {
        (**self).fetch_near(ids, urgency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id_of;

    #[test]
    fn memory_gives_back_what_was_put() {
        let mut memory = Memory::new();
        let id = id_of(b"x");
        assert_eq!(memory.fetch(&id, Urgency::Urgent).unwrap_err(), FetchError::Missing { id });
        assert_eq!(memory.put(id, b"x"), Ok(Put::Stored));
        assert_eq!(memory.put(id, b"x"), Ok(Put::Reused));
        assert_eq!(&*memory.fetch(&id, Urgency::Background).unwrap()[0], b"x");
        assert_eq!((memory.fetches(), memory.len()), (2, 1));
    }

    #[test]
    fn memory_verifies_too() {
        let memory = Memory::new();
        let id = id_of(b"x");
        memory.plant(id, b"y".as_slice());
        let error = memory.fetch(&id, Urgency::Urgent).unwrap_err();
        assert!(matches!(error, FetchError::Damaged { .. }), "{error}");
    }

    #[test]
    fn oversized_chunks_are_refused() {
        let bytes = vec![1; crate::CHUNK_BYTES_MAX + 1];
        let error = Memory::new().put(id_of(&bytes), &bytes).unwrap_err();
        assert_eq!(error, SinkError::TooLarge { bytes: bytes.len() });
    }
}
