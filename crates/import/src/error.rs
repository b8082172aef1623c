//! Why a foreign file is not taken, each with the next step.

use std::io;

/// What is wrong with a foreign file, or with what was asked about it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No magic of a known format is in it.
    #[error("its format is not recognised{}", because(.looks_like))]
    Unrecognised {
        /// What it seems to be instead; may be empty.
        looks_like: &'static str,
    },
    /// It carries the magic of several formats.
    #[error("it could be any of {formats}: a file like that is made to be misread")]
    Ambiguous {
        /// Their names.
        formats: String,
    },
    /// It is not what its format says it must be.
    #[error("not a whole {what}: {detail}")]
    Malformed {
        /// The format.
        what: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// It leads to other files, or tries to.
    #[error("{what} {detail}")]
    Unsafe {
        /// What does.
        what: String,
        /// Where it leads.
        detail: String,
        /// The next step.
        hint: &'static str,
    },
    /// It is whole, and nothing that we can run.
    #[error("{what} is not supported")]
    Unsupported {
        /// The feature.
        what: String,
        /// The next step.
        hint: &'static str,
    },
    /// A number in it is beyond what we take.
    #[error("{what}: {found} is more than {max}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// What it says.
        found: String,
        /// The bound.
        max: String,
    },
    /// A member does not have the digest that its manifest file gives.
    #[error("{member} does not have the {algorithm} digest that the manifest file gives")]
    Digest {
        /// The member.
        member: String,
        /// sha1, sha256 or sha512.
        algorithm: &'static str,
    },
    /// A form was not filled in as it asks.
    #[error("{what}\n{form}")]
    Form {
        /// What is wrong.
        what: String,
        /// Every field of it, one a line.
        form: String,
    },
    /// Configuration for cloud-init that cloud-init would not read.
    #[error("{document}{}: {detail}", at(.place))]
    Configuration {
        /// `user-data`, `network-config` ...
        document: &'static str,
        /// Line and column from 1, where known.
        place: Option<(u64, u64)>,
        /// What is wrong.
        detail: String,
        /// The next step.
        hint: &'static str,
    },
    /// The operating system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Its error.
        source: io::Error,
    },
}

/// The result of everything in this crate.
pub type Result<T, E = ImportError> = std::result::Result<T, E>;

impl ImportError {
    /// The next step.
    pub fn hint(&self) -> String {
        match self {
            Self::Unrecognised { .. } => {
                "if it is the bare content of a disk, say so: --format raw".to_owned()
            }
            Self::Ambiguous { .. } => "if you trust it, say which: --format".to_owned(),
            Self::Malformed { .. } => {
                "get the file again, or name its real format with --format".to_owned()
            }
            Self::Unsafe { hint, .. }
            | Self::Unsupported { hint, .. }
            | Self::Configuration { hint, .. } => (*hint).to_owned(),
            Self::TooLarge { .. } => "nothing that large is taken".to_owned(),
            Self::Digest { .. } => "it was changed or damaged on its way: get it again".to_owned(),
            Self::Form { .. } => {
                "give each as --property KEY=VALUE, a secret as --property-file KEY=FILE".to_owned()
            }
            Self::Io { .. } => String::new(),
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn malformed(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { what, detail: detail.into() }
    }
}

fn because(looks_like: &str) -> String {
    if looks_like.is_empty() { String::new() } else { format!(" ({looks_like})") }
}

fn at(place: &Option<(u64, u64)>) -> String {
    place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"))
}
