//! What can go wrong with a manifest.

use chunk::header::HeaderError;
use chunk::{ChunkId, FetchError, SinkError};

use crate::shape::SIZE_BYTES_MAX;

/// Why a manifest could not be read, looked into or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// One of its chunks could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// One of its chunks could not be stored.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// It is no manifest, or one that a newer program made.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The chunk is what its id says, but does not follow the format: whoever made it is at
    /// fault, another copy will be the same.
    #[error("chunk {} is not a valid part of a manifest: {detail}", id.short())]
    Invalid {
        /// The header or node.
        id: ChunkId,
        /// What is wrong, for a person.
        detail: &'static str,
    },
    /// A page beyond the end was asked for or changed.
    #[error("page {page} is beyond the end of a volume of {pages} pages")]
    OutOfRange {
        /// The page.
        page: u64,
        /// Pages in the volume.
        pages: u64,
    },
    /// Changes were not given in ascending order, each page once.
    #[error("the changes of pages are not in ascending order at page {page}")]
    NotAscending {
        /// The page that came too late.
        page: u64,
    },
    /// No volume can have this size.
    #[error(
        "a volume cannot have {size_bytes} bytes: it must be whole pages of 4 KiB, at most {SIZE_BYTES_MAX} bytes"
    )]
    Size {
        /// The size, bytes.
        size_bytes: u64,
    },
}
