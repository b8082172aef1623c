//! The host's cache of chunks: one directory, shared by all processes of the host.
//!
//! Two files of the same make, one for pages (4 KiB) and one for manifest nodes (up to 8 KiB):
//!
//! ```text
//! 0                4096        header: kind, size of a slot, number of rows, checksum
//! 4096             512 * rows  tags: a row of 16 chunk ids; zero is empty
//! next page         ...        slots: 16 for each row
//! ```
//! A chunk's id chooses its row; it may lie in any of the row's 16 slots. A lookup reads the row,
//! then the slot, and believes it only if its BLAKE3 is the id. An insert writes the slot, then
//! the tag.
//!
//! Invariants
//! * No locks: two writers of one slot, a crash between slot and tag, a flipped bit, all end in
//!   bytes that do not hash to the id, which is a miss.
//! * Bounded: the files are sparse and never grow beyond the size they were made with.
//! * It only ever holds what the repository has; whoever inserts vouches for that. So losing it
//!   loses nothing, and nothing here is ever synced.
//! * It never fails a read: what goes wrong is counted and is a miss.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use chunk::{ChunkId, Verified, id_of};
use model::PAGE_BYTES;
use xxhash_rust::xxh3::xxh3_64;

use crate::header::{self, u32_at, u64_at};

const WAYS: u64 = 16;
const ID_BYTES: u64 = ChunkId::BYTES as u64;
const ROW_BYTES: usize = (WAYS * ID_BYTES) as usize;
const TAGS_AT: u64 = 4096;
/// Room for a node of 128 ids with its length before it.
const NODE_SLOT_BYTES: u32 = 8192;
/// The part of the cache that nodes get: a node describes 128 pages.
const NODES_PART: u64 = 32;

/// The host's cache. All methods may be called from many threads and processes.
pub struct Cache {
    pages: Store,
    nodes: Store,
    hits: AtomicU64,
    misses: AtomicU64,
    inserts: AtomicU64,
    failures: AtomicU64,
    cursor: AtomicU64,
}

/// Counts since this process opened the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Lookups that gave a chunk.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Chunks written.
    pub inserts: u64,
    /// Reads and writes that the file system refused.
    pub failures: u64,
    /// Most bytes that pages can take.
    pub bytes_max: u64,
}

