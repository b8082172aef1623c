//! The host's cache of chunks: one directory, shared by all processes of the host.
//!
//! ```text
//! index            hash table: chunk id -> segment, offset, length
//! HEX.chunks       segments: chunks one after the other, appended by one process, or
//!                  the slots of an overlay that was sealed and given to the cache
//! ```
//! A lookup reads the index, then the segment, and believes the bytes only if their BLAKE3 is the
//! id. An insert appends to this process's own segment, then changes one entry of the index. When
//! there is too much, the segment that was not used for longest goes as a whole.
//!
//! Why not a slot per hash: what was fetched or written together lies together, so that it is
//! written and read in long runs, and a sealed overlay becomes part of the cache without its pages
//! being copied.
//!
//! Invariants
//! * No locks between processes: two writers of one entry, a crash between chunk and entry, a
//!   segment that went, a flipped bit, all end in bytes that do not hash to the id: a miss.
//! * Bounded: the index has a fixed size, the segments are at most the size that was asked for and
//!   one unfinished segment of each kind for each process.
//! * It only ever holds what a repository has or an overlay still has. So losing it loses nothing,
//!   and nothing here is ever synced.
//! * It never fails a read: what goes wrong is counted and is a miss.
//!
//! The bytes are described in docs/format/cache.md.

mod index;
mod segments;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use chunk::{ChunkId, Verified, id_of};
use model::PAGE_BYTES;

use index::{Index, Known, Place};
use segments::{Kind, Segments};

/// Chunks larger than this are not kept: they are records, read once.
const CHUNK_BYTES_KEPT_MAX: usize = 64 << 10;

/// Pages that are read on the guess that they lie side by side.
const GUESS_PAGES_MIN: usize = 2;
const GUESS_PAGES_MAX: usize = 256;

/// The host's cache. All methods may be called from many threads and processes.
pub struct Cache {
    index: Index,
    segments: Segments,
    hits: AtomicU64,
    misses: AtomicU64,
    inserts: AtomicU64,
    failures: AtomicU64,
}

/// Counts since this process opened the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Lookups that gave a chunk.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Chunks kept.
    pub inserts: u64,
    /// Reads and writes that the file system refused.
    pub failures: u64,
    /// Most bytes that chunks may take.
    pub bytes_max: u64,
}

impl Cache {
    /// Opens or makes the cache in `dir` with at most about `bytes_max` bytes of chunks.
    ///
    /// When the size differs from the one it was made with, its index starts anew; processes that
    /// have the old one open keep using it.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self {
            index: Index::open(dir, bytes_max / PAGE_BYTES as u64)?,
            segments: Segments::open(dir, bytes_max),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            inserts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Reads pages into their places in `buf`: `wanted` has the index of each page in `buf`,
    /// ascending, and its id. Gives those that are not here; their places hold nothing of use.
    pub fn read_pages(&self, wanted: &[(usize, ChunkId)], buf: &mut [u8]) -> Vec<(usize, ChunkId)> {
        let mut missing = Vec::new();
        let mut start = 0;
        let mut guess = GUESS_PAGES_MIN;
        while start < wanted.len() {
            let (at, id) = wanted[start];
            let Some(place) = self.find(&id, PAGE_BYTES) else {
                missing.push((at, id));
                start += 1;
                continue;
            };
            // Pages that are wanted side by side mostly lie side by side: guess so, in growing
            // steps, and let their hashes tell. A right guess needs no look into the index.
            let run = wanted[start..]
                .iter()
                .zip(at..)
                .take(guess)
                .take_while(|((wanted_at, _), expected)| wanted_at == expected)
                .count();
            let pages = &mut buf[at * PAGE_BYTES..(at + run) * PAGE_BYTES];
            let read = self.segments.read(place.segment, place.offset(), pages);
            self.note_failure(&read);
            let read = pages[..read.unwrap_or(0)].chunks_exact(PAGE_BYTES);
            let good =
                read.zip(&wanted[start..]).take_while(|(page, (_, id))| id_of(page) == *id).count();
            if good == 0 {
                missing.push((at, id));
            }
            guess = if good == run { guess * 2 } else { good };
            guess = guess.clamp(GUESS_PAGES_MIN, GUESS_PAGES_MAX);
            start += good.max(1);
        }
        self.misses.fetch_add(missing.len() as u64, Ordering::Relaxed);
        self.hits.fetch_add((wanted.len() - missing.len()) as u64, Ordering::Relaxed);
        missing
    }

