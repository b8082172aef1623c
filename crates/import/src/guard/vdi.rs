//! VDI, as VirtualBox writes it (its header is in `VDICore.h` there, and in QEMU's `block/vdi.c`).

use std::io::SeekFrom;

use super::{Fields, Source, leads_elsewhere};
use crate::error::{ImportError, Result};

const WHAT: &str = "vdi";
const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;

pub(super) fn guard(file: &mut dyn Source) -> Result<u64> {
    let header = Fields::read(WHAT, file, 0, 512)?;
    header.expect_magic(0x40, &0xbeda_107f_u32.to_le_bytes())?;
    if header.le32(68)? >> 16 != 1 {
        return Err(header.malformed("its version is not 1"));
    }
    let kind = header.le32(76)?;
    let link: [u8; 16] = header.array(424)?;
    let parent: [u8; 16] = header.array(440)?;
    if !matches!(kind, DYNAMIC | FIXED) || link != [0; 16] || parent != [0; 16] {
        return Err(leads_elsewhere("its parent disk", "would have to be read too"));
    }
    // The converter takes what is cut off for zeros.
    let allocated = u64::from(header.le32(376)?).saturating_mul(u64::from(header.le32(388)?));
    let end = u64::from(header.le32(344)?).saturating_add(allocated);
    let there = file.seek(SeekFrom::End(0)).map_err(ImportError::io("looking at its end"))?;
    if end > there {
        return Err(header.malformed(format!("it ends at {there} and should at {end}")));
    }
    header.le64(368)
}
