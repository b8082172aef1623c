//! The index of the cache: a hash table in a file of fixed size, changed one entry at a time.
//!
//! ```text
//! 0     4096   header
//! 4096  2048*  rows: 42 entries of 48 bytes, and 32 bytes of nothing
//! ```
//! An id chooses its row and may be anywhere in it. There is twice the room that full segments
//! need, so that a row overflows about once in 100,000.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use model::ChunkId;
use xxhash_rust::xxh3::xxh3_64;

use crate::header::{self, u32_at, u64_at};
use crate::lock::lock;

const HEADER_BYTES: usize = 4096;
const ROW_BYTES: usize = 2048;
const ENTRY_BYTES: usize = 48;
const ENTRIES: usize = ROW_BYTES / ENTRY_BYTES;
/// Offsets are counted in units of this many bytes, so that 32 GiB of a segment can be named.
pub const UNIT: u64 = 8;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    units: u32,
    len: u32,
}

impl Place {
    /// `None` when the offset cannot be named.
    pub fn new(segment: u64, offset: u64, len: usize) -> Option<Self> {
        let units = u32::try_from(offset / UNIT).ok().filter(|_| offset.is_multiple_of(UNIT))?;
        Some(Self { segment, units, len: u32::try_from(len).ok()? })
    }

    /// The first byte within the segment.
    pub fn offset(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// Length, bytes; anything may have been read, so check it before trusting it.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    fn encode(&self, id: &ChunkId) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..32].copy_from_slice(id.as_bytes());
        entry[32..40].copy_from_slice(&self.segment.to_le_bytes());
        entry[40..44].copy_from_slice(&self.units.to_le_bytes());
        entry[44..].copy_from_slice(&self.len.to_le_bytes());
        entry
    }

    fn decode(entry: &[u8]) -> Self {
        Self { segment: u64_at(entry, 32), units: u32_at(entry, 40), len: u32_at(entry, 44) }
    }
}

/// What becomes of the entry that a chunk has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It leads to the new place.
    Moves,
    /// It stays as it is, if its segment is there, or is the one that the new place is in.
    Stays,
}

/// The open index.
pub struct Index {
    file: File,
    rows: u64,
    /// One of these is held while a row is changed, so that at least the threads of this process
    /// do not choose the same free entry.
    changing: [Mutex<()>; 64],
}

impl Index {
    /// Opens or makes the index for `chunks` chunks.
    pub fn open(dir: &Path, chunks: u64) -> io::Result<Self> {
        let rows = (chunks * 2 / ENTRIES as u64).max(1);
        let header = header_bytes(rows);
        let path = dir.join("index");
        let existing = || -> io::Result<Option<File>> {
            let file = File::options().read(true).write(true).open(&path)?;
            let mut found = [0; 64];
            let fits = file.read_exact_at(&mut found, 0).is_ok() && is_same(&found, &header);
            Ok(fits.then_some(file))
        };
        let is_other = match existing() {
            Ok(Some(file)) => return Ok(Self::new(file, rows)),
            found => found.is_ok(),
        };
        // Made under a name of its own: nobody sees half a header.
        let new_path = dir.join(format!("index.new-{:016x}", random()));
        let make = || {
            let file = File::options().read(true).write(true).create_new(true).open(&new_path)?;
            file.set_len(HEADER_BYTES as u64 + rows * ROW_BYTES as u64)?;
            file.write_all_at(&header, 0)?;
            if is_other || std::fs::hard_link(&new_path, &path).is_err() {
                // Another process was first: then there shall be one index, not two.
                if !is_other && let Ok(Some(theirs)) = existing() {
                    return Ok(theirs);
                }
                std::fs::rename(&new_path, &path)?;
            }
            Ok(file)
        };
        let made = make();
        let _ = std::fs::remove_file(&new_path);
        made.map(|file| Self::new(file, rows))
    }

    fn new(file: File, rows: u64) -> Self {
        Self { file, rows, changing: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Where the chunk lies, if its entry is to be believed.
    pub fn get(&self, id: &ChunkId) -> io::Result<Option<Place>> {
        let row = self.row(id)?;
        Ok(entries(&row).find(|entry| &entry[..32] == id.as_bytes()).map(Place::decode))
    }

    /// Sets where the chunk lies. In a full row, an entry goes whose segment is gone, else any.
    pub fn set(
        &self,
        id: &ChunkId,
        place: Place,
        known: Known,
        is_there: impl Fn(u64) -> bool,
    ) -> io::Result<()> {
        let row_at = self.row_at(id);
        let stripe = row_at / ROW_BYTES as u64 % self.changing.len() as u64;
        let _changing = lock(&self.changing[stripe as usize]);
        let row = self.row(id)?;
        let position = |wanted: &[u8]| entries(&row).position(|entry| &entry[..32] == wanted);
        let own = position(id.as_bytes());
        if known == Known::Stays
            && let Some(entry) = own.and_then(|own| entries(&row).nth(own))
            && let segment = Place::decode(entry).segment
            && (segment == place.segment || is_there(segment))
        {
            return Ok(());
        }
        let at = own
            .or_else(|| position(&[0; 32]))
            .or_else(|| entries(&row).position(|entry| !is_there(Place::decode(entry).segment)))
            .unwrap_or_else(|| (random() % ENTRIES as u64) as usize);
        let offset = row_at + (at * ENTRY_BYTES) as u64;
        self.file.write_all_at(&place.encode(id), offset)
    }

    /// Ids are uniform, so any of their bits will do.
    fn row_at(&self, id: &ChunkId) -> u64 {
        let row = u64_at(id.as_bytes(), 0) % self.rows;
        HEADER_BYTES as u64 + row * ROW_BYTES as u64
    }

    fn row(&self, id: &ChunkId) -> io::Result<[u8; ROW_BYTES]> {
        let mut row = [0; ROW_BYTES];
        self.file.read_exact_at(&mut row, self.row_at(id))?;
        Ok(row)
    }
}

fn entries(row: &[u8; ROW_BYTES]) -> impl Iterator<Item = &[u8]> {
    row.chunks_exact(ENTRY_BYTES)
}

pub fn random() -> u64 {
    u64::from_le_bytes(ambient::random())
}

/// Header, size of a row, size of an entry, number of rows, sum.
fn header_bytes(rows: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    header::write(&header::CACHE, &mut bytes);
    bytes[40..44].copy_from_slice(&(ROW_BYTES as u32).to_le_bytes());
    bytes[44..48].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
    bytes[48..56].copy_from_slice(&rows.to_le_bytes());
    let sum = xxh3_64(&bytes[..56]);
    bytes[56..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Whether a file that starts with `found` may be used as one that we would make.
fn is_same(found: &[u8; 64], wanted: &[u8; 64]) -> bool {
    header::check(&header::CACHE, found, "", "").is_ok()
        && u64_at(found, 56) == xxh3_64(&found[..56])
        && found[40..56] == wanted[40..56]
}
