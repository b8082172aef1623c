//! The journal of an overlay: which pages were flushed, and where their bytes are.
//!
//! ```text
//! 0     512  header: common part, volume id, overlay number, first batch number, checksum
//! 512   512  mark: up to where batches are known to be durable
//! 1024  3072 zero
//! 4096  ...  batches, one after the other
//! ```
//! A batch is written whole, then synced; it counts when its checksum is right. The *mark* is
//! written after that sync and is itself synced only with the next batch: it is never ahead of the
//! truth. So an incomplete batch at the end is the trace of a crash when the mark does not reach
//! it, and is dropped; it is damage when the mark does, or when a valid batch follows it, and then
//! opening fails and says where. The bytes are described in docs/format/overlay.md.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::disk::{Disk, DiskFile};
use crate::error::{Result, VolumeError};
use crate::header::{self, u32_at, u64_at};

const HEADER_BYTES: usize = 512;
const MARK_AT: u64 = 512;
const MARK_BYTES: usize = 32;
/// Where batches start.
pub const BATCHES_AT: u64 = 4096;
const BATCH_MAGIC: [u8; 4] = *b"cltb";
const BATCH_HEADER_BYTES: usize = 32;
/// A batch's body is at most this long; a longer commit becomes several batches.
const BODY_BYTES_MAX: usize = 16 << 20;
/// A journal longer than this is refused (a compacted one holds 2^31 pages in less).
const JOURNAL_BYTES_MAX: u64 = 64 << 30;
/// Checksums in one record, so that a record is small beside a batch.
const RECORD_SLOTS_MAX: usize = 1 << 16;

/// One thing that a batch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Pages that are zero, whatever was before.
    Zero {
        /// First page.
        first: u64,
        /// Number of pages.
        count: u64,
    },
    /// A run of pages that lies in a run of slots.
    Slots {
        /// First page.
        first: u64,
        /// First slot.
        slot: u32,
        /// xxh3 of each page.
        sums: Vec<u64>,
    },
}

impl Record {
    fn encode(&self, body: &mut Vec<u8>) {
        match self {
            Self::Zero { first, count } => {
                body.extend_from_slice(&1u32.to_le_bytes());
                body.extend_from_slice(&0u32.to_le_bytes());
                body.extend_from_slice(&first.to_le_bytes());
                body.extend_from_slice(&count.to_le_bytes());
            }
            Self::Slots { first, slot, sums } => {
                body.extend_from_slice(&2u32.to_le_bytes());
                body.extend_from_slice(&(sums.len() as u32).to_le_bytes());
                body.extend_from_slice(&first.to_le_bytes());
                body.extend_from_slice(&u64::from(*slot).to_le_bytes());
                for sum in sums {
                    body.extend_from_slice(&sum.to_le_bytes());
                }
            }
        }
    }

    /// Reads one record from the start of `body`: it and its length.
    fn decode(body: &[u8]) -> Option<(Self, usize)> {
        if body.len() < 24 {
            return None;
        }
        let (kind, n) = (u32_at(body, 0), u32_at(body, 4) as usize);
        let (first, third) = (u64_at(body, 8), u64_at(body, 16));
        match kind {
            1 => {
                first.checked_add(third)?;
                let (count, record_bytes) = (third, 24);
                Some((Self::Zero { first, count }, record_bytes))
            }
            2 => {
                let slot = u32::try_from(third).ok()?;
                slot.checked_add(u32::try_from(n).ok()?)?;
                first.checked_add(n as u64)?;
                let sums = body.get(24..24 + n.checked_mul(8)?)?;
                let sums = (0..n).map(|i| u64_at(sums, i * 8)).collect();
                Some((Self::Slots { first, slot, sums }, 24 + n * 8))
            }
            _ => None,
        }
    }
}

/// Gathers records, joining what continues the one before.
#[derive(Debug, Default)]
pub struct Records(pub Vec<Record>);

