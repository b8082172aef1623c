//! An object store as the repository needs it: whole objects under keys, created once.
//!
//! The trait [`Objects`] is blocking; whatever is asynchronous stays inside this crate. Stores:
//!
//! * a folder ([`folder`]), the default: directly on the file system, because durability, errno
//!   and the sweeping of what a killed writer left are easiest to promise there;
//! * S3 and static HTTP through the crate `object_store` ([`remote`]), with our own timeouts,
//!   retries and the resolution of writes whose answer was lost;
//! * memory ([`memory`]), for tests, with a clock that the test moves.
//!
//! Decorators around the trait: [`Faults`] (scripted damage, for tests) and [`Counted`].
//!
//! Invariants
//! * **`put_new` is the only way in which anything that matters is written.** It creates, never
//!   overwrites, and when it returns the object is durable. [`probe()`] refuses stores that
//!   ignore the condition. (A repair puts a whole object in the place of a damaged one:
//!   [`Objects::replace`].)
//! * A reader sees an object whole or not at all.
//! * Nothing here knows what a pack, an index or a ref is.
//!
//! Crash: a folder's writer that dies leaves at most a file under `tmp/`, which
//! [`Objects::sweep`] removes; a store across the network has the object or has it not.

#![warn(missing_docs)]

mod counted;
mod error;
mod faults;
mod folder;
mod key;
mod location;
mod memory;
mod probe;
mod remote;
mod runtime;
mod whole;

use bytes::Bytes;
use std::sync::Arc;

pub use counted::{Counted, Counts};
pub use error::ObjectError;
pub use faults::{Faults, FlipEvery};
pub use folder::Folder;
pub use key::KEY_BYTES_MAX;
pub use location::{create, open, open_with};
pub use memory::Memory;
pub use probe::{ProbeError, clock_ahead_ms, probe};
pub use remote::{Patience, Remote};

/// The largest object that anyone may write or read whole, bytes.
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// [`Objects::list`] works (a static web server cannot).
    pub list: bool,
    /// Objects can be created and deleted.
    pub write: bool,
}

/// What a listing says about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When the store says that it was written, milliseconds since the Unix epoch by the
    /// *store's* clock; some stores round to a second.
    pub modified_unix_ms: u64,
}

/// A store of whole objects. Keys are `a-z 0-9 . _ -` in segments divided by `/`.
pub trait Objects: Send + Sync {
    /// Reads a whole object of at most `bytes_max` bytes.
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError>;

    /// Reads exactly `bytes` bytes from `offset`; [`ObjectError::Truncated`] when the object
    /// ends before.
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError>;

    /// Creates an object, durably, unless the key is taken ([`ObjectError::AlreadyExists`]).
    ///
    /// After [`ObjectError::Unavailable`] the object may or may not exist. When an answer was
    /// lost and the store is found to hold exactly these bytes, the write counts as ours: so
    /// whoever must tell two writers apart puts something unique into the bytes.
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError>;

    /// Writes an object whether or not the key is taken, not necessarily durably: for hints.
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError>;

    /// Puts an object in the place of one that is damaged, durably and whole or not at all. The only
    /// other way in which what matters is written: for repairs alone. (As here where `put` is
    /// durable.)
    fn replace(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.put(key, bytes)
    }

    /// All objects whose key begins with the folder `prefix` (`""` for all, or `a/b` meaning
    /// `a/b/...`), ordered by key.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError>;

    /// The names directly below the folder `prefix`, ordered: objects and folders alike.
    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let skip = if prefix.is_empty() { 0 } else { prefix.len() + 1 };
        let mut names: Vec<String> = self
            .list(prefix)?
            .into_iter()
            .filter_map(|object| object.key.get(skip..)?.split('/').next().map(str::to_owned))
            .collect();
        names.dedup();
        Ok(names)
    }

    /// What a listing says about one object, without listing.
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError>;

    /// Removes an object; an absent one is not an error.
    fn delete(&self, key: &str) -> Result<(), ObjectError>;

    /// What this store can do.
    fn features(&self) -> Features;

    /// Where it is, for messages; contains no secret.
    fn location(&self) -> String;

    /// The folder in which the objects are files, if they are: for what only a file system can
    /// do, such as keeping a key readable by its owner alone.
    fn folder(&self) -> Option<&std::path::Path> {
        None
    }

    /// What was read of this object was damaged: it is not to come from a copy that this program keeps
    /// the next time.
    fn forget(&self, key: &str) {
        let _ = key;
    }

    /// Bytes that were read beyond those that were asked for, or (below zero) that were asked for and
    /// not read: a server that serves whole objects only is read once for many parts.
    fn surplus_bytes(&self) -> i64 {
        0
    }

    /// Removes what writers that died left behind at least `age_ms` ago, by the store's clock.
    fn sweep(&self, age_ms: u64) -> Result<(), ObjectError> {
        let _ = age_ms;
        Ok(())
    }
}

impl<T: Objects + ?Sized> Objects for Arc<T> {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        (**self).get(key, bytes_max)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        (**self).get_range(key, offset, bytes)
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        (**self).put_new(key, bytes)
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        (**self).put(key, bytes)
    }
    fn replace(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        (**self).replace(key, bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        (**self).list(prefix)
    }
    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        (**self).list_names(prefix)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        (**self).head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        (**self).delete(key)
    }
    fn features(&self) -> Features {
        (**self).features()
    }
    fn location(&self) -> String {
        (**self).location()
    }
    fn folder(&self) -> Option<&std::path::Path> {
        (**self).folder()
    }
    fn forget(&self, key: &str) {
        (**self).forget(key);
    }
    fn surplus_bytes(&self) -> i64 {
        (**self).surplus_bytes()
    }
    fn sweep(&self, age_ms: u64) -> Result<(), ObjectError> {
        (**self).sweep(age_ms)
    }
}
