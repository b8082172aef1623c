//! Proves that a store honours create-if-absent before anything is trusted to it.
//!
//! Several S3 look-alikes accept the condition and ignore it. On such a store two hosts could
//! both advance a ref, and one's work would be lost without a word.

use bytes::Bytes;

use crate::{ObjectError, Objects};

/// Why a store is not one for a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A second create of the same key succeeded.
    #[error(
        "{location} ignores conditional puts: it let the same object be created twice, so two hosts could overwrite each other's work"
    )]
    IgnoresConditions {
        /// The store.
        location: String,
    },
    /// What was just written is not what comes back.
    #[error("{location} does not give back what was written to it")]
    Forgetful {
        /// The store.
        location: String,
    },
    /// The store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Creates a random object twice with different bytes; the second must fail, and the first's
/// bytes must remain. Removes it again. A store that cannot be written passes: nobody can lose
/// anything there.
pub fn probe(objects: &dyn Objects) -> Result<(), ProbeError> {
    if !objects.features().write {
        return Ok(());
    }
    let name: String = ambient::random::<16>().iter().map(|b| format!("{b:02x}")).collect();
    let key = format!("probe/{name}");
    let result = create_twice(objects, &key);
    // Whatever happened, leave nothing behind; a failure here matters less than the result.
    let _ = objects.delete(&key);
    result
}

fn create_twice(objects: &dyn Objects, key: &str) -> Result<(), ProbeError> {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    objects.put_new(key, first.clone())?;
    match objects.put_new(key, second) {
        Err(ObjectError::AlreadyExists { .. }) => {}
        Err(other) => return Err(other.into()),
        Ok(()) => return Err(ProbeError::IgnoresConditions { location: objects.location() }),
    }
    if objects.get(key, 64)? != first {
        return Err(ProbeError::Forgetful { location: objects.location() });
    }
    Ok(())
}

/// By how much the store's clock is ahead of ours, milliseconds (negative: behind): the time that it
/// notes for a new object, against the moments before and after. None for a store that cannot be
/// written.
pub fn clock_ahead_ms(objects: &dyn Objects) -> Result<Option<i64>, ObjectError> {
    if !objects.features().write {
        return Ok(None);
    }
    let name: String = ambient::random::<16>().iter().map(|b| format!("{b:02x}")).collect();
    let key = format!("probe/{name}");
    let before = ambient::unix_ms();
    let noted =
        objects.put_new(&key, Bytes::from_static(b"time")).and_then(|()| objects.head(&key));
    let after = ambient::unix_ms();
    let _ = objects.delete(&key);
    let noted = noted?.modified_unix_ms;
    let distance = |later: u64, earlier: u64| i64::try_from(later - earlier).unwrap_or(i64::MAX);
    Ok(Some(match noted {
        noted if noted > after => distance(noted, after),
        noted if noted < before => -distance(before, noted),
        _ => 0,
    }))
}
