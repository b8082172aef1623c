//! A folder for one piece of work (a build, an import), removed however it ends.
//!
//! A process that is killed cannot remove its own: the next one that makes a folder beside it does,
//! because nobody holds its lock any more.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::failure::Result;

/// In every folder of work, held by who works there; and beside them, held while one is made.
const LOCK: &str = "lock";

/// What is done with a dead one's folder before it is removed.
pub type Bury<'a> = dyn FnMut(&Path) -> Result<()> + 'a;

/// See the module's documentation.
pub struct Work {
    path: PathBuf,
    _lock: File,
}

impl Work {
    /// Makes a folder of a new name in `shelf`, and removes what the dead left there.
    pub fn new(shelf: &Path) -> Result<Self> {
        Self::after(shelf, &mut |_| Ok(()))
    }

    /// As [`Work::new`]; the folder of a dead one is seen by `bury` before it is removed. What
    /// cannot be buried now stays for the next.
    pub fn after(shelf: &Path, bury: &mut Bury<'_>) -> Result<Self> {
        let beside = File::create(shelf.join(LOCK))?;
        beside.lock()?;
        each_abandoned(shelf, Some(bury))?;
        let tag = u64::from_le_bytes(ambient::random());
        let path = shelf.join(format!("{tag:016x}"));
        crate::dir::make_private_dir(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Counts the folders whose locks nobody holds; with `bury`, removes them as [`Work::after`] does.
pub fn abandoned(shelf: &Path, bury: Option<&mut Bury<'_>>) -> Result<usize> {
    let beside = File::create(shelf.join(LOCK))?;
    beside.lock()?;
    each_abandoned(shelf, bury)
}

/// Only under the lock of the shelf: a folder that is being made has no lock yet.
fn each_abandoned(shelf: &Path, mut bury: Option<&mut Bury<'_>>) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(shelf)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let held = File::open(path.join(LOCK)).is_ok_and(|lock| {
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
        });
        if !held {
            count += 1;
            if let Some(bury) = &mut bury
                && bury(&path).is_ok()
            {
                fs::remove_dir_all(&path)?;
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn the_dead_are_swept_and_the_living_are_left() {
        let shelf = tempfile::tempdir().unwrap();
        let living = Work::new(shelf.path()).unwrap();
        fs::write(living.path().join("file"), "x").unwrap();
        let dead = shelf.path().join("0123456789abcdef");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let unburied = || Failure::new("unavailable", "not now", "");
        let mut seen = Vec::new();
        let next = Work::after(shelf.path(), &mut |path| {
            seen.push(path.to_owned());
            Err(unburied())
        });
        drop(next.unwrap());
        assert!(dead.exists(), "it is there for the next");
        assert_eq!(seen, std::slice::from_ref(&dead));
        let next = Work::new(shelf.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.path().join("file").exists());
        let path = next.path().to_owned();
        drop(next);
        assert!(!path.exists());
    }
}
