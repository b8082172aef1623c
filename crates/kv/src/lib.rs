//! A small key-value store with revisions: what the plane keeps its state in.
//!
//! ```text
//! get, list ──▶ entries, each with the revision of its last change
//! commit    ──▶ several writes at once, if several conditions hold; refused otherwise
//! watch     ──▶ every change below a prefix after a revision, in order, none twice
//! grant     ──▶ a lease; keys that hang on it go when nobody keeps it alive
//! ```
//!
//! Two implementations, one set of promises, one suite that both pass (`tests/conformance.rs`):
//! [`Embedded`], a file that one process owns, and [`Etcd`], any number of processes on a cluster.
//!
//! **Invariant:** what a commit was `Done` for survives any crash of this process.
//! **Invariant:** a commit happens at most once, all of it or none, however often it was sent.
//! `Refused` means that it never happened; when that cannot be known the error is `Unknown`.
//! **Invariant:** revisions only grow; a key's revision changes exactly when the key does.
//! **Invariant:** a watch leaves nothing out. One that would have to ends, and its reader lists again.
//! **Invariant:** knows nothing of what is kept: keys are text, values are bytes.
//!
//! Calls block, and may be made from any thread that is not a task of an async runtime.

mod embedded;
mod error;
mod etcd;
#[doc(hidden)]
pub mod fuzz;
mod open;
mod txn;
mod watch;

use std::fmt::Debug;
use std::time::Duration;

pub use embedded::Embedded;
pub use error::KvError;
pub use etcd::{Etcd, Tls};
pub use open::{Location, open};
pub use txn::{Condition, Outcome, Txn, Write};
pub use watch::{Batch, Change, Watch};

/// What went wrong, or the result.
pub type Result<T> = std::result::Result<T, KvError>;

/// Bytes in a key.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes in a value: etcd refuses requests above 1.5 MiB.
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Writes and conditions of one commit, each: etcd refuses more than 128 of both.
pub const TXN_OPERATIONS_MAX: usize = 60;
/// What a lease may last without being kept alive. etcd grants none that is shorter.
pub const LEASE_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(86_400);

/// The number of one change of the store; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// Names a lease for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A key and what is under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// Its last change.
    pub revision: Revision,
    /// The lease that it goes with.
    pub lease: Option<LeaseId>,
}

/// All that lay below a prefix at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// That moment: a watch from here misses nothing.
    pub revision: Revision,
    /// In the order of their keys.
    pub entries: Vec<Entry>,
}

/// See the crate's documentation.
pub trait Kv: Debug + Send + Sync {
    /// One key, as of now.
    fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// All keys that begin with `prefix`, as of one moment.
    fn list(&self, prefix: &str) -> Result<Listing>;

    /// Writes, if every condition holds.
    fn commit(&self, txn: &Txn) -> Result<Outcome>;

    /// The changes below `prefix` after `after`.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch>;

    /// A lease that lasts `ttl` (see [`LEASE_TTL`]) from now, and from each time that it is kept
    /// alive. It may last longer, when the store itself was away; never less.
    fn grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Begins a lease's time again; `LeaseGone` when it was over.
    fn keep_alive(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease now, with all keys that hang on it.
    fn revoke(&self, lease: LeaseId) -> Result<()>;
}

fn check_key(key: &str) -> Result<()> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(KvError::Invalid { detail: format!("a key of {bytes} bytes") }),
    }
}

fn check_ttl(ttl: Duration) -> Result<()> {
    if LEASE_TTL.contains(&ttl) {
        return Ok(());
    }
    Err(KvError::Invalid { detail: format!("a lease of {} ms", ttl.as_millis()) })
}
