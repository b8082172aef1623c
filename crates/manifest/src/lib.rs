//! Manifests: the immutable index of one volume, from page numbers to chunks. No I/O.
//!
//! A manifest is a tree of chunks. Each node has up to 128 children; a leaf covers 128 pages
//! (512 KiB), the node above it 64 MiB, and five levels 128 TiB. Whatever is all zero has no
//! entry, and a subtree without entries has no node: a hole costs nothing, however large.
//!
//! ```text
//!   header chunk (its id is the ManifestId): size, depth, root
//!        |
//!     node, level 1      presence bitmap + ids of the children that exist
//!      /   |   \
//!   leaf  leaf  leaf     level 0: presence bitmap + ids of the pages that are not holes
//! ```
//!
//! | module | does |
//! | --- | --- |
//! | [`cache`] | [`NodeCache`]: bounded, reads and checks nodes |
//! | `lookup` | one page, or a range |
//! | `update` | a new manifest from an old one and some changes |
//! | `diff` | what differs between two, without reading what is equal |
//! | `walk` | every node and page, skipping what the visitor has seen |
//! | `node`, `header`, `shape` | the bytes, and the arithmetic of the tree |
//!
//! Bytes: `docs/format/manifest.md`, pinned by the golden files in `tests/golden`.
//!
//! # Invariants
//!
//! * Canonical: the same size and content give the same id, whatever the order and the number of
//!   the updates that led there. Anything else is refused when it is read.
//! * Memory is in proportion to depth (at most 7 nodes) and the cache's bound, never to the size
//!   of the volume.
//! * Children are put before parents and the header last, so a sink that stops anywhere has no
//!   node that names a chunk it was not given before.
//! * Nothing read from outside can make it loop, recurse beyond the depth or allocate beyond one
//!   node: ids are hashes, so there are no cycles, and each node says and must have its level.
//!
//! # Crash
//!
//! There is nothing to recover: a manifest exists when its header chunk does, and whoever names
//! it (a ref) does so after its sink has finished.

pub mod cache;
mod diff;
mod error;
mod header;
mod lookup;
mod node;
mod shape;
mod update;
mod walk;

pub use cache::NodeCache;
pub use error::ManifestError;
pub use header::{FORMAT, HEADER_CHUNK_BYTES, Manifest};
pub use model::{ChunkId, ManifestId, PAGE_BYTES};
pub use node::NODE_BYTES_MAX;
pub use shape::{DEPTH_MAX, FAN_OUT, SIZE_BYTES_MAX};
pub use walk::Visit;
