//! A decorator that counts requests and bytes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::{Features, ObjectError, ObjectMeta, Objects};

/// What went through a [`Counted`] store so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that read an object or part of one.
    pub reads: u64,
    /// Bytes that they returned; of a server that serves whole objects only, those that it sent.
    pub read_bytes: u64,
    /// Requests that wrote an object.
    pub writes: u64,
    /// Bytes that they wrote, counting only those that succeeded.
    pub written_bytes: u64,
    /// Listings, heads and deletions.
    pub others: u64,
}

/// Counts what goes through it.
#[derive(Debug)]
pub struct Counted<T> {
    inner: T,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    others: AtomicU64,
}

impl<T: Objects> Counted<T> {
    /// Starts counting at zero.
    pub fn new(inner: T) -> Self {
        let zero = AtomicU64::default;
        Self {
            inner,
            reads: zero(),
            read_bytes: zero(),
            writes: zero(),
            written_bytes: zero(),
            others: zero(),
        }
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        Counts {
            reads: self.reads.load(Relaxed),
            read_bytes: self
                .read_bytes
                .load(Relaxed)
                .saturating_add_signed(self.inner.surplus_bytes()),
            writes: self.writes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            others: self.others.load(Relaxed),
        }
    }

    fn read(&self, result: Result<Bytes, ObjectError>) -> Result<Bytes, ObjectError> {
        self.reads.fetch_add(1, Relaxed);
        self.read_bytes.fetch_add(result.as_ref().map_or(0, |b| b.len() as u64), Relaxed);
        result
    }

    fn write(&self, bytes: u64, result: Result<(), ObjectError>) -> Result<(), ObjectError> {
        self.writes.fetch_add(1, Relaxed);
        if result.is_ok() {
            self.written_bytes.fetch_add(bytes, Relaxed);
        }
        result
    }

    fn other(&self) -> &T {
        self.others.fetch_add(1, Relaxed);
        &self.inner
    }
}

impl<T: Objects> Objects for Counted<T> {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.read(self.inner.get(key, bytes_max))
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.read(self.inner.get_range(key, offset, bytes))
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write(bytes.len() as u64, self.inner.put_new(key, bytes))
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write(bytes.len() as u64, self.inner.put(key, bytes))
    }
    fn replace(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write(bytes.len() as u64, self.inner.replace(key, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.other().list(prefix)
    }
    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        self.other().list_names(prefix)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        self.other().head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.other().delete(key)
    }
    fn features(&self) -> Features {
        self.inner.features()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    fn folder(&self) -> Option<&std::path::Path> {
        self.inner.folder()
    }
    fn forget(&self, key: &str) {
        self.inner.forget(key);
    }
    fn surplus_bytes(&self) -> i64 {
        self.inner.surplus_bytes()
    }
    fn sweep(&self, age_ms: u64) -> Result<(), ObjectError> {
        self.inner.sweep(age_ms)
    }
}
