//! What is new in a version, written as what differs from the one before: for who has that one.
//!
//! A delta is a row of *parts*, small enough to be fetched, checked and thrown away one by one. A part
//! is a row of *groups*: chunks of the new version, as what differs from chunks of the old one. Both are named by where they lie, not by what they are: whoever has the manifests knows
//! the ids, and checks every chunk that comes out by its own.
//!
//! A *layout* says where all of it lies, so that the new version's manifests can be made and need not be fetched.
//!
//! *Invariants.* No I/O. Nothing is believed here: what is unpacked becomes a chunk by hashing to its
//! id. What a stranger wrote takes no more memory than the bounds below say. `docs/format/delta.md`
//! has the bytes.

mod layout;
mod number;
mod open;
mod pack;
mod part;
mod search;

pub use layout::{DiskLayout, Layout, Stretch, What};
pub use open::{Codec, Opening, find, open};
pub use pack::{pack, unpack};
pub use part::{Group, Part, Run};

/// Bytes of new chunks in a group, at most.
pub const NEW_BYTES_MAX: usize = 16 << 20;
/// Bytes of old chunks that a group is compressed with, at most.
pub const OLD_BYTES_MAX: usize = 24 << 20;
/// Of either, when what is compressed in them has been opened, at most.
pub const PLAIN_BYTES_MAX: usize = 32 << 20;
/// Bytes of a part, at most.
pub const PART_BYTES_MAX: usize = 4 << 20;
/// Chunks in a run, and runs in a group, at most.
pub const RUN_MAX: u32 = 1 << 20;

/// Why bytes are no delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// Its header says that it is something else, or newer.
    #[error(transparent)]
    Header(#[from] chunk::header::HeaderError),
    /// It ends too early, or contradicts itself.
    #[error("delta: {0}")]
    Malformed(&'static str),
    /// What was to be written is more than may be read.
    #[error("delta: too many {what}: {count}, and {most} are allowed")]
    TooLarge {
        /// Bytes, or others, of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// What is allowed.
        most: usize,
    },
    /// The compressor failed.
    #[error("delta: {0}")]
    Compressor(&'static str),
}

/// What can go wrong here.
pub type Result<T> = std::result::Result<T, DeltaError>;
