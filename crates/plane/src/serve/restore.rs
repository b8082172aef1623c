//! A backup becomes a state.
//!
//! *On a crash* half-way the state says that it is one, and of which backup ([`MARK`]): no plane is served on
//! it, and that backup can be restored to its end. Each commit replaces the mark that the one before left, so
//! two who restore at once do not mix: one of them is refused.

use kv::{Kv, Outcome, Revision, Txn};

use super::ServeError;
use crate::backup::{self, BackupError};

/// It is there while a state is not whole, and has the hash of what it is made of.
const MARK: &str = "restoring";
/// Writes of one commit...
const TOGETHER_MAX: usize = 40;
/// ...and their bytes, beyond the first: etcd takes 1.5 MiB at once.
const TOGETHER_BYTES_MAX: usize = 512 * 1024;

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
    /// Half of it is of another backup.
    #[error("another backup was begun to be restored there")]
    Another,
    /// Somebody else restores there.
    #[error("somebody else restores there")]
    Contended,
}

/// Writes what a backup holds into an empty state; how many keys.
pub fn restore(state: impl Into<kv::Location>, file: &[u8]) -> Result<usize, RestoreError> {
    let entries = backup::read(file)?;
    let kv = kv::open(state)?;
    let mark = blake3::hash(file).to_hex().to_string();
    let there = kv.list("")?.entries;
    let mut revision = match there.iter().find(|entry| entry.key == MARK) {
        Some(begun) if begun.value != mark.as_bytes() => return Err(RestoreError::Another),
        Some(begun) => begun.revision,
        None if !there.is_empty() => return Err(RestoreError::NotEmpty),
        None => done(&*kv, &Txn::create(MARK, mark.as_str()))?,
    };
    ambient::step("restore: marked");
    for some in together(&entries) {
        let txn = Txn::replace(MARK, revision, mark.as_str());
        let txn = some.iter().fold(txn, |txn, (key, value)| txn.put(key, value.clone()));
        revision = done(&*kv, &txn)?;
        ambient::step("restore: some written");
    }
    done(&*kv, &Txn::remove(MARK, revision))?;
    Ok(entries.len())
}

fn done(kv: &dyn Kv, txn: &Txn) -> Result<Revision, RestoreError> {
    match kv.commit(txn)? {
        Outcome::Done(revision) => Ok(revision),
        Outcome::Refused => Err(RestoreError::Contended),
    }
}

/// Cuts entries into what one commit takes.
fn together(mut entries: &[(String, Vec<u8>)]) -> Vec<&[(String, Vec<u8>)]> {
    let mut parts = Vec::new();
    while !entries.is_empty() {
        let mut bytes = 0;
        let fits = |(key, value): &&(String, Vec<u8>)| {
            bytes += key.len() + value.len();
            bytes <= TOGETHER_BYTES_MAX
        };
        let count = entries.iter().take(TOGETHER_MAX).take_while(fits).count().max(1);
        let (part, rest) = entries.split_at(count);
        parts.push(part);
        entries = rest;
    }
    parts
}

/// Refuses a state that is not whole.
pub fn is_whole(kv: &dyn Kv) -> Result<(), ServeError> {
    match kv.get(MARK)? {
        None => Ok(()),
        Some(_) => Err(ServeError::Io {
            what: "the state was not restored to its end".to_owned(),
            source: std::io::Error::other("give `plane restore` again"),
        }),
    }
}
