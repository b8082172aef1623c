//! What goes wrong between a maker and who believes it.

use std::io;

use tough::error::Error as E;

/// Why something is not believed, or could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The maker's store does not answer.
    #[error("{location} cannot be reached: {detail}")]
    Away {
        /// Where.
        location: String,
        /// What it said.
        detail: String,
    },
    /// There is nothing signed.
    #[error("nothing at {location} is signed by a maker")]
    NotSigned {
        /// Where.
        location: String,
    },
    /// No root has the fingerprint that was asked for.
    #[error("the root keys at {location} are not those: their fingerprint is {found}")]
    OtherRoot {
        /// Where.
        location: String,
        /// The fingerprint of the newest root there.
        found: String,
    },
    /// A signature is missing or wrong.
    #[error("not signed as its root says: {detail}")]
    Forged {
        /// What exactly.
        detail: String,
    },
    /// Something older than what was believed before.
    #[error("older than what this host has seen: {detail}")]
    Rollback {
        /// What exactly.
        detail: String,
    },
    /// Parts that do not belong together, or bytes that are not those that were signed.
    #[error("not what was signed: {detail}")]
    Mixed {
        /// What exactly.
        detail: String,
    },
    /// Nobody has signed it again for too long.
    #[error("the maker's {role} is no longer valid: it had to be signed again before {expired}")]
    Expired {
        /// Of the four roles, which.
        role: String,
        /// When its validity ended.
        expired: String,
    },
    /// This host's clock was later before than it is now.
    #[error("this host's clock says {now}, and it said {before} before")]
    Clock {
        /// Now.
        now: String,
        /// The latest that it ever said.
        before: String,
    },
    /// A document that nobody signed.
    #[error("{name} is not among what the maker signed")]
    NoDocument {
        /// Its name.
        name: String,
    },
    /// What this host believed last cannot be read any more. It is not taken for nothing: nobody could
    /// be found out then who shows something older.
    #[error("{file}, which says what was believed last, is damaged: {detail}")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Keys do not fit.
    #[error("{detail}")]
    Key {
        /// What is wrong with them.
        detail: String,
    },
    /// A passphrase is wrong or missing.
    #[error("the key {file} needs its passphrase")]
    Passphrase {
        /// The key's file.
        file: String,
    },
    /// Another publisher was quicker.
    #[error("somebody else publishes to {location}")]
    Conflict {
        /// Where.
        location: String,
    },
    /// Metadata that cannot be read.
    #[error("the maker's metadata cannot be read: {detail}")]
    Format {
        /// What exactly.
        detail: String,
    },
    /// The maker's store.
    #[error(transparent)]
    Objects(#[from] objects::ObjectError),
    /// This host's files.
    #[error("{what}: {error}")]
    Io {
        /// Which file, or what for.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

impl TrustError {
    /// Something about a file of this host.
    pub(crate) fn io<W: std::fmt::Display>(what: W) -> impl FnOnce(io::Error) -> Self + use<W> {
        let what = what.to_string();
        move |error| Self::Io { what, error }
    }

    /// What a store says when an object is read that has to be there.
    pub(crate) fn read(error: objects::ObjectError, location: &str) -> Self {
        use objects::ObjectError as O;
        let detail = error.to_string();
        match error {
            O::NotFound { .. } | O::TooLarge { .. } | O::Truncated { .. } => Self::Mixed { detail },
            O::Unavailable { .. } => Self::Away { location: location.to_owned(), detail },
            other => Self::Objects(other),
        }
    }

    /// What `tough` says, as one of our kinds.
    pub(crate) fn of(error: E, location: &str) -> Self {
        let detail = chain(&error);
        match &error {
            E::Transport { source, .. }
                if source.kind() == tough::TransportErrorKind::FileNotFound =>
            {
                Self::Mixed { detail }
            }
            E::Transport { source, .. } => {
                // What the stream found out while it was read: bytes that are not the signed ones.
                let mixed =
                    ["size of", "Hash mismatch", "hash mismatch", "exceeded", "is larger than"];
                let text = chain(source);
                if mixed.iter().any(|word| text.contains(word)) {
                    Self::Mixed { detail: text }
                } else {
                    Self::Away { location: location.to_owned(), detail: text }
                }
            }
            E::ExpiredMetadata { role, .. } => {
                Self::Expired { role: role.to_string(), expired: String::new() }
            }
            E::OlderMetadata { .. }
            | E::OlderSnapshotInTimestamp { .. }
            | E::SnapshotRoleMissing { .. }
            | E::SnapshotRoleRollback { .. } => Self::Rollback { detail },
            E::VerifyMetadata { .. }
            | E::VerifyRoleMetadata { .. }
            | E::VerifyTrustedMetadata { .. }
            | E::InvalidPath { .. }
            | E::UnstableRoot { .. } => Self::Forged { detail },
            E::VersionMismatch { .. }
            | E::HashMismatch { .. }
            | E::MaxSizeExceeded { .. }
            | E::MetaMissing { .. } => Self::Mixed { detail },
            E::SystemTimeSteppedBackward { sys_time, latest_known_time, .. } => {
                Self::Clock { now: sys_time.to_string(), before: latest_known_time.to_string() }
            }
            E::KeyPairFromKeySource { .. }
            | E::KeyRejected { .. }
            | E::SignMessage { .. }
            | E::SigningKeysNotFound { .. }
            | E::KeysNotFoundInRoot { .. } => Self::Key { detail },
            _ => Self::Format { detail },
        }
    }
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}
