//! Opening what is compressed in new and old bytes, so that it can be compared: kernels and initial RAM disks are
//! one compressed stream each, in which one changed byte changes all that follow.
//!
//! Known is lz4, as `lz4 -l -9` makes it: compressing a block again gives the same bytes. Who packs tries whether it
//! does; for who unpacks the chunks' ids say it.

use crate::{DeltaError, PLAIN_BYTES_MAX, Result};

/// Before a compressed stream there may be a program that unpacks it, of at most so many bytes.
const BEFORE_MAX: usize = 256 << 10;
/// Streams in one file, at most.
pub(crate) const OPENINGS_MAX: usize = 64;
const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEVEL: i32 = 9;

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Lz4,
}

/// A stream that is compressed, among other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Bytes from the end of the one before it.
    pub skip: u32,
    /// Bytes that it takes.
    pub packed: u32,
    /// Bytes that come out.
    pub plain: u32,
    pub codec: Codec,
}

/// The streams in a file that can be opened and closed again; each is tried.
pub fn find(bytes: &[u8]) -> Vec<Opening> {
    let head = &bytes[..bytes.len().min(BEFORE_MAX)];
    let magic = head.windows(LZ4_MAGIC.len()).position(|window| window == LZ4_MAGIC);
    magic.map_or(Vec::new(), |at| blocks(bytes, at))
}

fn blocks(bytes: &[u8], magic: usize) -> Vec<Opening> {
    let (mut found, mut end, mut at) = (Vec::new(), 0, magic + LZ4_MAGIC.len());
    while let Some(length) = bytes.get(at..at + 4).filter(|_| found.len() < OPENINGS_MAX) {
        let length = u32::from_le_bytes(std::array::from_fn(|at| length[at]));
        let Some(block) = bytes.get(at + 4..).and_then(|rest| rest.get(..length as usize)) else {
            break;
        };
        let Ok(plain) = lz4_flex::block::decompress(block, LZ4_BLOCK) else { break };
        if compress_lz4(&plain).is_none_or(|again| again != block) {
            break;
        }
        let (skip, plain) = ((at + 4 - end) as u32, plain.len() as u32);
        found.push(Opening { skip, packed: length, plain, codec: Codec::Lz4 });
        at += 4 + length as usize;
        end = at;
    }
    found
}

/// The bytes with all that is compressed in them opened.
pub fn open(bytes: &[u8], openings: &[Opening]) -> Result<Vec<u8>> {
    let wrong = || DeltaError::Malformed("something compressed does not open");
    let (mut opened, mut rest) = (Vec::new(), bytes);
    for opening in openings {
        let (before, after) = rest.split_at_checked(opening.skip as usize).ok_or_else(wrong)?;
        let (packed, after) = after.split_at_checked(opening.packed as usize).ok_or_else(wrong)?;
        opened.extend_from_slice(before);
        let plain = opening.plain as usize;
        if opened.len() + plain + after.len() > PLAIN_BYTES_MAX {
            return Err(DeltaError::Malformed("more comes out of what is compressed than may"));
        }
        let came = match opening.codec {
            Codec::Lz4 => lz4_flex::block::decompress(packed, plain).map_err(|_| wrong())?,
        };
        if came.len() != plain {
            return Err(wrong());
        }
        opened.extend(came);
        rest = after;
    }
    opened.extend_from_slice(rest);
    Ok(opened)
}

/// The bytes that were opened, as they were: exactly `bytes` of them.
pub fn close(opened: &[u8], openings: &[Opening], bytes: usize) -> Result<Vec<u8>> {
    let wrong = || DeltaError::Malformed("something opened does not close");
    let (mut closed, mut rest) = (Vec::with_capacity(bytes), opened);
    for opening in openings {
        let (before, after) = rest.split_at_checked(opening.skip as usize).ok_or_else(wrong)?;
        let (plain, after) = after.split_at_checked(opening.plain as usize).ok_or_else(wrong)?;
        closed.extend_from_slice(before);
        let packed = match opening.codec {
            Codec::Lz4 => compress_lz4(plain),
        };
        closed.extend(packed.filter(|p| p.len() == opening.packed as usize).ok_or_else(wrong)?);
        rest = after;
    }
    closed.extend_from_slice(rest);
    if closed.len() == bytes { Ok(closed) } else { Err(wrong()) }
}

fn compress_lz4(plain: &[u8]) -> Option<Vec<u8>> {
    let level = lz4::block::CompressionMode::HIGHCOMPRESSION(LZ4_LEVEL);
    lz4::block::compress(plain, Some(level), false).ok()
}
