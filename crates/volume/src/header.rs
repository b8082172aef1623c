//! The start of a volume's files: the header that all our formats share, with its errors named
//! after the file that they were found in.

use chunk::header::{Format, HEADER_BYTES, HeaderError, Intent};

use crate::error::{Result, VolumeError};

/// The journal of an overlay.
pub const JOURNAL: Format = format("overlay journal", b"cltvjrnl");
/// The state file of a volume.
pub const STATE: Format = format("volume state", b"cltvstat");
/// A cache file.
pub const CACHE: Format = format("chunk cache", b"cltvcach");

const fn format(name: &'static str, magic: &[u8; 8]) -> Format {
    Format { name, magic: *magic, version: 1, read_only_compatible: 0, incompatible: 0 }
}

/// Writes the header into the start of `bytes`.
pub fn write(format: &Format, bytes: &mut [u8]) {
    bytes[..HEADER_BYTES].copy_from_slice(&format.header().encode());
}

/// Checks that `bytes` start with a header that allows us to change the file: whoever opens a
/// volume writes it.
pub fn check(format: &Format, bytes: &[u8], volume: &str, file: &str) -> Result<()> {
    format.read(bytes, Intent::Write).map(|_| ()).map_err(|error| {
        let (volume, file, detail) = (volume.to_owned(), file.to_owned(), error.to_string());
        match error {
            HeaderError::NewerVersion { .. }
            | HeaderError::UnknownIncompatible { .. }
            | HeaderError::UnknownReadOnly { .. } => VolumeError::Newer { volume, file, detail },
            _ => VolumeError::DamagedFile { volume, file, offset: 0, detail },
        }
    })
}

/// The number at `at`; the caller has checked the length.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// The number at `at`; the caller has checked the length.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
