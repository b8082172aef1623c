//! What can go wrong.

use std::io;

pub type Result<T> = std::result::Result<T, FilesError>;

/// Paths are those in the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    #[error("there is no {path}")]
    NotFound { path: String },
    #[error("{path} is not a {wanted}")]
    WrongKind { path: String, wanted: &'static str },
    /// No file system that this program reads.
    #[error("no file system that can be read here: {detail}")]
    Unknown { detail: String },
    /// The file system is not one that its own rules allow.
    #[error("the file system is damaged, or has what is not known here: {detail}")]
    Damaged { detail: String },
    /// The disk's bytes could not be had.
    #[error("the disk cannot be read: {detail}")]
    Disk { detail: String },
    /// A file outside, on the way of a copy.
    #[error("{path}: {error}")]
    Outside { path: String, error: io::Error },
    /// It is there already and was not to be replaced.
    #[error("{path} exists")]
    Exists { path: String },
}
