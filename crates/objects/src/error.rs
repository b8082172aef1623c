//! Why a store did not do what it was asked.

use std::io;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// No object has this key.
    #[error("{key} is not in the store")]
    NotFound {
        /// The object.
        key: String,
    },
    /// The folder that is to be the store is not there.
    #[error("there is no folder {location}")]
    NoFolder {
        /// The store.
        location: String,
    },
    /// The key is taken: someone created it first.
    #[error("{key} exists already")]
    AlreadyExists {
        /// The object.
        key: String,
    },
    /// The object ends before the range that was asked for.
    #[error("{key} is truncated: {wanted} bytes wanted, it ends at {found}")]
    Truncated {
        /// The object.
        key: String,
        /// Where the range ends that was asked for, bytes.
        wanted: u64,
        /// Where the object ends as far as is known, bytes.
        found: u64,
    },
    /// The object is larger than anything that this program writes.
    #[error("{key} is larger than {bytes_max} bytes")]
    TooLarge {
        /// The object.
        key: String,
        /// The bound, bytes.
        bytes_max: u64,
    },
    /// The store is full.
    #[error("no space left in {location}: {detail}")]
    NoSpace {
        /// The store.
        location: String,
        /// What it said.
        detail: String,
    },
    /// The store cannot be written.
    #[error("{location} is read-only")]
    ReadOnly {
        /// The store.
        location: String,
    },
    /// The store refused us.
    #[error("{location} denies access to {key}: {detail}")]
    Denied {
        /// The store.
        location: String,
        /// The object.
        key: String,
        /// What it said.
        detail: String,
    },
    /// The store did not answer, or answered that it cannot now. Trying later may help.
    #[error("{location} is not available: {detail}")]
    Unavailable {
        /// The store.
        location: String,
        /// What happened.
        detail: String,
    },
    /// The store cannot do this at all (listing a static web server).
    #[error("{location} cannot {operation}")]
    Unsupported {
        /// The store.
        location: String,
        /// What was asked.
        operation: String,
    },
    /// The key or location is not one.
    #[error("{text:?} is not {expected}")]
    Invalid {
        /// What was given.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
}

impl ObjectError {
    /// Whether the same request may succeed later without anyone mending anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// What an I/O error of a folder means.
    pub(crate) fn from_io(location: &str, key: &str, error: &io::Error) -> Self {
        let location = location.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound { key: key.to_owned() },
            io::ErrorKind::AlreadyExists => Self::AlreadyExists { key: key.to_owned() },
            io::ErrorKind::PermissionDenied => {
                Self::Denied { location, key: key.to_owned(), detail: error.to_string() }
            }
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace { location, detail: error.to_string() },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { location },
            _ => Self::Unavailable { location, detail: format!("{key}: {error}") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_keeps_its_meaning() {
        // ENOSPC, EDQUOT, EROFS, EACCES, EIO, ESTALE.
        let of = |errno| ObjectError::from_io("r", "k", &io::Error::from_raw_os_error(errno));
        assert!(matches!(of(28), ObjectError::NoSpace { .. }));
        assert!(matches!(of(122), ObjectError::NoSpace { .. }));
        assert!(matches!(of(30), ObjectError::ReadOnly { .. }));
        assert!(matches!(of(13), ObjectError::Denied { .. }));
        assert!(of(5).is_transient());
        assert!(of(116).is_transient());
    }
}