impl Records {
    /// Adds a range of zero pages.
    pub fn zero(&mut self, first: u64, count: u64) {
        self.0.push(Record::Zero { first, count });
    }

    /// Adds a page in a slot.
    pub fn slot(&mut self, page: u64, in_slot: u32, sum: u64) {
        if let Some(Record::Slots { first, slot, sums }) = self.0.last_mut()
            && sums.len() < RECORD_SLOTS_MAX
            && *first + sums.len() as u64 == page
            && u64::from(*slot) + sums.len() as u64 == u64::from(in_slot)
        {
            sums.push(sum);
            return;
        }
        self.0.push(Record::Slots { first: page, slot: in_slot, sums: vec![sum] });
    }
}

/// Who a journal belongs to: written in its header and mixed into every checksum, so that a file
/// of another overlay is never taken for this one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayId {
    /// The volume's random id.
    pub volume: [u8; 16],
    /// The overlay's number within the volume.
    pub number: u64,
}

impl OverlayId {
    fn seed(&self) -> u64 {
        xxh3_64_with_seed(&self.volume, self.number)
    }
}

/// An open journal, positioned after its last valid batch.
pub struct Journal {
    volume: String,
    file_name: String,
    id: OverlayId,
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    end: u64,
    next_batch: u64,
    /// A rename that is not yet known to be durable.
    dir_unsynced: bool,
}

impl Journal {
    /// Creates an empty journal, durable except for its directory entry.
    pub fn create(
        disk: Arc<dyn Disk>,
        volume: &str,
        file_name: &str,
        id: OverlayId,
    ) -> Result<Self> {
        let fail = |error| VolumeError::io(volume, format!("creating {file_name}"), error);
        let file = disk.create(file_name).map_err(fail)?;
        let mut start = vec![0; BATCHES_AT as usize];
        start[..HEADER_BYTES].copy_from_slice(&header_bytes(id, 1));
        file.write_at(&start, 0).map_err(fail)?;
        file.sync().map_err(fail)?;
        Ok(Self {
            volume: volume.to_owned(),
            file_name: file_name.to_owned(),
            id,
            disk,
            file,
            end: BATCHES_AT,
            next_batch: 1,
            dir_unsynced: false,
        })
    }

    /// Opens a journal, gives every record of its valid batches to `each` in order, and cuts off
    /// what a crash left after them.
    pub fn open(
        disk: Arc<dyn Disk>,
        volume: &str,
        file_name: &str,
        id: OverlayId,
        mut each: impl FnMut(Record),
    ) -> Result<Self> {
        let fail = |error| VolumeError::io(volume, format!("reading {file_name}"), error);
        let file = disk.open(file_name).map_err(fail)?;
        let len = file.len().map_err(fail)?;
        let damaged = |offset, detail: &str| VolumeError::DamagedFile {
            volume: volume.to_owned(),
            file: file_name.to_owned(),
            offset,
            detail: detail.to_owned(),
        };
        if len < BATCHES_AT {
            return Err(damaged(len, "it is shorter than its header"));
        }
        if len > JOURNAL_BYTES_MAX {
            return Err(damaged(len, "it is longer than a journal can be"));
        }
        let mut start = vec![0; (MARK_AT as usize) + MARK_BYTES];
        file.read_at(&mut start, 0).map_err(fail)?;
        header::check(&header::JOURNAL, &start, volume, file_name)?;
        let mut next_batch = u64_at(&start, 64);
        if start[..HEADER_BYTES] != header_bytes(id, next_batch) {
            return Err(damaged(0, "its header is damaged or belongs to another overlay"));
        }
        let (marked_end, marked_batch) = read_mark(&start[MARK_AT as usize..], id);

        let mut end = BATCHES_AT;
        while let Some(body) = read_batch(&*file, id, end, len, Some(next_batch)).map_err(fail)? {
            let mut rest = &body[..];
            while !rest.is_empty() {
                let (record, record_bytes) = Record::decode(rest)
                    .ok_or_else(|| damaged(end, "a batch holds a record that means nothing"))?;
                each(record);
                rest = &rest[record_bytes..];
            }
            end += (BATCH_HEADER_BYTES + body.len()) as u64;
            next_batch += 1;
        }
        if marked_end > end || marked_batch >= next_batch {
            return Err(damaged(end, "a batch that was flushed is not what was written"));
        }
        if end < len {
            if later_batch(&*file, id, end, len, next_batch).map_err(fail)? {
                return Err(damaged(
                    end,
                    "a batch is not what was written, and valid ones follow it",
                ));
            }
            file.set_len(end).map_err(fail)?;
        }
        Ok(Self {
            volume: volume.to_owned(),
            file_name: file_name.to_owned(),
            id,
            disk,
            file,
            end,
            next_batch,
            dir_unsynced: false,
        })
    }

