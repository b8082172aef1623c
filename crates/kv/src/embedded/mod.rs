//! The store in one file, owned by one process.
//!
//! One thread writes. It takes what waits, up to [`TOGETHER_MAX`], and makes it durable with one
//! sync, so that many callers at once cost one disk flush and not many. Readers see the last durable
//! state and wait for nobody.
//!
//! *On a crash* the file is what the last sync left: redb writes beside what is there and then
//! turns one pointer. Leases that had not ended begin their time again.
//!
//! *Bounds.* [`QUEUE_MAX`] callers wait; the history for watches has [`tables::HISTORY_MAX`]
//! revisions.

mod tables;
mod writer;

use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageBackend};

use crate::watch::watch;
use crate::{
    Entry, Kv, KvError, LeaseId, Listing, Outcome, Result, Revision, Txn, Watch, check_key,
    check_ttl,
};
use tables::Place;
use writer::{Ask, Failure, Writer};

/// Commits that share one sync.
const TOGETHER_MAX: usize = 256;
/// Callers that may wait for the writer; more wait before the queue.
const QUEUE_MAX: usize = 1024;
/// Pages that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;
const FILE: &str = "state.redb";

/// See the module's documentation.
#[derive(Debug)]
pub struct Embedded {
    database: Arc<Database>,
    place: Place,
    asks: Option<SyncSender<Ask>>,
    writer: Option<JoinHandle<()>>,
    failure: Failure,
}

impl Embedded {
    /// Opens the store in `folder`, or begins one there.
    pub fn open(folder: &Path) -> Result<Self> {
        if folder.as_os_str().is_empty() {
            return Err(KvError::Invalid { detail: "a state without a folder".to_owned() });
        }
        let path = folder.join(FILE);
        let place = Place(path.display().to_string());
        fs::create_dir_all(folder).map_err(|error| place.io(&error))?;
        let database = builder().create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => KvError::InUse { location: place.0.clone() },
            error => place.broken(error),
        })?;
        // A file whose name is not durable is not there after a power cut.
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| place.io(&error))?;
        Self::start(database, place)
    }

    /// The store in something else than a file, for tests of what a power cut leaves.
    #[doc(hidden)]
    pub fn on(backend: impl StorageBackend) -> Result<Self> {
        let place = Place("memory".to_owned());
        let database =
            builder().create_with_backend(backend).map_err(|error| place.broken(error))?;
        Self::start(database, place)
    }

    fn start(database: Database, place: Place) -> Result<Self> {
        let database = Arc::new(database);
        let failure = Failure::default();
        let writer = Writer::begin(database.clone(), place.clone(), failure.clone())?;
        let (asks, queue) = sync_channel(QUEUE_MAX);
        let writer = ambient::spawn("kv-writer".to_owned(), move || writer.run(&queue))
            .map_err(|error| place.io(&error))?;
        Ok(Self { database, place, asks: Some(asks), writer: Some(writer), failure })
    }

    fn ask<T>(&self, ask: impl FnOnce(SyncSender<Result<T>>) -> Ask) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        let sent = self.asks.as_ref().is_some_and(|asks| asks.send(ask(reply)).is_ok());
        if sent && let Ok(result) = answer.recv() {
            return result;
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(failure.unwrap_or_else(|| self.place.broken("its writer has ended")))
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

impl Drop for Embedded {
    /// What was asked for is done before the file is let go.
    fn drop(&mut self) {
        self.asks = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Kv for Embedded {
    fn get(&self, key: &str) -> Result<Option<Entry>> {
        check_key(key)?;
        let read = self.database.begin_read().map_err(|error| self.place.broken(error))?;
        tables::get(&read, key, &self.place)
    }

    fn list(&self, prefix: &str) -> Result<Listing> {
        let read = self.database.begin_read().map_err(|error| self.place.broken(error))?;
        tables::list(&read, prefix, &self.place)
    }

    fn commit(&self, txn: &Txn) -> Result<Outcome> {
        txn.check()?;
        self.ask(|reply| Ask::Commit(txn.clone(), reply))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let (feed, watch) = watch(());
        self.ask(|reply| Ask::Watch { prefix: prefix.to_owned(), after, feed, reply })?;
        Ok(watch)
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        check_ttl(ttl)?;
        self.ask(|reply| Ask::Grant(ttl, reply))
    }

    fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Ask::KeepAlive(lease, reply))
    }

    fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Ask::Revoke(lease, reply))
    }
}
