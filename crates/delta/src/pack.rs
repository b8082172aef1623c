//! Compressing with other bytes as the dictionary: zstd, as `zstd --patch-from` does it.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, compress_bound};

use crate::{DeltaError, NEW_BYTES_MAX, OLD_BYTES_MAX, Result};

/// As slow as is worth it: a version is packed once and fetched often.
const LEVEL: i32 = 19;
/// Reaches from the last of the new bytes to the first of the old ones.
const WINDOW_LOG: u32 = 25;

/// Packs `new` with `old` as the dictionary.
pub fn pack(old: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    bounded("what is new", new.len(), NEW_BYTES_MAX)?;
    bounded("what it is compressed with", old.len(), OLD_BYTES_MAX)?;
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
    context.ref_prefix(old).map_err(failed)?;
    let mut packed = Vec::with_capacity(compress_bound(new.len()));
    context.compress2(&mut packed, new).map_err(failed)?;
    Ok(packed)
}

/// Unpacks what was packed with `old`, which gives exactly `bytes` bytes.
pub fn unpack(old: &[u8], packed: &[u8], bytes: usize) -> Result<Vec<u8>> {
    bounded("what is new", bytes, NEW_BYTES_MAX)?;
    bounded("what it was compressed with", old.len(), OLD_BYTES_MAX)?;
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

fn bounded(what: &'static str, bytes: usize, most: usize) -> Result<()> {
    if bytes > most { Err(DeltaError::TooLarge { what, bytes, most }) } else { Ok(()) }
}

fn failed(code: usize) -> DeltaError {
    DeltaError::Compressor(zstd::zstd_safe::get_error_name(code))
}
