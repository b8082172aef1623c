//! The bytes of a part: a header, from what to what, and groups.

use chunk::header::{Format, Intent};

use crate::number::{number, read, signed, signed_of};
use crate::open::{Codec, OPENINGS_MAX, Opening, close, open};
use crate::pack;
use crate::{DeltaError, NEW_BYTES_MAX, OLD_BYTES_MAX, PART_BYTES_MAX, RUN_MAX, Result};

/// Groups are packed in steps; else each is one frame with the old bytes as its dictionary.
const STEPS: u64 = 1;
/// Groups say what is compressed in their old and new bytes.
const OPENED: u64 = 2;

const FORMAT: Format = Format {
    name: "delta",
    magic: *b"cltdelta",
    version: 1,
    read_only_compatible: 0,
    incompatible: STEPS | OPENED,
};

/// Chunks that lie one after the other in a part of a version: a disk, or a file like its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which: the disks in the order of its hardware, then kernel, initrd and firmware (those that it has).
    pub source: u16,
    /// The first chunk: of a disk, its page.
    pub first: u64,
    /// How many.
    pub count: u32,
}

/// Chunks of the new version, compressed with chunks of the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Of the old version: what the dictionary is, in this order. Holes are left out.
    pub old: Vec<Run>,
    /// Of the new version: what comes out, in this order.
    pub new: Vec<Run>,
    /// What is compressed in the old bytes, and is opened before they are used.
    pub old_opened: Vec<Opening>,
    /// What was compressed in the new bytes, and is closed again.
    pub new_opened: Vec<Opening>,
    /// What gives the new bytes, with the old ones.
    pub packed: Vec<u8>,
}

/// A part of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The ids of the two versions.
    pub from: [u8; 32],
    pub to: [u8; 32],
    /// How its groups are packed: in steps, or each as one frame, as all were once.
    pub steps: bool,
    pub groups: Vec<Group>,
}

impl Part {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut header = FORMAT.header();
        let is_opened =
            |group: &Group| !group.old_opened.is_empty() || !group.new_opened.is_empty();
        let opened = self.groups.iter().any(is_opened);
        header.incompatible = if self.steps { STEPS } else { 0 } | if opened { OPENED } else { 0 };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&self.from);
        bytes.extend_from_slice(&self.to);
        number(&mut bytes, self.groups.len() as u64);
        for group in &self.groups {
            for runs in [&group.old, &group.new] {
                number(&mut bytes, runs.len() as u64);
                // Most runs begin a little after the one before.
                let mut at = 0;
                for run in runs {
                    number(&mut bytes, u64::from(run.source));
                    let step = (run.first as i64).wrapping_sub(at);
                    number(&mut bytes, signed(step));
                    number(&mut bytes, u64::from(run.count));
                    at = (run.first as i64).wrapping_add(i64::from(run.count));
                }
            }
            for openings in [&group.old_opened, &group.new_opened].into_iter().filter(|_| opened) {
                number(&mut bytes, openings.len() as u64);
                openings.iter().for_each(|opening| put_opening(&mut bytes, opening));
            }
            number(&mut bytes, group.packed.len() as u64);
            bytes.extend_from_slice(&group.packed);
        }
        bytes
    }

    /// Reads the bytes of one.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > PART_BYTES_MAX {
            return Err(DeltaError::Malformed("it is longer than a part may be"));
        }
        let (header, mut rest) = FORMAT.read(bytes, Intent::Read)?;
        let (from, to) = (id(&mut rest)?, id(&mut rest)?);
        let count = read(&mut rest)?;
        let mut groups = Vec::new();
        for _ in 0..count {
            let (old, new) = (runs(&mut rest)?, runs(&mut rest)?);
            let (mut old_opened, mut new_opened) = (Vec::new(), Vec::new());
            if header.incompatible & OPENED != 0 {
                (old_opened, new_opened) = (openings(&mut rest)?, openings(&mut rest)?);
            }
            let length = usize::try_from(read(&mut rest)?).unwrap_or(usize::MAX);
            if length > rest.len() {
                return Err(DeltaError::Malformed("a group is longer than what is left"));
            }
            let (packed, after) = rest.split_at(length);
            rest = after;
            groups.push(Group { old, new, old_opened, new_opened, packed: packed.to_vec() });
        }
        if !rest.is_empty() {
            return Err(DeltaError::Malformed("something follows its groups"));
        }
        Ok(Self { from, to, steps: header.incompatible & STEPS != 0, groups })
    }

    /// The new bytes of a group of it, exactly `bytes`, of the old ones.
    pub fn unpack(&self, group: &Group, old: &[u8], bytes: usize) -> Result<Vec<u8>> {
        if !self.steps {
            return pack::unpack_frame(old, &group.packed, bytes);
        }
        if bytes > NEW_BYTES_MAX || old.len() > OLD_BYTES_MAX {
            return Err(DeltaError::Malformed("a group has more pages than it may"));
        }
        if group.old_opened.is_empty() && group.new_opened.is_empty() {
            return pack::unpack(old, &group.packed, bytes);
        }
        let sum = |of: fn(&Opening) -> u32| -> usize {
            group.new_opened.iter().map(|opening| of(opening) as usize).sum()
        };
        let plain = (bytes + sum(|opening| opening.plain)).checked_sub(sum(|o| o.packed));
        let plain = plain.ok_or(DeltaError::Malformed("more is compressed than there is"))?;
        let opened = pack::unpack(&open(old, &group.old_opened)?, &group.packed, plain)?;
        close(&opened, &group.new_opened, bytes)
    }
}

