//! Why a repository did not do what it was asked.

use chunk::header::HeaderError;
use chunk::{FetchError, SinkError};
use model::Generation;
use objects::{ObjectError, ProbeError};

use crate::wire::Malformed;

/// Why a repository did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// There is none at this place.
    #[error("there is no repository in {location}")]
    NotARepository {
        /// The store.
        location: String,
    },
    /// There is one already.
    #[error("there is a repository in {location} already")]
    ExistsAlready {
        /// The store.
        location: String,
    },
    /// It is private, and no key was given.
    #[error("the repository in {location} is private and needs its key")]
    NeedsKey {
        /// The store.
        location: String,
    },
    /// A key was given that is not its key.
    #[error("this is not the key of the repository in {location}")]
    WrongKey {
        /// The store.
        location: String,
    },
    /// The text or file is not an exported key.
    #[error("this is not a key: {detail}")]
    NotAKey {
        /// What is wrong with it; contains nothing of it.
        detail: String,
    },
    /// The store cannot be trusted with a repository.
    #[error(transparent)]
    Probe(ProbeError),
    /// An object is not what was written.
    #[error("{object} is damaged: {detail}")]
    Damaged {
        /// The object's key in the store.
        object: String,
        /// How it showed.
        detail: String,
    },
    /// An object was made by a newer program.
    #[error("{object}: {error}")]
    Header {
        /// The object's key in the store.
        object: String,
        /// What its header says.
        error: HeaderError,
    },
    /// The store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A chunk that was stored or reused by this session has been collected: the session took
    /// longer than the grace age without being able to say that it lives. Store again.
    #[error(
        "what this session relied on was collected meanwhile ({detail}): it was silent for longer than the grace age; store again"
    )]
    Stale {
        /// What is gone.
        detail: String,
    },
    /// Others kept writing the index before us.
    #[error("the index of {location} is too busy: {attempts} attempts to extend it failed")]
    Busy {
        /// The store.
        location: String,
        /// How often we tried.
        attempts: u32,
    },
    /// A file of the local directory cannot be used.
    #[error("{path}: {detail}")]
    Local {
        /// The file.
        path: String,
        /// What happened.
        detail: String,
    },
    /// An argument is out of its bounds.
    #[error("{what} is not allowed: {detail}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// Its bounds.
        detail: String,
    },
    /// A chunk could not be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A manifest could not be read.
    #[error("{0}")]
    Manifest(String),
}

impl RepositoryError {
    /// Whether the store only did not answer: then nothing is known to be wrong with what it holds.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Object(error) | Self::Probe(ProbeError::Object(error)) => error.is_transient(),
            Self::Fetch(error) => matches!(error, FetchError::Unavailable { .. }),
            _ => false,
        }
    }

    /// A manifest whose chunks cannot be had is not a bad manifest.
    pub(crate) fn of_manifest(error: manifest::ManifestError) -> Self {
        match error {
            manifest::ManifestError::Fetch(error) => error.into(),
            error => Self::Manifest(error.to_string()),
        }
    }

    pub(crate) fn damaged(object: &str, detail: impl ToString) -> Self {
        Self::Damaged { object: object.to_owned(), detail: detail.to_string() }
    }

    /// What a header that cannot be accepted means: damage, unless it is simply newer.
    pub(crate) fn header(object: &str, error: HeaderError) -> Self {
        match error {
            HeaderError::NewerVersion { .. }
            | HeaderError::UnknownIncompatible { .. }
            | HeaderError::UnknownReadOnly { .. } => {
                Self::Header { object: object.to_owned(), error }
            }
            other => Self::damaged(object, other),
        }
    }

    pub(crate) fn malformed(object: &str) -> impl Fn(Malformed) -> Self {
        move |error| Self::damaged(object, error)
    }

    /// As the error of a sink.
    pub(crate) fn into_sink(self) -> SinkError {
        let detail = self.to_string();
        match self {
            Self::Object(ObjectError::NoSpace { .. }) => SinkError::NoSpace { detail },
            Self::Object(ObjectError::ReadOnly { .. } | ObjectError::Denied { .. }) => {
                SinkError::Denied { detail }
            }
            _ => SinkError::Unavailable { detail },
        }
    }
}

/// Why a ref did not move or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// Someone else advanced it.
    #[error("{kind} {name} has moved on to generation {current}")]
    Fenced {
        /// Kind of the ref.
        kind: String,
        /// Its name.
        name: String,
        /// Where it is now.
        current: Generation,
    },
    /// Anything else.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<ObjectError> for RefError {
    fn from(error: ObjectError) -> Self {
        Self::Repository(error.into())
    }
}
