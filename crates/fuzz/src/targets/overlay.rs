//! An overlay's files after anything happened to them.
//!
//! The bytes are a journal (as it is, and with right checksums in its header, its mark and every
//! batch) beside a data file; what opens is read: every page that it claims to have is there, with
//! the content that its checksum says, or an error.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::volume::{Disk, DiskFile, Overlay, OverlayId};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::golden;

const ID: OverlayId = OverlayId { volume: [1; 16], number: 3 };
/// Pages beyond it are not asked for.
const PAGES: u64 = 64;

pub fn overlay(bytes: &[u8]) {
    open(bytes);
    open(&with_sums(bytes));
}

fn open(journal: &[u8]) {
    let disk = Arc::new(InMemory::default());
    disk.put("3.journal", journal);
    disk.put("3.data", &[7; 8 * 4096]);
    let Ok(overlay) = Overlay::open(disk, "fuzz", ID) else { return };
    for page in 0..PAGES {
        let (mut buf, mut found) = ([0; 4096], [false]);
        let _ = overlay.state(page);
        let _ = overlay.read(page, &mut buf, &mut found);
    }
    let _ = overlay.next_data(0, 16);
    let _ = overlay.zero_ranges();
    // What opens can be written to and flushed, and opens again.
    if overlay.write(5, &[9; 4096]).is_ok() {
        let _ = overlay.flush();
    }
}

/// The same journal as its owner would have summed it.
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let seed = xxh3_64_with_seed(&ID.volume, ID.number);
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(4096), 0);
    bytes[40..56].copy_from_slice(&ID.volume);
    bytes[56..64].copy_from_slice(&ID.number.to_le_bytes());
    let sum = xxh3_64_with_seed(&bytes[..504], seed);
    bytes[504..512].copy_from_slice(&sum.to_le_bytes());
    let sum = xxh3_64_with_seed(&bytes[512..536], seed);
    bytes[536..544].copy_from_slice(&sum.to_le_bytes());
    let mut at = 4096;
    while let Some(head) = bytes.get(at..at + 32) {
        let length: [u8; 4] = std::array::from_fn(|i| head[4 + i]);
        let length = u32::from_le_bytes(length) as usize;
        let Some(body) = bytes.get(at + 32..).and_then(|rest| rest.get(..length)) else { break };
        let mut state = Xxh3::with_seed(seed);
        state.update(&head[8..16]);
        state.update(&(length as u64).to_le_bytes());
        state.update(body);
        let sum = state.digest();
        bytes[at + 16..at + 24].copy_from_slice(&sum.to_le_bytes());
        at += 32 + length;
    }
    bytes
}

pub fn overlays() -> Vec<Vec<u8>> {
    let golden = golden("volume/tests/golden/journal-v1.bin");
    // One batch: pages 4 to 11 are zero, pages 0 and 1 are in slots 2 and 3.
    let mut batch = golden[..golden.len().min(4096)].to_vec();
    batch[64..72].copy_from_slice(&1_u64.to_le_bytes());
    batch[512..544].fill(0);
    let mut body = Vec::new();
    for number in [1_u64, 4, 8, 2 | 2 << 32, 0, 2, 11, 12] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    batch.extend(b"cltb");
    batch.extend((body.len() as u32).to_le_bytes());
    batch.extend(1_u64.to_le_bytes());
    batch.extend([0; 16]);
    batch.extend(body);
    vec![golden, batch]
}

/// A folder in memory.
#[derive(Default)]
struct InMemory(Mutex<HashMap<String, Arc<InMemoryFile>>>);

struct InMemoryFile(Mutex<Vec<u8>>);

impl InMemory {
    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<InMemoryFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let file = Arc::new(InMemoryFile(Mutex::new(bytes.to_vec())));
        self.files().insert(name.to_owned(), file);
    }
}

impl Disk for InMemory {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.put(name, b"");
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.files().get(name).cloned();
        file.map(|file| file as Arc<dyn DiskFile>).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, name: &str, new_name: &str) -> io::Result<()> {
        let file = self.files().remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.files().insert(new_name.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn give(&self, _name: &str, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::CrossesDevices.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

impl InMemoryFile {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No file here is longer: what would make it so is a disk that is full.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl DiskFile for InMemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(buf.len()).and_then(|end| bytes.get(start..end));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(new.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(io::ErrorKind::StorageFull)? as usize;
        let mut bytes = self.bytes();
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[end - new.len()..end].copy_from_slice(new);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes().resize(len as usize, 0);
        Ok(())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
