//! What can go wrong outside a request; a request's errors go to the client as an errno.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{name:?} cannot be the name of an exported file: {reason}")]
    BadName { name: String, reason: &'static str },
    #[error("{name:?} has {size_bytes} bytes, more than a file can have")]
    TooLarge { name: String, size_bytes: u64 },
    #[error("an export needs 1 to {max} files, not {count}")]
    BadCount { count: usize, max: usize },
    #[error("something is mounted on {} and answers", dir.display())]
    Mounted { dir: PathBuf },
    #[error("cannot mount files on {}: {source}", dir.display())]
    Mount { dir: PathBuf, source: io::Error },
    #[error("the mount on {} does not go away: {detail}", dir.display())]
    Unmount { dir: PathBuf, detail: String },
    #[error("this export has no file {name:?}")]
    NoSuchFile { name: String },
    #[error("{offset}+{len} is outside {name:?} or not page-aligned")]
    BadRange { name: String, offset: u64, len: u64 },
    #[error("cannot sync {name:?}: {source}")]
    Sync { name: String, source: io::Error },
    #[error("{count} writes to {name:?} are held because they cannot be stored")]
    WritesHeld { name: String, count: usize },
    #[error("cannot put bytes of {name:?} into the kernel's cache: {source}")]
    Cache { name: String, source: io::Error },
    #[error("the export is closed")]
    Closed,
}