impl Cache {
    /// Opens or makes the cache in `dir` with about `bytes_max` bytes of chunks.
    ///
    /// A cache of another size or kind that is there is replaced by an empty one; processes that
    /// have it open keep using what they have.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let for_nodes = bytes_max / NODES_PART;
        Ok(Self {
            pages: Store::open(dir, "pages", PAGE_BYTES as u32, bytes_max - for_nodes)?,
            nodes: Store::open(dir, "nodes", NODE_SLOT_BYTES, for_nodes)?,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            inserts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            cursor: AtomicU64::new(u64::from_le_bytes(ambient::random())),
        })
    }

    /// Reads the page `id` into `page` (4 KiB); `false` when it is not here, and then `page` holds
    /// nothing of use.
    pub fn read_page(&self, id: &ChunkId, page: &mut [u8]) -> bool {
        let hit = self.try_read_page(id, page);
        self.count(&hit);
        hit.unwrap_or(false)
    }

    fn try_read_page(&self, id: &ChunkId, page: &mut [u8]) -> io::Result<bool> {
        let Some(slot) = self.pages.find(id)? else { return Ok(false) };
        self.pages.file.read_exact_at(page, slot)?;
        Ok(id_of(page) == *id)
    }

    /// A chunk of any size.
    pub fn read(&self, id: &ChunkId) -> Option<Verified> {
        let mut page = vec![0; PAGE_BYTES];
        let hit = self.try_read_node(id).and_then(|node| match node {
            Some(node) => Ok(Some(node)),
            None => Ok(self.try_read_page(id, &mut page)?.then_some(page)),
        });
        let chunk = hit.map(|bytes| bytes.and_then(|bytes| Verified::check(*id, bytes).ok()));
        self.count(&chunk.as_ref().map(Option::is_some));
        chunk.ok().flatten()
    }

    fn try_read_node(&self, id: &ChunkId) -> io::Result<Option<Vec<u8>>> {
        let Some(slot) = self.nodes.find(id)? else { return Ok(None) };
        let mut len = [0; 4];
        self.nodes.file.read_exact_at(&mut len, slot)?;
        let len = u32::from_le_bytes(len);
        if len > NODE_SLOT_BYTES - 4 {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        self.nodes.file.read_exact_at(&mut bytes, slot + 4)?;
        Ok(Some(bytes))
    }

    /// Whether the chunk seems to be here: its tag is, its bytes have not been looked at.
    pub fn has(&self, id: &ChunkId) -> bool {
        [&self.pages, &self.nodes].iter().any(|store| matches!(store.find(id), Ok(Some(_))))
    }

    /// Keeps a chunk that the repository has. A chunk that is too large for a slot, or a host that
    /// has no space, only means that it is not kept.
    pub fn insert(&self, id: &ChunkId, bytes: &[u8]) {
        let kept = if bytes.len() == PAGE_BYTES {
            self.pages.insert(id, bytes, self.victim())
        } else if bytes.len() <= (NODE_SLOT_BYTES - 4) as usize {
            let mut slot = (bytes.len() as u32).to_le_bytes().to_vec();
            slot.extend_from_slice(bytes);
            self.nodes.insert(id, &slot, self.victim())
        } else {
            return;
        };
        let counter = if kept.is_ok() { &self.inserts } else { &self.failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// [`Cache::insert`] of a chunk that carries its proof.
    pub fn keep(&self, chunk: &Verified) {
        self.insert(&chunk.id(), chunk);
    }

    /// Which of a full row goes: any of them, in turn. (Keeping order of use would mean a write
    /// for every read.)
    fn victim(&self) -> u64 {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }

    fn count<E>(&self, hit: &Result<bool, E>) {
        let counter = match hit {
            Ok(true) => &self.hits,
            Ok(false) => &self.misses,
            Err(_) => &self.failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            inserts: self.inserts.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            bytes_max: self.pages.rows * WAYS * PAGE_BYTES as u64,
        }
    }
}

/// One file.
struct Store {
    file: File,
    rows: u64,
    slot_bytes: u64,
}

impl Store {
    fn open(dir: &Path, name: &str, slot_bytes: u32, bytes_max: u64) -> io::Result<Self> {
        let rows = (bytes_max / (WAYS * u64::from(slot_bytes))).max(1);
        let header = header_bytes(slot_bytes, rows);
        let slot_bytes = u64::from(slot_bytes);
        let path = dir.join(name);
        let as_store = |file| Self { file, rows, slot_bytes };
        if let Ok(file) = File::options().read(true).write(true).open(&path) {
            let mut found = vec![0; header.len()];
            if file.read_exact_at(&mut found, 0).is_ok() && is_same(&found, &header) {
                return Ok(as_store(file));
            }
        }
        // Made under a name of its own and then renamed: nobody sees half a header.
        let suffix = u64::from_le_bytes(ambient::random());
        let new_path = dir.join(format!("{name}.new-{suffix:016x}"));
        let made = || {
            let file = File::options().read(true).write(true).create_new(true).open(&new_path)?;
            file.set_len(slots_at(rows) + rows * WAYS * slot_bytes)?;
            file.write_all_at(&header, 0)?;
            std::fs::rename(&new_path, &path)?;
            Ok(as_store(file))
        };
        made().inspect_err(|_| {
            let _ = std::fs::remove_file(&new_path);
        })
    }

    /// The row of an id: ids are uniform, so any of their bits will do.
    fn row(&self, id: &ChunkId) -> u64 {
        u64_at(id.as_bytes(), 0) % self.rows
    }

    fn slot(&self, row: u64, way: u64) -> u64 {
        slots_at(self.rows) + (row * WAYS + way) * self.slot_bytes
    }

    fn tags(&self, row: u64) -> io::Result<[u8; ROW_BYTES]> {
        let mut tags = [0; ROW_BYTES];
        self.file.read_exact_at(&mut tags, TAGS_AT + row * ROW_BYTES as u64)?;
        Ok(tags)
    }

    /// Where the slot is whose tag says `id`.
    fn find(&self, id: &ChunkId) -> io::Result<Option<u64>> {
        let row = self.row(id);
        let way = way_of(&self.tags(row)?, id.as_bytes());
        Ok(way.map(|way| self.slot(row, way)))
    }

    fn insert(&self, id: &ChunkId, bytes: &[u8], victim: u64) -> io::Result<()> {
        let row = self.row(id);
        let tags = self.tags(row)?;
        // A tag that is there already has bytes that were not believed: replace them.
        let way = way_of(&tags, id.as_bytes())
            .or_else(|| way_of(&tags, &[0; ChunkId::BYTES]))
            .unwrap_or(victim % WAYS);
        self.file.write_all_at(bytes, self.slot(row, way))?;
        let tag = TAGS_AT + row * ROW_BYTES as u64 + way * ID_BYTES;
        self.file.write_all_at(id.as_bytes(), tag)
    }
}

/// Where slots start: on a page boundary, so that a page never straddles two of the kernel's.
fn slots_at(rows: u64) -> u64 {
    (TAGS_AT + rows * ROW_BYTES as u64).next_multiple_of(PAGE_BYTES as u64)
}

fn way_of(tags: &[u8; ROW_BYTES], id: &[u8; ChunkId::BYTES]) -> Option<u64> {
    tags.chunks_exact(ChunkId::BYTES).position(|tag| tag == id).map(|way| way as u64)
}

fn header_bytes(slot_bytes: u32, rows: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    header::write(&header::CACHE, &mut bytes);
    bytes[40..44].copy_from_slice(&slot_bytes.to_le_bytes());
    bytes[44..48].copy_from_slice(&(WAYS as u32).to_le_bytes());
    bytes[48..56].copy_from_slice(&rows.to_le_bytes());
    let sum = xxh3_64(&bytes[..56]);
    bytes[56..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Whether a file with the header `found` may be used as one that we would make with `wanted`.
fn is_same(found: &[u8], wanted: &[u8]) -> bool {
    header::check(&header::CACHE, found, "", "").is_ok()
        && u64_at(found, 56) == xxh3_64(&found[..56])
        && u32_at(found, 40) == u32_at(wanted, 40)
        && found[44..56] == wanted[44..56]
}
