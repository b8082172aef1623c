//! Bytes that are proven to be what their id says.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use model::ChunkId;

use crate::id_of;

/// A chunk whose bytes hash to its id. There is no way to make one without hashing.
///
/// Cloning shares the bytes.
#[derive(Clone)]
pub struct Verified {
    id: ChunkId,
    bytes: Arc<[u8]>,
}

/// The bytes are not those that the id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk {} has the content of {}", wanted.short(), found.short())]
pub struct Mismatch {
    /// The id that was asked for.
    pub wanted: ChunkId,
    /// The id that the bytes have.
    pub found: ChunkId,
}

impl Verified {
    /// Checks that `bytes` are the chunk `id`.
    pub fn check(id: ChunkId, bytes: impl Into<Arc<[u8]>>) -> Result<Self, Mismatch> {
        let bytes = bytes.into();
        let found = id_of(&bytes);
        if found == id { Ok(Self { id, bytes }) } else { Err(Mismatch { wanted: id, found }) }
    }

    /// Names bytes that are our own.
    pub fn of(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { id: id_of(&bytes), bytes }
    }

    /// The id that the bytes hash to.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// The bytes, shared.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

impl Deref for Verified {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({}, {} bytes)", self.id.short(), self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_pass() {
        let good = Verified::of(b"abc".as_slice());
        assert_eq!(&*Verified::check(good.id(), b"abc".as_slice()).unwrap(), b"abc");
        let mismatch = Verified::check(good.id(), b"abd".as_slice()).unwrap_err();
        assert_eq!(mismatch, Mismatch { wanted: good.id(), found: id_of(b"abd") });
    }
}