    /// A chunk of any size.
    pub fn read(&self, id: &ChunkId) -> Option<Verified> {
        let chunk =
            self.entry(id).filter(|place| place.len() <= CHUNK_BYTES_KEPT_MAX).and_then(|place| {
                let mut bytes = vec![0; place.len()];
                let read = self.segments.read(place.segment, place.offset(), &mut bytes);
                self.note_failure(&read);
                bytes.truncate(read.unwrap_or(0));
                Verified::check(*id, bytes).ok()
            });
        let counter = if chunk.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        chunk
    }

    /// Whether the chunk seems to be here: its entry and its segment are, its bytes have not been
    /// looked at.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.entry(id).is_some_and(|place| self.segments.has(place.segment))
    }

    /// Keeps chunks that a repository has. That the host has no space only means that they are not
    /// kept.
    pub fn keep(&self, chunks: &[&Verified]) {
        let (pages, others): (Vec<&Verified>, Vec<&Verified>) =
            chunks.iter().partition(|chunk| chunk.len() == PAGE_BYTES);
        for (kind, chunks) in [(Kind::Pages, pages), (Kind::Others, others)] {
            let fits = |chunk: &&Verified| chunk.len() <= CHUNK_BYTES_KEPT_MAX;
            let chunks: Vec<(ChunkId, &[u8])> =
                chunks.into_iter().filter(fits).map(|chunk| (chunk.id(), &chunk[..])).collect();
            self.append(kind, &chunks);
        }
    }

    /// [`Cache::keep`] of one chunk whose id the caller made from the bytes.
    pub(crate) fn insert(&self, id: ChunkId, bytes: &[u8]) {
        if bytes.len() <= CHUNK_BYTES_KEPT_MAX {
            let kind = if bytes.len() == PAGE_BYTES { Kind::Pages } else { Kind::Others };
            self.append(kind, &[(id, bytes)]);
        }
    }

    /// Tells where a page will be once the file that it lies in has been given to the cache as
    /// `segment`; before that, it is a miss. A page that is here already stays where it is.
    pub(crate) fn announce(&self, id: &ChunkId, segment: u64, offset: u64) {
        if let Some(place) = Place::new(segment, offset, PAGE_BYTES) {
            let done =
                self.index.set(id, place, Known::Stays, |segment| self.segments.has(segment));
            self.note_failure(&done);
        }
    }

    /// Takes a file whose pages were announced. `give` moves it to the path that it is given.
    pub(crate) fn take_segment(
        &self,
        segment: u64,
        bytes: u64,
        give: impl FnOnce(&Path) -> io::Result<()>,
    ) {
        let taken = self.segments.take(segment, bytes, give);
        self.note_failure(&taken);
    }

    /// Bytes that can be kept before something has to go that was of use within the last week.
    pub fn room(&self) -> u64 {
        self.segments.room()
    }

    fn append(&self, kind: Kind, chunks: &[(ChunkId, &[u8])]) {
        if chunks.is_empty() {
            return;
        }
        let appended = self.segments.append(kind, chunks).and_then(|places| {
            for ((id, _), place) in chunks.iter().zip(places) {
                self.index.set(id, place, Known::Moves, |segment| self.segments.has(segment))?;
            }
            Ok(())
        });
        self.note_failure(&appended);
        if appended.is_ok() {
            self.inserts.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        }
    }

    fn entry(&self, id: &ChunkId) -> Option<Place> {
        let place = self.index.get(id);
        self.note_failure(&place);
        place.ok().flatten()
    }

    fn find(&self, id: &ChunkId, len: usize) -> Option<Place> {
        self.entry(id).filter(|place| place.len() == len)
    }

    fn note_failure<T>(&self, result: &io::Result<T>) {
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            inserts: self.inserts.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            bytes_max: self.segments.bytes_max(),
        }
    }
}
