//! A repository: chunks in packs, an index to find them, and refs that make them visible, in
//! any [`objects::Objects`].
//!
//! Bytes, ordering rules and threat model: `docs/format/repository.md`.
//!
//! Invariants
//! * **A ref is the only thing that makes anything visible**, and it is created only after all
//!   that it names is durable: packs, then the index object that lists them, then the ref.
//! * Nothing is ever overwritten, except hints, which are never trusted, and damaged objects by
//!   whole ones of a copy of the same repository ([`repair()`]). Chunks from elsewhere go into new
//!   packs ([`Repository::mend`]).
//! * Whatever is read is authenticated (in a private repository) and verified against its id
//!   before anyone sees it.
//! * A pack is deleted only after the log said that it will be, for at least the grace age, and
//!   nobody objected.
//!
//! This crate does not know what an appliance, an instance or a checkpoint is.
//!
//! Crash: at any point the store holds the old state or the new one; what a dead writer left is
//! garbage that [`Repository::gc`] collects.

#![warn(missing_docs)]

mod check;
mod config;
mod copy;
mod error;
mod free;
#[doc(hidden)]
pub mod fuzz;
mod gc;
#[cfg(test)]
mod golden;
mod hold;
#[cfg(test)]
mod hostile;
mod index;
mod key;
mod layout;
mod log;
mod mend;
mod open;
mod pack;
mod pack_ciphers;
mod probe;
mod read;
mod record;
mod refresh;
mod refs;
mod repair;
mod sessions;
mod stats;
mod walk;
mod wire;
mod write;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chunk::ChunkSource;
use chunk::crypt::{Cipher, MasterKey};
use chunk::frame::Effort;
use objects::Objects;

pub use check::{CheckProgress, CheckReport, Problem};
pub use copy::{Copied, CopyHints, copy};
pub use error::{RefError, RepositoryError};
pub use gc::{GcOptions, GcStats};
pub use key::{KeyPlace, export_key, import_key, new_key};
pub use mend::{Helper, MendReport, Mended};
pub use open::{GRACE_MS, Init, Open};
pub use record::{
    Child, PARENT, PIECE_BYTES, Pieces, Record, Target, read_blob, read_pieces, read_record,
    write_blob, write_record,
};
pub use refs::{RefEntry, RefPayload, RefValue, Refs};
pub use repair::{RepairReport, repair};
pub use stats::Stats;
pub use write::{PackWriter, StoreStats};

/// An open repository. Cloning shares it.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn Objects>,
    config: config::Config,
    cipher: Cipher,
    key: Option<MasterKey>,
    /// Where chunks may be had that are missing or damaged here.
    sources: Vec<Arc<dyn ChunkSource>>,
    index: RwLock<index::Index>,
    refreshing: Mutex<()>,
    /// Numbers refreshes as they begin.
    refreshes_begun: AtomicU64,
    /// The number of the latest refresh that succeeded.
    refresh_succeeded: AtomicU64,
    pack_ciphers: pack_ciphers::PackCiphers,
    sessions: sessions::Sessions,
    /// Advances of refs of which it is not known whether they happened.
    unsure: Mutex<refs::Unsure>,
    /// What was read since then may be relied on for half the grace age.
    opened: ambient::Instant,
    /// Why nothing can be stored in it, where that is so.
    not_writable: Option<RepositoryError>,
}

impl Repository {
    /// Where it is, for messages.
    pub fn location(&self) -> String {
        self.inner.objects.location()
    }

    /// Its random id: the same from every host.
    pub fn id(&self) -> [u8; 16] {
        self.inner.config.repository.0
    }

    /// Whether it is encrypted.
    pub fn is_private(&self) -> bool {
        self.inner.key.is_some()
    }

    /// Whether anything can be stored in it.
    pub fn is_writable(&self) -> bool {
        self.inner.not_writable.is_none()
    }

    /// The key that opened it, for export; none for a public repository.
    pub fn key(&self) -> Option<&MasterKey> {
        self.inner.key.as_ref()
    }

    /// How long something must be unreferenced before it can be deleted, milliseconds.
    pub fn grace_ms(&self) -> u64 {
        self.inner.config.grace_ms
    }

    /// Whether something in it is on its way out: a collection after the grace age deletes it.
    pub fn has_condemned(&self) -> bool {
        let index = self.index();
        let condemned = index.packs.values().any(|info| info.condemned_at != 0);
        condemned || !index.condemned_orphans.is_empty()
    }

    /// Its refs.
    pub fn refs(&self) -> Refs<'_> {
        Refs::new(self)
    }

    /// A session that stores chunks while somebody waits for it.
    pub fn writer(&self) -> Result<PackWriter, RepositoryError> {
        PackWriter::new(self, Effort::QUICK)
    }

    /// A session that takes its time to store chunks in fewer bytes: for what many will fetch.
    pub fn thorough_writer(&self) -> Result<PackWriter, RepositoryError> {
        PackWriter::new(self, Effort::THOROUGH)
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, index::Index> {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, index::Index> {
        self.inner.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.location())
    }
}
