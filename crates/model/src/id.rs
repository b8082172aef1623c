//! Identifiers: one newtype for each noun.

use std::fmt;
use std::str::FromStr;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError {
    /// The noun that was expected, for example `chunk id`.
    pub noun: &'static str,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a {}: expected lowercase hexadecimal digits", self.noun)
    }
}

impl std::error::Error for IdError {}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str, noun: &'static str) -> Result<[u8; N], IdError> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(IdError { noun });
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(IdError { noun }),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Bytes in this identifier.
            pub const BYTES: usize = $len;

            /// Takes bytes that are already known to be an identifier of this noun.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first 12 hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                read_hex(text, $noun).map(Self)
            }
        }
    };
}

id!(
    /// BLAKE3 of a chunk's uncompressed bytes.
    ChunkId, 32, "chunk id"
);
id!(
    /// The chunk id of a manifest's header chunk: names the whole content of one volume.
    ManifestId, 32, "manifest id"
);
id!(
    /// The chunk id of a checkpoint's record.
    CheckpointId, 32, "checkpoint id"
);
id!(
    /// The chunk id of a version's record.
    VersionId, 32, "version id"
);
id!(
    /// Random; names one instance for ever, across hosts and renames.
    InstanceId, 16, "instance id"
);
id!(
    /// Random; names one host (one `COLLECTIVE_DIR`).
    HostId, 16, "host id"
);

macro_rules! is_a_chunk {
    ($($name:ident),*) => {$(
        impl From<ChunkId> for $name {
            fn from(id: ChunkId) -> Self {
                Self(id.0)
            }
        }
        impl From<$name> for ChunkId {
            fn from(id: $name) -> Self {
                Self(id.0)
            }
        }
    )*};
}
is_a_chunk!(ManifestId, CheckpointId, VersionId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let id = ChunkId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 12);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "ab", &"G".repeat(64), &"A".repeat(64), &"a".repeat(63)] {
            assert!(text.parse::<ChunkId>().is_err(), "{text}");
        }
    }
}
