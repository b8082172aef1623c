//! The header chunk, and the manifest as a value.
//!
//! ```text
//! 0   40  common header, magic "cltvmani"
//! 40  8   size_bytes
//! 48  4   page_bytes, 4096
//! 52  1   depth
//! 53  3   reserved, zero
//! 56  32  id of the root node, or zero when everything is a hole
//! ```

use chunk::header::{Format, HEADER_BYTES, Intent};
use chunk::{ChunkSink, ChunkSource, Urgency, id_of};
use model::{ChunkId, ManifestId, PAGE_BYTES};

use crate::ManifestError;
use crate::shape::{depth_of, pages_of};

/// The format of a manifest's header chunk.
pub const FORMAT: Format = Format {
    name: "manifest",
    magic: *b"cltvmani",
    version: 1,
    read_only_compatible: 0,
    incompatible: 0,
};

/// Bytes of a header chunk.
pub const HEADER_CHUNK_BYTES: usize = HEADER_BYTES + 48;

/// The immutable index of one volume. A small value: the tree stays where the chunks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    id: ManifestId,
    size_bytes: u64,
    pages: u64,
    depth: u8,
    root: Option<ChunkId>,
    /// A newer program made it, with features that a successor would have to keep.
    write_refused: Option<chunk::header::HeaderError>,
}

impl Manifest {
    /// The manifest of a volume of this size that is all zero. Its header chunk is not stored
    /// anywhere yet: see [`Self::put_header`].
    pub fn empty(size_bytes: u64) -> Result<Self, ManifestError> {
        Self::new(size_bytes, None)
    }

    pub(crate) fn new(size_bytes: u64, root: Option<ChunkId>) -> Result<Self, ManifestError> {
        let pages = pages_of(size_bytes)?;
        let depth = depth_of(pages);
        let id = id_of(&encode(size_bytes, depth, root)).into();
        Ok(Self { id, size_bytes, pages, depth, root, write_refused: None })
    }

    /// Reads the header chunk; the tree is read when it is needed.
    pub fn open(id: ManifestId, source: &dyn ChunkSource) -> Result<Self, ManifestError> {
        let chunk_id = id.into();
        let chunks = source.fetch(&chunk_id, Urgency::Urgent)?;
        let chunk = crate::cache::asked_for(&chunk_id, &chunks)?;
        Self::decode(id, chunk)
    }

    /// Reads a header chunk's bytes, which must be those that `id` names.
    pub(crate) fn decode(id: ManifestId, bytes: &[u8]) -> Result<Self, ManifestError> {
        let invalid = |detail| ManifestError::Invalid { id: id.into(), detail };
        let (_, rest) = FORMAT.read(bytes, Intent::Read)?;
        let write_refused = FORMAT.read(bytes, Intent::Write).err();
        let rest: &[u8; 48] =
            rest.try_into().map_err(|_| invalid("a header of the wrong length"))?;
        let size_bytes = u64::from_le_bytes(std::array::from_fn(|i| rest[i]));
        let page_bytes = u32::from_le_bytes(std::array::from_fn(|i| rest[8 + i]));
        let root: [u8; 32] = std::array::from_fn(|i| rest[16 + i]);
        if page_bytes as usize != PAGE_BYTES {
            return Err(invalid("its pages are not 4 KiB"));
        }
        let pages = pages_of(size_bytes).map_err(|_| invalid("an impossible size"))?;
        let depth = depth_of(pages);
        if rest[12] != depth || rest[13..16] != [0; 3] {
            return Err(invalid("its depth does not fit its size, or a reserved byte is set"));
        }
        let root = (root != [0; 32]).then(|| ChunkId::from_bytes(root));
        if root.is_some() && pages == 0 {
            return Err(invalid("a volume without pages has a tree"));
        }
        Ok(Self { id, size_bytes, pages, depth, root, write_refused })
    }

    /// Stores the header chunk. [`Self::update`] has already done so for what it returns.
    pub fn put_header(&self, sink: &mut dyn ChunkSink) -> Result<(), ManifestError> {
        sink.put(self.id.into(), &encode(self.size_bytes, self.depth, self.root))?;
        Ok(())
    }

    /// Names the whole content: equal ids mean equal volumes.
    pub fn id(&self) -> ManifestId {
        self.id
    }

    /// Size of the volume, bytes; a multiple of 4 KiB.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Size of the volume, pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Levels of the tree, 1 to [`crate::DEPTH_MAX`].
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The root node; nothing when the whole volume is a hole.
    pub fn root(&self) -> Option<ChunkId> {
        self.root
    }

    /// Whether this program understands enough to make a successor.
    pub(crate) fn writable(&self) -> Result<(), ManifestError> {
        self.write_refused.clone().map_or(Ok(()), |error| Err(error.into()))
    }
}

fn encode(size_bytes: u64, depth: u8, root: Option<ChunkId>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_CHUNK_BYTES);
    bytes.extend_from_slice(&FORMAT.header().encode());
    bytes.extend_from_slice(&size_bytes.to_le_bytes());
    bytes.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
    bytes.extend_from_slice(&[depth, 0, 0, 0]);
    bytes.extend_from_slice(&root.map_or([0; 32], |id| *id.as_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunk::Memory;

    fn check(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut bytes = encode(4096 * 200, 2, Some(id_of(b"root")));
        change(&mut bytes);
        let id = id_of(&bytes).into();
        let found = match Manifest::decode(id, &bytes) {
            Ok(manifest) => format!("ok, {:?}", manifest.writable().map_err(|e| e.to_string())),
            Err(ManifestError::Invalid { detail, .. }) => detail.to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_header_comes_back() {
        let memory = Memory::new();
        let manifest = Manifest::new(4096 * 200, Some(id_of(b"root"))).unwrap();
        manifest.put_header(&mut &memory).unwrap();
        assert_eq!(Manifest::open(manifest.id(), &memory), Ok(manifest));
        let missing = id_of(b"").into();
        assert!(matches!(Manifest::open(missing, &memory), Err(ManifestError::Fetch(_))));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let depth = "its depth does not fit its size, or a reserved byte is set";
        check(|_| (), "ok, Ok(())");
        check(|bytes| bytes.truncate(87), "a header of the wrong length");
        check(|bytes| bytes.push(0), "a header of the wrong length");
        check(|bytes| bytes.truncate(10), "10 bytes are too few to be a manifest");
        check(|bytes| bytes[0] = b'x', "this is not a manifest");
        check(|bytes| bytes[40] = 1, "an impossible size");
        check(|bytes| bytes[45] = 1, depth);
        check(|bytes| bytes[47] = 2, "an impossible size");
        check(|bytes| bytes[49] = 0x20, "its pages are not 4 KiB");
        check(|bytes| bytes[52] = 1, depth);
        check(|bytes| bytes[52] = 200, depth);
        check(|bytes| bytes[55] = 1, depth);
        check(
            |bytes| {
                bytes[40..48].fill(0);
                bytes[52] = 1;
            },
            "a volume without pages has a tree",
        );
    }

    #[test]
    fn a_newer_manifest_is_read_if_it_can_be_and_never_written() {
        check(|bytes| bytes[16] = 1, "ok, Ok(())");
        check(
            |bytes| bytes[24] = 1,
            "ok, Err(\"this manifest uses features bit 0, made by a newer Collective: it can be read here, but not written\")",
        );
        check(
            |bytes| bytes[32] = 4,
            "this manifest uses incompatible features bit 2, made by a newer Collective",
        );
        check(
            |bytes| bytes[8] = 2,
            "this manifest has version 2, made by a newer Collective; up to 1 can be read here",
        );
    }
}
