//! VHD (Microsoft's "Virtual Hard Disk Image Format Specification"): a footer at the end, which a
//! dynamic disk has at its beginning too.

use std::io::SeekFrom;

use super::{Fields, Source, leads_elsewhere};
use crate::error::{ImportError, Result};

const WHAT: &str = "vhd";
const FOOTER_BYTES: usize = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

pub(super) fn guard(file: &mut dyn Source) -> Result<u64> {
    let end = file.seek(SeekFrom::End(0)).map_err(ImportError::io("looking at its end"))?;
    let first = Fields::read(WHAT, file, 0, FOOTER_BYTES)?;
    let at_start = first.expect_magic(0, b"conectix").is_ok();
    let last = Fields::read(WHAT, file, end.saturating_sub(512), FOOTER_BYTES)?;
    if last.expect_magic(0, b"conectix").is_err() {
        // The converter would take what is cut off for zeros.
        return Err(last.malformed("its end is missing"));
    }
    let footer = if at_start { first } else { last };
    if !has_checksum(&footer, 64)? {
        return Err(footer.malformed("its footer's checksum is wrong"));
    }
    match footer.be32(60)? {
        FIXED if !at_start => {}
        DYNAMIC if at_start => {
            let dynamic = Fields::read(WHAT, file, footer.be64(16)?, 1024)?;
            dynamic.expect_magic(0, b"cxsparse")?;
        }
        DIFFERENCING => {
            return Err(leads_elsewhere("its parent disk", "would have to be read too"));
        }
        kind => return Err(footer.malformed(format!("its type {kind} does not fit its place"))),
    }
    footer.be64(48)
}

/// One's complement of the sum of all bytes but the checksum's own.
fn has_checksum(footer: &Fields, at: usize) -> Result<bool> {
    let said = footer.be32(at)?;
    let own: u32 = said.to_be_bytes().iter().map(|byte| u32::from(*byte)).sum();
    let all: u32 = footer.bytes.iter().map(|byte| u32::from(*byte)).sum();
    Ok(!(all.wrapping_sub(own)) == said)
}
