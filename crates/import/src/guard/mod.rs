//! A look at a foreign disk's own headers, before any other program sees the file.
//!
//! The converter is strong and runs in a jail; this stands before it. What leads to other files
//! (backing files, external data files, parents) is refused here, by name, so that neither a
//! mistake in the jail nor one in the converter can open them. So is what is plainly not what it
//! says, and what is larger than we take.
//!
//! *Invariants.* Reads a bounded number of bytes at places that the headers name, and nothing in
//! proportion to what they claim. Never panics, whatever the bytes.

mod qcow2;
mod vdi;
mod vhd;
mod vhdx;
pub mod vmdk;

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use model::format_bytes;

use crate::error::{ImportError, Result};
use crate::format::Format;

/// The largest disk that is taken, bytes: 8 TiB. What a conversion writes is bounded by it too.
pub const DISK_BYTES_MAX: u64 = 8 << 40;

/// A file that may be read at any place.
pub trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// What a look at the headers showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// How large the disk says it is, bytes.
    pub virtual_bytes: u64,
}

/// Looks at the headers of a disk in one file.
pub fn guard(format: Format, file: &mut dyn Source) -> Result<Guarded> {
    let virtual_bytes = match format {
        Format::Qcow2 => qcow2::guard(file)?,
        Format::Vmdk => vmdk::guard_sparse(file, vmdk::Part::Whole)?,
        Format::Vdi => vdi::guard(file)?,
        Format::Vhd => vhd::guard(file)?,
        Format::Vhdx => vhdx::guard(file)?,
        Format::Raw | Format::Iso => {
            file.seek(SeekFrom::End(0)).map_err(ImportError::io("looking at its end"))?
        }
        Format::Ova | Format::Ovf | Format::Box => {
            return Err(ImportError::malformed("disk", format!("{format} holds a whole computer")));
        }
    };
    bounded(virtual_bytes)?;
    Ok(Guarded { virtual_bytes })
}

/// Refuses an empty disk and one beyond the bound.
pub(crate) fn bounded(virtual_bytes: u64) -> Result<()> {
    if virtual_bytes == 0 {
        return Err(ImportError::malformed("disk", "it is empty"));
    }
    if virtual_bytes > DISK_BYTES_MAX {
        return Err(ImportError::TooLarge {
            what: "the disk's size",
            found: format_bytes(virtual_bytes),
            max: format_bytes(DISK_BYTES_MAX),
        });
    }
    Ok(())
}

/// Some bytes of a header, in which every field is looked for and none is believed to be there.
struct Fields {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Fields {
    /// Reads exactly `length` bytes at `offset`.
    fn read(what: &'static str, file: &mut dyn Source, offset: u64, length: usize) -> Result<Self> {
        let mut bytes = vec![0; length];
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
        match read {
            Ok(()) => Ok(Self { what, bytes }),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(ImportError::malformed(what, format!("it ends before {}", offset)))
            }
            Err(error) => Err(ImportError::io(format!("reading the {what}"))(error)),
        }
    }

    /// Reads what there is of `length` bytes at `offset`.
    fn read_up_to(
        what: &'static str,
        file: &mut dyn Source,
        offset: u64,
        length: usize,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.take(length as u64).read_to_end(&mut bytes))
            .map_err(ImportError::io(format!("reading the {what}")))?;
        Ok(Self { what, bytes })
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        at.checked_add(N)
            .and_then(|end| self.bytes.get(at..end))
            .and_then(|field| field.try_into().ok())
            .ok_or_else(|| ImportError::malformed(self.what, format!("no field at {at}")))
    }

    fn be32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array(at)?))
    }

    fn be64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array(at)?))
    }

    fn le16(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn le32(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn le64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn expect_magic(&self, at: usize, magic: &[u8]) -> Result<()> {
        if self.bytes.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            return Ok(());
        }
        Err(ImportError::malformed(self.what, format!("its magic is not at {at}")))
    }

    fn malformed(&self, detail: impl Into<String>) -> ImportError {
        ImportError::malformed(self.what, detail)
    }
}

/// The refusal of whatever needs another file.
fn leads_elsewhere(what: &str, detail: &str) -> ImportError {
    ImportError::Unsafe {
        what: what.to_owned(),
        detail: detail.to_owned(),
        hint: "bring it into one file first, for example: qemu-img convert -O qcow2 FILE WHOLE",
    }
}
