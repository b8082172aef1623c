//! One suite that every store passes, and a store that must be refused.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::check;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use objects::{
    Features, Memory, ObjectError, ObjectMeta, Objects, Patience, Remote, clock_ahead_ms, probe,
};

const BOTH: Features = Features { list: true, write: true };

#[test]
fn memory() {
    check(Arc::new(Memory::new()));
}

#[test]
fn folder() {
    let dir = tempfile::tempdir().unwrap();
    check(objects::create(dir.path().join("repo").to_str().unwrap()).unwrap());
    let staged = std::fs::read_dir(dir.path().join("repo/tmp")).unwrap().count();
    assert_eq!(staged, 0, "nothing stays staged");
}

#[test]
fn object_store_in_memory() {
    let store = Arc::new(InMemory::new());
    check(Arc::new(Remote::new(store.clone(), "", "memory", BOTH, Patience::default())));
    check(Arc::new(Remote::new(store, "a/prefix", "memory", BOTH, Patience::default())));
}

#[test]
fn object_store_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap().with_fsync(true);
    check(Arc::new(Remote::new(Arc::new(store), "p", "folder", BOTH, Patience::default())));
}

/// A store that accepts conditions and ignores them, as some S3 look-alikes do.
struct Ignorant(Memory);

impl Objects for Ignorant {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.0.get(key, bytes_max)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.0.get_range(key, offset, bytes)
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.put(key, bytes)
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.put(key, bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<objects::ObjectMeta>, ObjectError> {
        self.0.list(prefix)
    }
    fn head(&self, key: &str) -> Result<objects::ObjectMeta, ObjectError> {
        self.0.head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.delete(key)
    }
    fn features(&self) -> Features {
        BOTH
    }
    fn location(&self) -> String {
        "a look-alike".to_owned()
    }
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    let store = Ignorant(Memory::new());
    let error = probe(&store).unwrap_err();
    assert!(error.to_string().contains("ignores conditional puts"), "{error}");
    assert_eq!(store.list("").unwrap(), [], "the probe cleans up");
}

/// A store on a machine whose clock is off by so many milliseconds.
struct Off(std::sync::Arc<dyn Objects>, i64);

impl Objects for Off {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.0.get(key, bytes_max)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.0.get_range(key, offset, bytes)
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.put_new(key, bytes)
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.0.put(key, bytes)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.0.delete(key)
    }
    fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.0.list(folder)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        let meta = self.0.head(key)?;
        let modified_unix_ms = meta.modified_unix_ms.saturating_add_signed(self.1);
        Ok(ObjectMeta { modified_unix_ms, ..meta })
    }
    fn features(&self) -> Features {
        self.0.features()
    }
    fn location(&self) -> String {
        self.0.location()
    }
}

#[test]
fn a_clock_that_is_off_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().join("repo").to_str().unwrap()).unwrap();
    // A file's time may be of the tick before.
    assert!(clock_ahead_ms(&*folder).unwrap().unwrap().abs() < 1000);
    // Memory has no clock of its own to be off.
    for off_ms in [-3_600_000, 90_000] {
        let store = Off(folder.clone(), off_ms);
        let ahead = clock_ahead_ms(&store).unwrap().unwrap();
        assert!((ahead - off_ms).abs() < 1000, "{ahead}, not {off_ms}");
        assert_eq!(store.list("probe").unwrap(), [], "nothing is left");
    }
}
