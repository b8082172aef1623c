//! The entries of a segment in a local file: sorted, of fixed width, read a block at a time.
//!
//! ```text
//! blocks of 4096: up to 127 entries of 32 bytes, zeros, XXH3 (8) of all before it at 4088
//! footer:         pack ids (32 each), fences (8 each): the first 8 bytes of each block's first name
//! trailer (40):   magic "cltvlidx", packs u32, reserved u32, entries u64, footer bytes u64,
//!                 XXH3 of footer and trailer before it
//! ```
//!
//! This is a copy of what the store has, so it is never synced, and a file in which anything is
//! wrong is thrown away with all others. It is no exchange format: its name changes with it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use chunk::crypt::{PackId, StoredName};
use xxhash_rust::xxh3::xxh3_64;

use super::segment::Entry;
use crate::RepositoryError;
use crate::wire::{Malformed, Reader};

const BLOCK_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 32;
pub(super) const BLOCK_ENTRIES: usize = (BLOCK_BYTES - 8) / ENTRY_BYTES;
const TRAILER_BYTES: usize = 40;
const MAGIC: &[u8; 8] = b"cltvlidx";
/// The largest footer that is read: that of 2^31 entries.
const FOOTER_BYTES_MAX: u64 = 1 << 28;

/// An open file of entries. The fences (8 bytes for 127 entries) are in memory.
pub(crate) struct EntryFile {
    file: File,
    path: PathBuf,
    fences: Vec<u64>,
    entries: usize,
    /// A state names it. Else nobody but this process knows of it, and it goes with it.
    kept: AtomicBool,
}

impl Drop for EntryFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            // What stays is removed when it is old.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What is wrong with a local file.
fn local(path: &Path, detail: impl ToString) -> RepositoryError {
    RepositoryError::Local { path: path.display().to_string(), detail: detail.to_string() }
}

fn fence(name: &StoredName) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| name[i]))
}

impl EntryFile {
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn blocks(&self) -> usize {
        self.fences.len()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The file is this process's own until it is kept.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<PackId>), RepositoryError> {
        let error = |e: io::Error| local(path, e);
        let file = File::open(path).map_err(error)?;
        let bytes = file.metadata().map_err(error)?.len();
        let mut trailer = [0; TRAILER_BYTES];
        let trailer_at = bytes.checked_sub(TRAILER_BYTES as u64);
        let trailer_at = trailer_at.ok_or_else(|| local(path, "it is cut"))?;
        file.read_exact_at(&mut trailer, trailer_at).map_err(error)?;
        let (packs, entries, footer_bytes, sum) =
            parse_trailer(&trailer).map_err(|e| local(path, e))?;
        // Nothing here is checked yet: numbers as large as these would not fit together anyway.
        if entries > bytes {
            return Err(local(path, "its sizes do not fit together"));
        }
        let blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
        let expected = blocks * BLOCK_BYTES as u64 + footer_bytes + TRAILER_BYTES as u64;
        let footer_expected = u64::from(packs) * 32 + blocks * 8;
        if footer_bytes > FOOTER_BYTES_MAX || footer_bytes != footer_expected || bytes != expected {
            return Err(local(path, "its sizes do not fit together"));
        }
        let mut footer = vec![0; footer_bytes as usize];
        file.read_exact_at(&mut footer, blocks * BLOCK_BYTES as u64).map_err(error)?;
        let (ids, fences) = footer.split_at(packs as usize * 32);
        let ids = ids.chunks_exact(32).map(|id| PackId(std::array::from_fn(|i| id[i]))).collect();
        let fences = fences
            .chunks_exact(8)
            .map(|fence| u64::from_le_bytes(std::array::from_fn(|i| fence[i])))
            .collect();
        footer.extend_from_slice(&trailer[..TRAILER_BYTES - 8]);
        if xxh3_64(&footer) != sum {
            return Err(local(path, "its checksum does not match"));
        }
        let (path, entries) = (path.to_owned(), entries as usize);
        Ok((Self { file, path, fences, entries, kept: AtomicBool::new(false) }, ids))
    }

    /// Reads and checks one block.
    pub(super) fn block(&self, number: usize) -> Result<Vec<Entry>, RepositoryError> {
        let mut block = [0; BLOCK_BYTES];
        let (entries, _) = self.read(number, &mut block)?.as_chunks::<ENTRY_BYTES>();
        Ok(entries.iter().map(|entry| decode(entry)).collect())
    }

