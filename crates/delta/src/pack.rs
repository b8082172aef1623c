//! Packing new bytes with old ones: what resembles them as the difference, byte by byte, and the rest as it is;
//! then all of it by zstd.
//!
//! Differences of programs are small numbers that come again and again, as one function that has grown moves
//! every address behind it by the same: they compress to half of what the changed bytes do.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, compress_bound};

use crate::number::{number, read, signed, signed_of};
use crate::search::{Step, steps};
use crate::{DeltaError, OLD_BYTES_MAX, PLAIN_BYTES_MAX, Result};

/// As slow as is worth it: a version is packed once and fetched often.
const LEVEL: i32 = 19;
/// Reaches from the last byte to the first; of a part without steps, to the first of the old ones.
const WINDOW_LOG: u32 = 25;
/// Bytes that the steps of a group take, at most.
const STEPS_BYTES_MAX: usize = 4 << 20;

/// Packs `new` with `old`.
pub fn pack(old: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    bounded("bytes of what is new", new.len(), PLAIN_BYTES_MAX)?;
    bounded("bytes of what it is compressed with", old.len(), PLAIN_BYTES_MAX)?;
    let (mut told, mut alike, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    let (mut from, mut at) = (0_usize, 0);
    for Step { alike: length, fresh: more, seek } in steps(old, new) {
        number(&mut told, length as u64);
        number(&mut told, more as u64);
        number(&mut told, signed(seek));
        let pairs = new[at..at + length].iter().zip(&old[from..from + length]);
        alike.extend(pairs.map(|(new, old)| new.wrapping_sub(*old)));
        at += length;
        fresh.extend_from_slice(&new[at..at + more]);
        at += more;
        from = (from + length).wrapping_add_signed(seek as isize);
    }
    bounded("bytes of how it is made of that", told.len(), STEPS_BYTES_MAX)?;
    let mut packed = Vec::new();
    number(&mut packed, told.len() as u64);
    number(&mut packed, alike.len() as u64);
    let all = [told, alike, fresh].concat();
    packed.extend(compress(&all)?);
    Ok(packed)
}

/// Unpacks what was packed with `old`, which gives exactly `bytes` bytes.
pub fn unpack(old: &[u8], packed: &[u8], bytes: usize) -> Result<Vec<u8>> {
    bounded("bytes of what is new", bytes, PLAIN_BYTES_MAX)?;
    bounded("bytes of what it was compressed with", old.len(), PLAIN_BYTES_MAX)?;
    let mut rest = packed;
    let [told, alike] = [read(&mut rest)?, read(&mut rest)?]
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    bounded("bytes of how it is made", told, STEPS_BYTES_MAX)?;
    bounded("bytes that are alike", alike, bytes)?;
    let all = decompress(&[], rest, told + bytes)?;
    let (told, rest) = all.split_at(told);
    let (alike, fresh) = rest.split_at(alike);
    assemble(old, told, alike, fresh, bytes)
}

/// Follows the steps: they have to use up everything, and to stay within the old bytes.
fn assemble(
    old: &[u8],
    mut told: &[u8],
    mut alike: &[u8],
    mut fresh: &[u8],
    bytes: usize,
) -> Result<Vec<u8>> {
    let wrong = || DeltaError::Malformed("the steps of a group lead beyond its bytes");
    let length =
        |told: &mut &[u8]| -> Result<usize> { usize::try_from(read(told)?).map_err(|_| wrong()) };
    let mut new = Vec::with_capacity(bytes);
    let mut from = 0_i64;
    while !told.is_empty() {
        let (same, more) = (length(&mut told)?, length(&mut told)?);
        let seek = signed_of(read(&mut told)?);
        let (differences, after) = alike.split_at_checked(same).ok_or_else(wrong)?;
        let begin = usize::try_from(from).map_err(|_| wrong())?;
        let end = begin.checked_add(same).ok_or_else(wrong)?;
        let before = old.get(begin..end).ok_or_else(wrong)?;
        new.extend(differences.iter().zip(before).map(|(new, old)| new.wrapping_add(*old)));
        alike = after;
        let (some, after) = fresh.split_at_checked(more).ok_or_else(wrong)?;
        new.extend_from_slice(some);
        fresh = after;
        from = (end as i64).checked_add(seek).ok_or_else(wrong)?;
    }
    if new.len() == bytes { Ok(new) } else { Err(wrong()) }
}

pub(crate) fn compress(new: &[u8]) -> Result<Vec<u8>> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::EnableLongDistanceMatching(true),
        // Every chunk is checked by its id.
        CParameter::ChecksumFlag(false),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    let mut packed = Vec::with_capacity(compress_bound(new.len()));
    context.compress2(&mut packed, new).map_err(failed)?;
    Ok(packed)
}

/// Unpacks one frame with the old bytes as its dictionary: what groups without steps are.
pub fn unpack_frame(old: &[u8], packed: &[u8], bytes: usize) -> Result<Vec<u8>> {
    bounded("bytes of what is new", bytes, PLAIN_BYTES_MAX)?;
    bounded("bytes of what it was compressed with", old.len(), OLD_BYTES_MAX)?;
    decompress(old, packed, bytes)
}

pub(crate) fn decompress(old: &[u8], packed: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let mut context = DCtx::create();
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(failed)?;
    context.ref_prefix(old).map_err(failed)?;
    let mut new = Vec::with_capacity(bytes);
    context.decompress(&mut new, packed).map_err(failed)?;
    if new.len() == bytes {
        Ok(new)
    } else {
        Err(DeltaError::Malformed("a group unpacks to another length"))
    }
}

pub(crate) fn bounded(what: &'static str, count: usize, most: usize) -> Result<()> {
    if count > most { Err(DeltaError::TooLarge { what, count, most }) } else { Ok(()) }
}

fn failed(code: usize) -> DeltaError {
    DeltaError::Compressor(zstd::zstd_safe::get_error_name(code))
}
