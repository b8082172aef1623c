//! The header that every format of ours begins with, so that a reader can tell what it has and
//! whether it may touch it before it understands the rest.
//!
//! ```text
//! 0   8  magic: which format
//! 8   2  version
//! 10  6  reserved, zero
//! 16  8  compatible features: may be ignored
//! 24  8  read-only-compatible features: who does not know one may read, not write
//! 32  8  incompatible features: who does not know one may do neither
//! ```
//!
//! All numbers are little-endian. A feature is a bit. The version moves only when the header's
//! meaning itself changes; everything else is a feature.

/// Bytes of the header.
pub const HEADER_BYTES: usize = 40;

/// What a reader wants to do with the thing that it has the header of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Only look.
    Read,
    /// Make a successor of it, or change it.
    Write,
}

/// A format as this program knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// What people call it, for example `manifest`.
    pub name: &'static str,
    /// Its first 8 bytes.
    pub magic: [u8; 8],
    /// The newest version that is known.
    pub version: u16,
    /// Known read-only-compatible features.
    pub read_only_compatible: u64,
    /// Known incompatible features.
    pub incompatible: u64,
}

/// The header of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which format.
    pub magic: [u8; 8],
    /// Version of the format, from 1.
    pub version: u16,
    /// Features that may be ignored.
    pub compatible: u64,
    /// Features that a writer must know.
    pub read_only_compatible: u64,
    /// Features that a reader must know.
    pub incompatible: u64,
}

/// Why a header does not allow what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There are not enough bytes for a header.
    #[error("{bytes} bytes are too few to be a {format}")]
    Truncated {
        /// The format that was expected.
        format: &'static str,
        /// Bytes that there are.
        bytes: usize,
    },
    /// It is something else.
    #[error("this is not a {format}")]
    WrongMagic {
        /// The format that was expected.
        format: &'static str,
        /// The first 8 bytes that were found.
        found: [u8; 8],
    },
    /// A reserved byte is set, or the version is 0.
    #[error("the header of this {format} is damaged: {detail}")]
    Malformed {
        /// The format that was expected.
        format: &'static str,
        /// What is wrong, for a person.
        detail: &'static str,
    },
    /// The version is newer than this program.
    #[error(
        "this {format} has version {found}, made by a newer Collective; up to {newest} can be read here"
    )]
    NewerVersion {
        /// The format.
        format: &'static str,
        /// Its version.
        found: u16,
        /// The newest that is known.
        newest: u16,
    },
    /// It uses features without which it cannot be understood.
    #[error("this {format} uses incompatible features {}, made by a newer Collective", bits(*.unknown))]
    UnknownIncompatible {
        /// The format.
        format: &'static str,
        /// The unknown features' bits.
        unknown: u64,
    },
    /// It uses features without which it cannot be written.
    #[error("this {format} uses features {}, made by a newer Collective: it can be read here, but not written", bits(*.unknown))]
    UnknownReadOnly {
        /// The format.
        format: &'static str,
        /// The unknown features' bits.
        unknown: u64,
    },
}

/// The numbers of the bits that are set: `bit 3, bit 17`.
fn bits(mask: u64) -> String {
    let set = (0..64).filter(|bit| mask >> bit & 1 == 1).map(|bit| format!("bit {bit}"));
    set.collect::<Vec<_>>().join(", ")
}

impl Format {
    /// The header of a new thing of this format, without any feature.
    pub fn header(&self) -> Header {
        Header {
            magic: self.magic,
            version: self.version,
            compatible: 0,
            read_only_compatible: 0,
            incompatible: 0,
        }
    }

    /// Reads a header and checks that what is wanted is possible; gives it with the bytes after
    /// it.
    pub fn read<'a>(
        &self,
        bytes: &'a [u8],
        intent: Intent,
    ) -> Result<(Header, &'a [u8]), HeaderError> {
        let format = self.name;
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Truncated { format, bytes: bytes.len() });
        };
        let header = Header::decode(head);
        if header.magic != self.magic {
            return Err(HeaderError::WrongMagic { format, found: header.magic });
        }
        if header.version > self.version {
            let (found, newest) = (header.version, self.version);
            return Err(HeaderError::NewerVersion { format, found, newest });
        }
        if header.version == 0 {
            return Err(HeaderError::Malformed { format, detail: "version 0" });
        }
        if head[10..16] != [0; 6] {
            return Err(HeaderError::Malformed { format, detail: "a reserved byte is set" });
        }
        let unknown = header.incompatible & !self.incompatible;
        if unknown != 0 {
            return Err(HeaderError::UnknownIncompatible { format, unknown });
        }
        let unknown = header.read_only_compatible & !self.read_only_compatible;
        if unknown != 0 && intent == Intent::Write {
            return Err(HeaderError::UnknownReadOnly { format, unknown });
        }
        Ok((header, rest))
    }
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.compatible.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.read_only_compatible.to_le_bytes());
        bytes[32..].copy_from_slice(&self.incompatible.to_le_bytes());
        bytes
    }

    /// Reads the fields alone, of whatever format; [`Format::read`] says whether they are ours.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self {
            magic: std::array::from_fn(|i| bytes[i]),
            version: u16::from_le_bytes([bytes[8], bytes[9]]),
            compatible: number(16),
            read_only_compatible: number(24),
            incompatible: number(32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        name: "test",
        magic: *b"cltvtest",
        version: 2,
        read_only_compatible: 0b1,
        incompatible: 0b10,
    };

    fn check(change: impl FnOnce(&mut Header), intent: Intent, expected: &str) {
        let mut header = FORMAT.header();
        change(&mut header);
        let bytes = header.encode();
        let found = match FORMAT.read(&bytes, intent) {
            Ok((read, rest)) => {
                assert_eq!((read, rest.len()), (header, 0));
                "ok".to_owned()
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_known_is_read_and_what_is_newer_is_named() {
        use Intent::{Read, Write};
        check(|_| (), Write, "ok");
        check(|header| header.version = 1, Write, "ok");
        check(|header| header.compatible = u64::MAX, Write, "ok");
        check(|header| header.read_only_compatible = 1, Write, "ok");
        check(|header| header.incompatible = 2, Write, "ok");
        check(|header| header.magic[0] = 0, Read, "this is not a test");
        check(
            |header| header.version = 3,
            Read,
            "this test has version 3, made by a newer Collective; up to 2 can be read here",
        );
        check(|header| header.version = 0, Read, "the header of this test is damaged: version 0");
        check(
            |header| header.incompatible = 2 | 1 << 5 | 1 << 63,
            Read,
            "this test uses incompatible features bit 5, bit 63, made by a newer Collective",
        );
        check(|header| header.read_only_compatible = 2, Read, "ok");
        check(
            |header| header.read_only_compatible = 2,
            Write,
            "this test uses features bit 1, made by a newer Collective: it can be read here, but not written",
        );
    }

    #[test]
    fn cuts_and_reserved_bytes_are_refused() {
        let bytes = FORMAT.header().encode();
        for len in 0..HEADER_BYTES {
            let error = FORMAT.read(&bytes[..len], Intent::Read).unwrap_err();
            assert_eq!(error, HeaderError::Truncated { format: "test", bytes: len });
        }
        for at in 10..16 {
            let mut bytes = bytes;
            bytes[at] = 1;
            let error = FORMAT.read(&bytes, Intent::Read).unwrap_err();
            assert!(matches!(error, HeaderError::Malformed { .. }), "{error}");
        }
    }
}
