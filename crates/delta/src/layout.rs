//! Where everything lies in a new version: on which pages it has what the old one has, and which its groups
//! give. With it whoever has all of these makes the new version's manifests, and fetches no names.

use chunk::header::{Format, Intent};

use crate::number::{number, read, signed, signed_of};
use crate::pack::{bounded, compress, decompress};
use crate::{DeltaError, PART_BYTES_MAX, RUN_MAX, Result};

const FORMAT: Format = Format {
    name: "layout of a delta",
    magic: *b"cltlayou",
    version: 1,
    read_only_compatible: 0,
    incompatible: 0,
};
/// Bytes of a layout before compression, at most.
const BYTES_MAX: usize = 16 << 20;
/// Stretches of all disks, records, and bytes of a record, at most.
const STRETCHES_MAX: usize = 1 << 20;
const RECORDS_MAX: usize = 16;
const RECORD_BYTES_MAX: usize = 1 << 20;
const DISKS_MAX: usize = 256;

/// What lies on a stretch of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Zeros.
    Hole,
    /// What groups give there.
    New,
    /// The pages of the old version from this one on.
    Old { source: u16, first: u64 },
    /// What groups give elsewhere in the new version, from this page on.
    Again { source: u16, first: u64 },
}

/// So many pages, from the end of the stretch before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub what: What,
    pub count: u32,
}

/// A disk of the new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    /// Its place in the version's hardware.
    pub source: u16,
    pub stretches: Vec<Stretch>,
}

/// The disks of the new version that a delta speaks of, and the records that name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The ids of the two versions.
    pub from: [u8; 32],
    pub to: [u8; 32],
    /// Chunks as they are.
    pub records: Vec<Vec<u8>>,
    pub disks: Vec<DiskLayout>,
}

impl Layout {
    /// Its bytes. An error where it has more of anything than may be read.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let stretches = self.disks.iter().map(|disk| disk.stretches.len()).sum();
        bounded("stretches", stretches, STRETCHES_MAX)?;
        bounded("disks", self.disks.len(), DISKS_MAX)?;
        bounded("records", self.records.len(), RECORDS_MAX)?;
        let record = self.records.iter().map(Vec::len).max().unwrap_or(0);
        bounded("bytes of a record", record, RECORD_BYTES_MAX)?;
        let mut body = Vec::new();
        number(&mut body, self.records.len() as u64);
        for record in &self.records {
            number(&mut body, record.len() as u64);
            body.extend_from_slice(record);
        }
        number(&mut body, self.disks.len() as u64);
        for disk in &self.disks {
            number(&mut body, u64::from(disk.source));
            number(&mut body, disk.stretches.len() as u64);
            // Most stretches go on where the last one of their kind ended.
            let mut at = [0_i64; 2];
            for Stretch { what, count } in &disk.stretches {
                let count = u64::from(*count);
                let (kind, place) = match what {
                    What::Hole => (0, None),
                    What::New => (1, None),
                    What::Old { source, first } => (2, Some((source, first))),
                    What::Again { source, first } => (3, Some((source, first))),
                };
                number(&mut body, count << 2 | kind);
                if let Some((source, first)) = place {
                    let at = &mut at[kind as usize - 2];
                    number(&mut body, u64::from(*source));
                    number(&mut body, signed((*first as i64).wrapping_sub(*at)));
                    *at = (*first as i64).wrapping_add(count as i64);
                }
            }
        }
        bounded("bytes before compression", body.len(), BYTES_MAX)?;
        let mut bytes = FORMAT.header().encode().to_vec();
        bytes.extend_from_slice(&self.from);
        bytes.extend_from_slice(&self.to);
        number(&mut bytes, body.len() as u64);
        bytes.extend(compress(&body)?);
        bounded("bytes of a layout", bytes.len(), PART_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Reads the bytes of one.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > PART_BYTES_MAX {
            return Err(DeltaError::Malformed("it is longer than a layout may be"));
        }
        let (_, rest) = FORMAT.read(bytes, Intent::Read)?;
        let ends = DeltaError::Malformed("it ends in an id");
        let (from, rest) = rest.split_first_chunk::<32>().ok_or(ends.clone())?;
        let (to, mut rest) = rest.split_first_chunk::<32>().ok_or(ends)?;
        let length = at_most(read(&mut rest)?, BYTES_MAX)?;
        let body = decompress(&[], rest, length)?;
        let mut rest = &body[..];
        let mut records = Vec::new();
        for _ in 0..at_most(read(&mut rest)?, RECORDS_MAX)? {
            let length = at_most(read(&mut rest)?, RECORD_BYTES_MAX)?;
            let cut = rest.split_at_checked(length);
            let (record, after) = cut.ok_or(DeltaError::Malformed("it ends in a record"))?;
            records.push(record.to_vec());
            rest = after;
        }
        let (mut disks, mut left) = (Vec::new(), STRETCHES_MAX);
        for _ in 0..at_most(read(&mut rest)?, DISKS_MAX)? {
            let source = source(&mut rest)?;
            let count = at_most(read(&mut rest)?, left.min(rest.len()))?;
            left -= count;
            disks.push(DiskLayout { source, stretches: stretches(&mut rest, count)? });
        }
        if !rest.is_empty() {
            return Err(DeltaError::Malformed("something follows its disks"));
        }
        Ok(Self { from: *from, to: *to, records, disks })
    }
}

fn stretches(rest: &mut &[u8], count: usize) -> Result<Vec<Stretch>> {
    let (mut stretches, mut at) = (Vec::with_capacity(count), [0_i64; 2]);
    for _ in 0..count {
        let head = read(rest)?;
        let count = u32::try_from(head >> 2).ok().filter(|count| (1..=RUN_MAX).contains(count));
        let count = count.ok_or(DeltaError::Malformed("a stretch of no or too many pages"))?;
        let mut place = |at: &mut i64| -> Result<(u16, u64)> {
            let source = source(rest)?;
            let first = at.checked_add(signed_of(read(rest)?)).filter(|first| *first >= 0);
            let first = first.ok_or(DeltaError::Malformed("a stretch begins before its disk"))?;
            *at = first
                .checked_add(i64::from(count))
                .ok_or(DeltaError::Malformed("a stretch ends beyond all disks"))?;
            Ok((source, first as u64))
        };
        let what = match head & 3 {
            0 => What::Hole,
            1 => What::New,
            2 => place(&mut at[0]).map(|(source, first)| What::Old { source, first })?,
            _ => place(&mut at[1]).map(|(source, first)| What::Again { source, first })?,
        };
        stretches.push(Stretch { what, count });
    }
    Ok(stretches)
}

fn source(rest: &mut &[u8]) -> Result<u16> {
    u16::try_from(read(rest)?).map_err(|_| DeltaError::Malformed("a source has too large a number"))
}

fn at_most(count: u64, most: usize) -> Result<usize> {
    let count = usize::try_from(count).ok().filter(|count| *count <= most);
    count.ok_or(DeltaError::Malformed("more of something than there may be"))
}
