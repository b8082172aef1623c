//! What can go wrong with a volume, named so that a person can act on it.

use std::io;

use chunk::{FetchError, SinkError};
use manifest::ManifestError;

/// Why an act on a volume failed. Every error that concerns a page names volume and page.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A page could not be had from the repository. Trying again may help.
    #[error("volume {volume}, page {page}: {error}")]
    Fetch {
        /// The volume's name.
        volume: String,
        /// The page that was wanted.
        page: u64,
        /// What the source said.
        error: FetchError,
    },
    /// The index of the volume's base could not be read. Trying again may help.
    #[error("volume {volume}, index of page {page}: {error}")]
    Index {
        /// The volume's name.
        volume: String,
        /// The first page that was wanted.
        page: u64,
        /// What the manifest said.
        error: ManifestError,
    },
    /// The only copy of a page, on this host, is not what was written.
    #[error("volume {volume}, page {page}: this host's copy is damaged ({detail})")]
    DamagedPage {
        /// The volume's name.
        volume: String,
        /// The damaged page.
        page: u64,
        /// Which slot of which file.
        detail: String,
    },
    /// A file of the volume is not what was written.
    #[error("volume {volume}, file {file}: damaged at byte {offset}: {detail}")]
    DamagedFile {
        /// The volume's name.
        volume: String,
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// A file was written by a newer version of Collective.
    #[error("volume {volume}, file {file}: needs a newer version of collective ({detail})")]
    Newer {
        /// The volume's name.
        volume: String,
        /// The file.
        file: String,
        /// Version or features that are not known here.
        detail: String,
    },
    /// This host's disk is full.
    #[error("volume {volume}: no space left on this host while {doing}")]
    NoSpace {
        /// The volume's name.
        volume: String,
        /// The act.
        doing: String,
    },
    /// The host's file system failed.
    #[error("volume {volume}: {doing}: {error}")]
    Io {
        /// The volume's name.
        volume: String,
        /// The act.
        doing: String,
        /// What the file system said.
        error: io::Error,
    },
    /// Another process has this volume open.
    #[error("{dir}: another process has this volume open")]
    InUse {
        /// The volume's directory.
        dir: String,
    },
    /// There is no volume in this directory.
    #[error("{dir}: no volume here")]
    NotFound {
        /// The directory.
        dir: String,
    },
    /// There is already a volume in this directory.
    #[error("{dir}: there is a volume here already")]
    Exists {
        /// The directory.
        dir: String,
    },
    /// A volume's size must be a positive number of whole pages, and not below its base's.
    #[error("volume {volume}: {size_bytes} bytes is not a usable size: {detail}")]
    BadSize {
        /// The volume's name.
        volume: String,
        /// The size that was asked for.
        size_bytes: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// An access beyond the end.
    #[error("volume {volume}: {len} bytes at {offset} reach beyond its {size_bytes} bytes")]
    OutOfRange {
        /// The volume's name.
        volume: String,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// The volume's size.
        size_bytes: u64,
    },
    /// Sealing could not store what was written. Nothing is lost; seal again.
    #[error("volume {volume}: sealing: {error}")]
    Seal {
        /// The volume's name.
        volume: String,
        /// What the store said.
        error: SinkError,
    },
    /// Sealing could not build the new index. Nothing is lost; seal again.
    #[error("volume {volume}: sealing: {error}")]
    SealIndex {
        /// The volume's name.
        volume: String,
        /// What the manifest said.
        error: ManifestError,
    },
    /// More overlays than a volume may have: seals keep failing and freezes go on.
    #[error("volume {volume}: {count} overlays wait to be sealed; seal them first")]
    TooManyOverlays {
        /// The volume's name.
        volume: String,
        /// How many there are.
        count: usize,
    },
    /// What is to be adopted was sealed from another state of the volume.
    #[error("volume {volume}: what was sealed is not what is frozen now; seal again")]
    StaleSeal {
        /// The volume's name.
        volume: String,
    },
    /// The volume was told to stop waiting.
    #[error("volume {volume}: cancelled")]
    Cancelled {
        /// The volume's name.
        volume: String,
    },
}

impl VolumeError {
    pub(crate) fn io(volume: &str, doing: impl Into<String>, error: io::Error) -> Self {
        let (volume, doing) = (volume.to_owned(), doing.into());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { volume, doing }
            }
            _ => Self::Io { volume, doing, error },
        }
    }

    /// The page that is concerned, where one is.
    pub fn page(&self) -> Option<u64> {
        match self {
            Self::Fetch { page, .. }
            | Self::Index { page, .. }
            | Self::DamagedPage { page, .. } => Some(*page),
            _ => None,
        }
    }

    /// Whether waiting cannot help: the caller asked for what cannot be, or has cancelled.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::OutOfRange { .. } | Self::Cancelled { .. })
    }

    /// Whether the same act may succeed later without anything being repaired.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. }
                | Self::Index { .. }
                | Self::NoSpace { .. }
                | Self::Seal { .. }
                | Self::SealIndex { .. }
        )
    }
}

/// The result of an act on a volume.
pub type Result<T, E = VolumeError> = std::result::Result<T, E>;
