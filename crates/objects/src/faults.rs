//! A decorator that does harm on request: what disks, networks and stores do in bad hours.
//!
//! Everything is scripted or drawn from a seed, so that a failing test can be run again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::{Features, ObjectError, ObjectMeta, Objects};

/// Flips one bit in what is read of matching objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlipEvery {
    /// Keys that begin with this are damaged.
    pub prefix: String,
    /// Which bit, counted from the beginning of what is read, modulo its length.
    pub bit: u64,
}

#[derive(Debug, Default)]
struct Script {
    writes: u64,
    crash_at_write: Option<u64>,
    lose_answer_at_write: Option<u64>,
    full_at_write: Option<u64>,
    vanished: bool,
    delay: Duration,
    flip: Option<FlipEvery>,
    random: Option<(u64, u32)>,
}

/// A store that misbehaves as told. Writes (creates, puts, deletions) are numbered from 0.
pub struct Faults {
    inner: Arc<dyn Objects>,
    script: Mutex<Script>,
}

impl Faults {
    /// Behaves well until told otherwise.
    pub fn new(inner: Arc<dyn Objects>) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// Write number `n` and everything after it fails without being done, reads too: the
    /// writer died before it.
    pub fn crash_at_write(&self, n: u64) {
        self.script().crash_at_write = Some(n);
    }

    /// Write number `n` is done, but the answer is lost.
    pub fn lose_answer_at_write(&self, n: u64) {
        self.script().lose_answer_at_write = Some(n);
    }

    /// From write number `n` on the store is full; deletions still work.
    pub fn full_at_write(&self, n: u64) {
        self.script().full_at_write = Some(n);
    }

    /// The store goes away, or comes back.
    pub fn vanish(&self, vanished: bool) {
        self.script().vanished = vanished;
    }

    /// Every request takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.script().delay = delay;
    }

    /// Reads of some objects come back with a flipped bit; `None` ends it.
    pub fn flip(&self, flip: Option<FlipEvery>) {
        self.script().flip = flip;
    }

    /// From now on about `per_mille` of a thousand requests fail as unavailable, drawn from
    /// `seed`; half of the failing writes are done nevertheless.
    pub fn unreliable(&self, seed: u64, per_mille: u32) {
        self.script().random = Some((seed | 1, per_mille));
    }

    /// Writes asked for so far.
    pub fn writes(&self) -> u64 {
        self.script().writes
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, detail: &str) -> ObjectError {
        ObjectError::Unavailable { location: self.location(), detail: detail.to_owned() }
    }

    fn before_read(&self) -> Result<(), ObjectError> {
        let (delay, failed) = {
            let mut script = self.script();
            let crashed = script.crash_at_write.is_some_and(|n| script.writes > n);
            (script.delay, crashed || script.vanished || script.draw().is_some())
        };
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if failed { Err(self.unavailable("fault injected into a read")) } else { Ok(()) }
    }

    fn damage(&self, key: &str, bytes: Bytes) -> Bytes {
        match &self.script().flip {
            Some(flip) if key.starts_with(&flip.prefix) && !bytes.is_empty() => {
                let mut damaged = bytes.to_vec();
                let bit = flip.bit % (damaged.len() as u64 * 8);
                damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
                damaged.into()
            }
            _ => bytes,
        }
    }

    fn write(
        &self,
        grows: bool,
        act: impl FnOnce() -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let (delay, before, after) = {
            let mut script = self.script();
            let n = script.writes;
            script.writes += 1;
            let crashed = script.crash_at_write.is_some_and(|at| n >= at);
            let full = grows && script.full_at_write.is_some_and(|at| n >= at);
            let drawn = script.draw();
            let before = if crashed || script.vanished || drawn == Some(false) {
                Some(self.unavailable("fault injected before a write"))
            } else if full {
                let (location, detail) = (self.inner.location(), "fault injected".to_owned());
                Some(ObjectError::NoSpace { location, detail })
            } else {
                None
            };
            (script.delay, before, script.lose_answer_at_write == Some(n) || drawn == Some(true))
        };
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if let Some(error) = before {
            return Err(error);
        }
        let result = act();
        if after { Err(self.unavailable("fault injected after a write")) } else { result }
    }
}

impl Script {
    /// Whether this request fails, and if so whether it is done nevertheless (xorshift64).
    fn draw(&mut self) -> Option<bool> {
        let (seed, per_mille) = self.random.as_mut()?;
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let number = (*seed >> 20) as u32;
        (number % 1000 < *per_mille).then_some(number & (1 << 20) != 0)
    }
}

impl Objects for Faults {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.before_read()?;
        Ok(self.damage(key, self.inner.get(key, bytes_max)?))
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.before_read()?;
        Ok(self.damage(key, self.inner.get_range(key, offset, bytes)?))
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write(true, || self.inner.put_new(key, bytes))
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write(true, || self.inner.put(key, bytes))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.before_read()?;
        self.inner.list(prefix)
    }
    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        self.before_read()?;
        self.inner.list_names(prefix)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        self.before_read()?;
        self.inner.head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.write(false, || self.inner.delete(key))
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