    /// The entries with this name in one block, with their numbers in it. The others are not decoded: a
    /// publish looks up every page of its disks.
    pub(super) fn find_in(
        &self,
        number: usize,
        name: &StoredName,
        mut each: impl FnMut(usize, &Entry),
    ) -> Result<(), RepositoryError> {
        let mut block = [0; BLOCK_BYTES];
        let (entries, _) = self.read(number, &mut block)?.as_chunks::<ENTRY_BYTES>();
        let start = entries.partition_point(|entry| entry[..name.len()] < name[..]);
        for (at, entry) in entries.iter().enumerate().skip(start) {
            if entry[..name.len()] != name[..] {
                break;
            }
            each(at, &decode(entry));
        }
        Ok(())
    }

    /// The bytes of a block's entries, checked.
    fn read<'a>(
        &self,
        number: usize,
        block: &'a mut [u8; BLOCK_BYTES],
    ) -> Result<&'a [u8], RepositoryError> {
        let at = number as u64 * BLOCK_BYTES as u64;
        self.file.read_exact_at(block, at).map_err(|e| local(&self.path, e))?;
        let (body, sum) = block.split_at(BLOCK_BYTES - 8);
        if xxh3_64(body).to_le_bytes() != sum {
            return Err(local(&self.path, format!("block {number} is damaged")));
        }
        let count = (self.entries - number * BLOCK_ENTRIES).min(BLOCK_ENTRIES);
        Ok(&body[..count * ENTRY_BYTES])
    }

    /// The blocks that may hold a name.
    pub(super) fn candidates(&self, name: &StoredName) -> std::ops::Range<usize> {
        let key = fence(name);
        let start = self.fences.partition_point(|fence| *fence < key).saturating_sub(1);
        let end = self.fences.partition_point(|fence| *fence <= key);
        start..end.max(start)
    }
}

fn parse_trailer(trailer: &[u8]) -> Result<(u32, u64, u64, u64), Malformed> {
    let mut fields = Reader::new(trailer);
    if fields.take(8)? != MAGIC {
        return Err(Malformed("not an index file"));
    }
    let packs = fields.u32()?;
    fields.take(4)?;
    Ok((packs, fields.u64()?, fields.u64()?, fields.u64()?))
}

fn encode(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..16].copy_from_slice(&entry.name);
    bytes[16..20].copy_from_slice(&entry.pack.to_le_bytes());
    bytes[20..24].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[24..28].copy_from_slice(&entry.bytes.to_le_bytes());
    bytes[28..30].copy_from_slice(&entry.frame.to_le_bytes());
    bytes[30..].copy_from_slice(&entry.slot.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Entry {
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    Entry {
        name: std::array::from_fn(|i| bytes[i]),
        pack: number(16),
        offset: number(20),
        bytes: number(24),
        frame: short(28),
        slot: short(30),
    }
}

/// Writes a file of entries that come in order.
pub(super) struct EntryWriter {
    path: PathBuf,
    out: BufWriter<File>,
    block: Vec<u8>,
    fences: Vec<u8>,
    entries: u64,
}

impl EntryWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 16, File::create_new(path)?);
        let block = Vec::with_capacity(BLOCK_BYTES);
        Ok(Self { path: path.to_owned(), out, block, fences: Vec::new(), entries: 0 })
    }

    pub(super) fn push(&mut self, entry: &Entry) -> io::Result<()> {
        if self.block.is_empty() {
            self.fences.extend_from_slice(&fence(&entry.name).to_le_bytes());
        }
        self.block.extend_from_slice(&encode(entry));
        self.entries += 1;
        if self.block.len() == BLOCK_ENTRIES * ENTRY_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.block.resize(BLOCK_BYTES - 8, 0);
        let sum = xxh3_64(&self.block);
        self.block.extend_from_slice(&sum.to_le_bytes());
        self.out.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self, packs: &[PackId]) -> io::Result<PathBuf> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut tail: Vec<u8> = packs.iter().flat_map(|pack| pack.0).collect();
        tail.extend_from_slice(&self.fences);
        let footer_bytes = tail.len() as u64;
        tail.extend_from_slice(MAGIC);
        tail.extend_from_slice(&(packs.len() as u32).to_le_bytes());
        tail.extend_from_slice(&[0; 4]);
        tail.extend_from_slice(&self.entries.to_le_bytes());
        tail.extend_from_slice(&footer_bytes.to_le_bytes());
        let sum = xxh3_64(&tail);
        tail.extend_from_slice(&sum.to_le_bytes());
        self.out.write_all(&tail)?;
        self.out.flush()?;
        Ok(self.path)
    }
}