    /// Length of the journal, bytes.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Appends records; they are durable when this returns. After an error none, some or all may
    /// be, and appending them again is right.
    pub fn append(&mut self, records: &[Record]) -> Result<()> {
        let fail = |error| {
            let doing = format!("flushing {}", self.file_name);
            VolumeError::io(&self.volume, doing, error)
        };
        let mut records = records.iter().peekable();
        while records.peek().is_some() {
            let body = take_body(&mut records);
            let batch = batch_bytes(self.id, self.next_batch, &body);
            self.file.write_at(&batch, self.end).map_err(fail)?;
            self.file.sync().map_err(fail)?;
            self.end += batch.len() as u64;
            self.next_batch += 1;
            // Advisory: only a later sync makes it durable, and an error here loses nothing.
            let mark = mark_bytes(self.id, self.end, self.next_batch - 1);
            let _ = self.file.write_at(&mark, MARK_AT);
        }
        if self.dir_unsynced {
            self.disk.sync_dir().map_err(fail)?;
            self.dir_unsynced = false;
        }
        Ok(())
    }

    /// Replaces the journal by one that holds only `records`, atomically; durable when this
    /// returns. After an error the old or the new one is in place, and both are right.
    pub fn rewrite(&mut self, records: &[Record]) -> Result<()> {
        let fail = |error| {
            let doing = format!("compacting {}", self.file_name);
            VolumeError::io(&self.volume, doing, error)
        };
        let new_name = format!("{}.new", self.file_name);
        let file = self.disk.create(&new_name).map_err(fail)?;
        let mut start = vec![0; BATCHES_AT as usize];
        start[..HEADER_BYTES].copy_from_slice(&header_bytes(self.id, self.next_batch));
        let (mut end, mut next_batch) = (BATCHES_AT, self.next_batch);
        let mut records = records.iter().peekable();
        while records.peek().is_some() {
            let body = take_body(&mut records);
            let batch = batch_bytes(self.id, next_batch, &body);
            file.write_at(&batch, end).map_err(fail)?;
            end += batch.len() as u64;
            next_batch += 1;
        }
        // The name changes only after the sync, so the mark may already be true here.
        let mark = mark_bytes(self.id, end, next_batch - 1);
        start[MARK_AT as usize..MARK_AT as usize + MARK_BYTES].copy_from_slice(&mark);
        file.write_at(&start, 0).map_err(fail)?;
        file.sync().map_err(fail)?;
        self.disk.rename(&new_name, &self.file_name).map_err(fail)?;
        (self.file, self.end, self.next_batch) = (file, end, next_batch);
        self.dir_unsynced = true;
        self.disk.sync_dir().map_err(fail)?;
        self.dir_unsynced = false;
        Ok(())
    }
}

