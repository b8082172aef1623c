//! qcow2, versions 2 and 3 (the specification is `docs/interop/qcow2` of QEMU).

use super::{Fields, Source, leads_elsewhere};
use crate::error::{ImportError, Result};

const WHAT: &str = "qcow2";
/// The shortest header: that of version 2.
const HEADER_BYTES: usize = 72;
/// As much of the first cluster as holds header extensions, bytes. The backing file's name would be
/// there too.
const EXTENSIONS_BYTES_MAX: usize = 64 << 10;

const EXTERNAL_DATA: u64 = 1 << 2;
const CORRUPT: u64 = 1 << 1;
/// Dirty, corrupt, external data, compression type, extended L2.
const KNOWN_INCOMPATIBLE: u64 = 0b1_1111;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

pub(super) fn guard(file: &mut dyn Source) -> Result<u64> {
    let header = Fields::read_up_to(WHAT, file, 0, EXTENSIONS_BYTES_MAX)?;
    header.expect_magic(0, b"QFI\xfb")?;
    let version = header.be32(4)?;
    if !(2..=3).contains(&version) {
        return Err(ImportError::Unsupported {
            what: format!("version {version} of qcow2"),
            hint: "`qemu-img convert -O qcow2` makes a version 3 of it",
        });
    }
    if header.be64(8)? != 0 || header.be32(16)? != 0 {
        return Err(leads_elsewhere("its backing file", "would have to be read too"));
    }
    if !(9..=21).contains(&header.be32(20)?) {
        return Err(header.malformed("its clusters have an impossible size"));
    }
    if header.be32(32)? != 0 {
        return Err(ImportError::Unsupported {
            what: "an encrypted disk".to_owned(),
            hint: "decrypt it first with `qemu-img convert`",
        });
    }
    let mut extensions = HEADER_BYTES;
    if version == 3 {
        let incompatible = header.be64(72)?;
        if incompatible & EXTERNAL_DATA != 0 {
            return Err(leads_elsewhere("its external data file", "would have to be read too"));
        }
        if incompatible & CORRUPT != 0 {
            return Err(header.malformed("it is marked as corrupt"));
        }
        if incompatible & !KNOWN_INCOMPATIBLE != 0 {
            return Err(header.malformed("it needs features that nobody knows"));
        }
        extensions = header.be32(100)? as usize;
        if extensions < 104 {
            return Err(header.malformed("its header is too short"));
        }
    }
    check_extensions(&header, extensions)?;
    header.be64(24)
}

/// No extension may name a file, whatever the flags say.
fn check_extensions(header: &Fields, mut at: usize) -> Result<()> {
    // Bytes after the last full extension are no extension: version 2 files end early.
    while let (Ok(kind), Ok(length)) = (header.be32(at), header.be32(at.saturating_add(4))) {
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_BACKING_FORMAT => {
                return Err(leads_elsewhere("its backing file's format", "is named"));
            }
            EXTENSION_DATA_FILE => {
                return Err(leads_elsewhere("its external data file", "is named"));
            }
            _ => {}
        }
        at = at.saturating_add(8).saturating_add((length as usize).next_multiple_of(8));
    }
    Ok(())
}
