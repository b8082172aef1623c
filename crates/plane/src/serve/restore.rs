//! A backup becomes a state.
//!
//! *On a crash* half-way the state says that it is one ([`MARK`]), no plane is served on it, and it can be
//! restored again.

use kv::{Condition, Txn};

use super::ServeError;
use crate::backup::{self, BackupError};

/// It is there while a state is not whole.
const MARK: &str = "restoring";
/// Writes of one commit.
const TOGETHER_MAX: usize = 40;

/// Why a backup did not become a state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file.
    #[error("{0}")]
    Backup(#[from] BackupError),
    /// The state.
    #[error("{0}")]
    State(#[from] kv::KvError),
    /// There is something in it already.
    #[error("the state is not empty")]
    NotEmpty,
}

/// Writes what a backup holds into an empty state; how many keys.
pub fn restore(state: impl Into<kv::Location>, file: &[u8]) -> Result<usize, RestoreError> {
    let entries = backup::read(file)?;
    let kv = kv::open(state)?;
    let there = kv.list("")?.entries;
    let begun = there.iter().any(|entry| entry.key == MARK);
    if !there.is_empty() && !begun {
        return Err(RestoreError::NotEmpty);
    }
    if !begun {
        let txn = Txn::new().when(MARK, Condition::Absent).put(MARK, "");
        if !kv.commit(&txn)?.is_done() {
            return Err(RestoreError::NotEmpty);
        }
    }
    for some in entries.chunks(TOGETHER_MAX) {
        let txn = some.iter().fold(Txn::new(), |txn, (key, value)| txn.put(key, value.clone()));
        kv.commit(&txn)?;
    }
    kv.commit(&Txn::new().delete(MARK))?;
    Ok(entries.len())
}

/// Refuses a state that is not whole.
pub fn is_whole(kv: &dyn kv::Kv) -> Result<(), ServeError> {
    match kv.get(MARK)? {
        None => Ok(()),
        Some(_) => Err(ServeError::Io {
            what: "the state was not restored to its end".to_owned(),
            source: std::io::Error::other("give `plane restore` again"),
        }),
    }
}