fn header_bytes(id: OverlayId, first_batch: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    header::write(&header::JOURNAL, &mut bytes);
    bytes[40..56].copy_from_slice(&id.volume);
    bytes[56..64].copy_from_slice(&id.number.to_le_bytes());
    bytes[64..72].copy_from_slice(&first_batch.to_le_bytes());
    let sum = xxh3_64_with_seed(&bytes[..HEADER_BYTES - 8], id.seed());
    bytes[HEADER_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn mark_bytes(id: OverlayId, end: u64, batch: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(b"cltvmark");
    bytes[8..16].copy_from_slice(&end.to_le_bytes());
    bytes[16..24].copy_from_slice(&batch.to_le_bytes());
    let sum = xxh3_64_with_seed(&bytes[..24], id.seed());
    bytes[24..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// End and number of the last batch known to be durable; zeros when there is no valid mark, which
/// is what a torn write of it leaves.
fn read_mark(bytes: &[u8], id: OverlayId) -> (u64, u64) {
    let (end, batch) = (u64_at(bytes, 8), u64_at(bytes, 16));
    if bytes[..MARK_BYTES] == mark_bytes(id, end, batch) { (end, batch) } else { (0, 0) }
}

/// Encodes records until a body is full. Padded to 8 bytes by construction.
fn take_body<'a>(records: &mut std::iter::Peekable<impl Iterator<Item = &'a Record>>) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX - 24 - RECORD_SLOTS_MAX * 8 {
        let Some(record) = records.next() else { break };
        record.encode(&mut body);
    }
    body
}

fn batch_sum(id: OverlayId, batch: u64, body: &[u8]) -> u64 {
    let mut state = xxhash_rust::xxh3::Xxh3::with_seed(id.seed());
    state.update(&batch.to_le_bytes());
    state.update(&(body.len() as u64).to_le_bytes());
    state.update(body);
    state.digest()
}

fn batch_bytes(id: OverlayId, batch: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES + body.len());
    bytes.extend_from_slice(&BATCH_MAGIC);
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&batch.to_le_bytes());
    bytes.extend_from_slice(&batch_sum(id, batch, body).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// The body of the batch at `offset`, if a valid one starts there (and has the number `batch`).
fn read_batch(
    file: &dyn DiskFile,
    id: OverlayId,
    offset: u64,
    len: u64,
    batch: Option<u64>,
) -> std::io::Result<Option<Vec<u8>>> {
    let after_header = offset + BATCH_HEADER_BYTES as u64;
    if after_header > len {
        return Ok(None);
    }
    let mut head = [0; BATCH_HEADER_BYTES];
    file.read_at(&mut head, offset)?;
    let (body_len, number) = (u32_at(&head, 4) as usize, u64_at(&head, 8));
    let plausible = head[..4] == BATCH_MAGIC
        && head[24..] == [0; 8]
        && (24..=BODY_BYTES_MAX).contains(&body_len)
        && after_header + body_len as u64 <= len
        && batch.is_none_or(|batch| batch == number);
    if !plausible {
        return Ok(None);
    }
    let mut body = vec![0; body_len];
    file.read_at(&mut body, after_header)?;
    Ok((batch_sum(id, number, &body) == u64_at(&head, 16)).then_some(body))
}

/// Whether a valid batch with a number of at least `batch` starts after `offset`. Every batch's
/// length is a multiple of 8, so only such offsets count.
fn later_batch(
    file: &dyn DiskFile,
    id: OverlayId,
    offset: u64,
    len: u64,
    batch: u64,
) -> std::io::Result<bool> {
    const WINDOW: usize = 1 << 20;
    let mut window = vec![0; WINDOW];
    let mut at = offset + 8;
    while at + BATCH_HEADER_BYTES as u64 <= len {
        let n = WINDOW.min((len - at) as usize) & !7;
        file.read_at(&mut window[..n], at)?;
        for start in (0..n).step_by(8) {
            if window[start..start + 4] == BATCH_MAGIC
                && start + 16 <= n
                && u64_at(&window, start + 8) >= batch
                && read_batch(file, id, at + start as u64, len, None)?.is_some()
            {
                return Ok(true);
            }
        }
        // Overlap, so that a header across two windows is seen whole.
        at += if n == WINDOW { (n - 16) as u64 } else { n.max(8) as u64 };
    }
    Ok(false)
}
