//! A store in memory, for tests, with a clock that the test moves.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::key::{check_key, check_prefix};
use crate::{Features, ObjectError, ObjectMeta, Objects};

/// A store in memory. Its clock stands still unless [`Memory::advance_ms`] moves it; each write
/// moves it by one millisecond.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    objects: BTreeMap<String, (Bytes, u64)>,
    clock_unix_ms: u64,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the store's clock.
    pub fn advance_ms(&self, ms: u64) {
        self.state().clock_unix_ms += ms;
    }

    /// A store of its own with the same objects and clock: the disk as after a crash.
    pub fn image(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: &str, bytes: Bytes, replace: bool) -> Result<(), ObjectError> {
        check_key(key)?;
        let mut state = self.state();
        if !replace && state.objects.contains_key(key) {
            return Err(ObjectError::AlreadyExists { key: key.to_owned() });
        }
        state.clock_unix_ms += 1;
        let now = state.clock_unix_ms;
        state.objects.insert(key.to_owned(), (bytes, now));
        Ok(())
    }

    fn object(&self, key: &str) -> Result<(Bytes, u64), ObjectError> {
        check_key(key)?;
        let object = self.state().objects.get(key).cloned();
        object.ok_or_else(|| ObjectError::NotFound { key: key.to_owned() })
    }
}

impl Objects for Memory {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        let (bytes, _) = self.object(key)?;
        if bytes.len() as u64 > bytes_max {
            return Err(ObjectError::TooLarge { key: key.to_owned(), bytes_max });
        }
        Ok(bytes)
    }

    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        let (object, _) = self.object(key)?;
        let wanted = offset.saturating_add(bytes);
        if wanted > object.len() as u64 {
            let (key, found) = (key.to_owned(), object.len() as u64);
            return Err(ObjectError::Truncated { key, wanted, found });
        }
        Ok(object.slice(offset as usize..wanted as usize))
    }

    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.insert(key, bytes, false)
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.insert(key, bytes, true)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        check_prefix(prefix)?;
        let within = |key: &str| {
            prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        let state = self.state();
        let objects = state.objects.range(prefix.to_owned()..);
        Ok(objects
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| within(key))
            .map(|(key, (bytes, modified))| ObjectMeta {
                key: key.clone(),
                bytes: bytes.len() as u64,
                modified_unix_ms: *modified,
            })
            .collect())
    }

    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        let (bytes, modified_unix_ms) = self.object(key)?;
        Ok(ObjectMeta { key: key.to_owned(), bytes: bytes.len() as u64, modified_unix_ms })
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        check_key(key)?;
        self.state().objects.remove(key);
        Ok(())
    }

    fn features(&self) -> Features {
        Features { list: true, write: true }
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}
