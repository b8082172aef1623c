//! The tables of the file, and how they are read.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `entries` | key | revision, lease (0: none), value |
//! | `history` | revision, number in it | key, lease, value; none: deleted |
//! | `leases` | lease | ttl in ms |
//! | `leased` | lease, key | |
//! | `meta` | `format`, `revision`, `forgotten` | a number |

use std::io;

use redb::{
    ReadTransaction, ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction,
};

use crate::{Batch, Change, Entry, KvError, LeaseId, Listing, Result, Revision};

pub const ENTRIES: TableDefinition<&str, (u64, u64, &[u8])> = TableDefinition::new("entries");
pub const HISTORY: TableDefinition<(u64, u32), Happened<'static>> = TableDefinition::new("history");
pub const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
pub const LEASED: TableDefinition<(u64, &str), ()> = TableDefinition::new("leased");
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// A key, its lease and its value; without one it was deleted.
pub type Happened<'v> = (&'v str, u64, Option<&'v [u8]>);

/// Revisions that a watch can begin behind.
pub const HISTORY_MAX: u64 = 10_000;
/// What this program writes.
pub const FORMAT: u64 = 1;

/// The file, for messages.
#[derive(Debug, Clone)]
pub struct Place(pub String);

impl Place {
    pub fn broken(&self, error: impl std::fmt::Display) -> KvError {
        KvError::Broken { location: self.0.clone(), detail: error.to_string() }
    }

    pub fn unknown(&self, error: impl std::fmt::Display) -> KvError {
        KvError::Unknown { location: self.0.clone(), detail: error.to_string() }
    }

    pub fn io(&self, error: &io::Error) -> KvError {
        let (location, detail) = (self.0.clone(), error.to_string());
        match error.kind() {
            io::ErrorKind::StorageFull => KvError::NoSpace { location, detail },
            io::ErrorKind::PermissionDenied => KvError::Denied { location, detail },
            _ => KvError::Broken { location, detail },
        }
    }

    pub fn storage(&self, error: StorageError) -> KvError {
        match error {
            StorageError::Io(error) => self.io(&error),
            error => self.broken(error),
        }
    }

    pub fn table(&self, error: TableError) -> KvError {
        match error {
            TableError::Storage(error) => self.storage(error),
            error => self.broken(error),
        }
    }
}

/// Makes what is missing, and looks whether this program may write here.
pub fn prepare(write: &WriteTransaction, place: &Place) -> Result<()> {
    let mut meta = write.open_table(META).map_err(|e| place.table(e))?;
    let found = meta.get("format").map_err(|e| place.storage(e))?.map(|v| v.value());
    match found {
        None => {
            meta.insert("format", FORMAT).map_err(|e| place.storage(e))?;
        }
        Some(found) if found > FORMAT => {
            return Err(KvError::Newer { location: place.0.clone(), found, known: FORMAT });
        }
        Some(_) => {}
    }
    write.open_table(ENTRIES).map_err(|e| place.table(e))?;
    write.open_table(HISTORY).map_err(|e| place.table(e))?;
    write.open_table(LEASES).map_err(|e| place.table(e))?;
    write.open_table(LEASED).map_err(|e| place.table(e))?;
    Ok(())
}

pub fn entry(key: &str, (revision, lease, value): (u64, u64, &[u8])) -> Entry {
    let lease = (lease != 0).then_some(LeaseId(lease));
    Entry { key: key.to_owned(), value: value.to_vec(), revision: Revision(revision), lease }
}

pub fn get(read: &ReadTransaction, key: &str, place: &Place) -> Result<Option<Entry>> {
    let entries = read.open_table(ENTRIES).map_err(|e| place.table(e))?;
    let found = entries.get(key).map_err(|e| place.storage(e))?;
    Ok(found.map(|found| entry(key, found.value())))
}

pub fn list(read: &ReadTransaction, prefix: &str, place: &Place) -> Result<Listing> {
    let meta = read.open_table(META).map_err(|e| place.table(e))?;
    let revision = meta.get("revision").map_err(|e| place.storage(e))?;
    let revision = Revision(revision.map_or(0, |v| v.value()));
    let table = read.open_table(ENTRIES).map_err(|e| place.table(e))?;
    let mut entries = Vec::new();
    for found in table.range(prefix..).map_err(|e| place.storage(e))? {
        let (key, value) = found.map_err(|e| place.storage(e))?;
        if !key.value().starts_with(prefix) {
            break;
        }
        entries.push(entry(key.value(), value.value()));
    }
    Ok(Listing { revision, entries })
}

/// What happened after `after`, below `prefix`.
pub fn history(
    read: &ReadTransaction,
    prefix: &str,
    after: Revision,
    place: &Place,
) -> Result<Vec<Batch>> {
    let meta = read.open_table(META).map_err(|e| place.table(e))?;
    let forgotten = meta.get("forgotten").map_err(|e| place.storage(e))?.map_or(0, |v| v.value());
    if after.0 < forgotten {
        let detail = format!("what followed revision {} is no longer known", after.0);
        return Err(KvError::WatchEnded { detail });
    }
    let table = read.open_table(HISTORY).map_err(|e| place.table(e))?;
    let mut batches: Vec<Batch> = Vec::new();
    for found in table.range((after.0 + 1, 0)..).map_err(|e| place.storage(e))? {
        let (at, change) = found.map_err(|e| place.storage(e))?;
        let (revision, _) = at.value();
        let (key, lease, value) = change.value();
        if !key.starts_with(prefix) {
            continue;
        }
        let change = match value {
            Some(value) => Change::Put(entry(key, (revision, lease, value))),
            None => Change::Deleted { key: key.to_owned() },
        };
        match batches.last_mut() {
            Some(batch) if batch.revision.0 == revision => batch.changes.push(change),
            _ => batches.push(Batch { revision: Revision(revision), changes: vec![change] }),
        }
    }
    Ok(batches)
}