fn put_opening(bytes: &mut Vec<u8>, opening: &Opening) {
    for value in [opening.skip, opening.packed, opening.plain] {
        number(bytes, u64::from(value));
    }
    let codec = match opening.codec {
        Codec::Lz4 => 0,
    };
    number(bytes, codec);
}

fn openings(rest: &mut &[u8]) -> Result<Vec<Opening>> {
    let wrong = || DeltaError::Malformed("what is compressed is said wrongly");
    let count = read(rest)?;
    if count > OPENINGS_MAX as u64 {
        return Err(wrong());
    }
    let mut openings = Vec::new();
    for _ in 0..count {
        let small = |rest: &mut &[u8]| u32::try_from(read(rest)?).map_err(|_| wrong());
        let (skip, packed, plain) = (small(rest)?, small(rest)?, small(rest)?);
        let codec = match read(rest)? {
            0 => Codec::Lz4,
            _ => return Err(wrong()),
        };
        openings.push(Opening { skip, packed, plain, codec });
    }
    Ok(openings)
}

fn id(rest: &mut &[u8]) -> Result<[u8; 32]> {
    let (id, after) =
        rest.split_first_chunk::<32>().ok_or(DeltaError::Malformed("it ends in an id"))?;
    *rest = after;
    Ok(*id)
}

fn runs(rest: &mut &[u8]) -> Result<Vec<Run>> {
    let count = read(rest)?;
    // Each takes three bytes at least.
    if count > u64::from(RUN_MAX) || count > rest.len() as u64 / 3 {
        return Err(DeltaError::Malformed("more runs than there is room for"));
    }
    let (mut runs, mut at, mut chunks) = (Vec::with_capacity(count as usize), 0_i64, 0_u64);
    for _ in 0..count {
        let source = u16::try_from(read(rest)?)
            .map_err(|_| DeltaError::Malformed("a source has too large a number"))?;
        let step = signed_of(read(rest)?);
        let first = at.checked_add(step).and_then(|first| u64::try_from(first).ok());
        let first = first.ok_or(DeltaError::Malformed("a run begins before its source"))?;
        let count = u32::try_from(read(rest)?).unwrap_or(u32::MAX);
        chunks += u64::from(count);
        if count == 0 || count > RUN_MAX || chunks > u64::from(RUN_MAX) {
            return Err(DeltaError::Malformed("a run of no or too many chunks"));
        }
        at = i64::try_from(first + u64::from(count))
            .map_err(|_| DeltaError::Malformed("a run ends beyond all sources"))?;
        runs.push(Run { source, first, count });
    }
    Ok(runs)
}

const _: () = assert!(NEW_BYTES_MAX / 4096 < RUN_MAX as usize);
