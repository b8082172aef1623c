//! Web servers that cannot serve a part of a file (Python's `http.server` is one): what is asked of an
//! object is cut out of the whole of it, and the last few wholes are kept.
//!
//! *Invariants.* Nothing of what is kept is known to be right: it is dropped when it is too short, and when
//! whoever asked found damage in it. At most [`KEPT_BYTES_MAX`] are kept. One whole is fetched at a time, so that many
//! readers of one object fetch it once; who waits for another one's waits in line.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::{OBJECT_BYTES_MAX, ObjectError, Objects, Remote};

/// Wholes that are kept, bytes: some objects of the largest size.
const KEPT_BYTES_MAX: usize = 160 << 20;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Whole {
    needed: AtomicBool,
    /// The newest first.
    kept: Mutex<VecDeque<(String, Bytes)>>,
    /// Bytes of wholes, less those of parts that were cut out of them.
    surplus: AtomicI64,
}

impl Whole {
    /// Whether this server has refused to serve a part before.
    pub(crate) fn is_needed(&self) -> bool {
        self.needed.load(Ordering::Relaxed)
    }

    /// A part of an object of a server that serves none.
    pub(crate) fn part(
        &self,
        remote: &Remote,
        key: &str,
        offset: u64,
        bytes: u64,
    ) -> Result<Bytes, ObjectError> {
        self.needed.store(true, Ordering::Relaxed);
        // Whole at any time: a panic elsewhere leaves it so.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (offset as usize, (offset + bytes) as usize);
        let known = kept.iter().position(|(known, _)| known == key).and_then(|at| kept.remove(at));
        let whole = match known.filter(|(_, whole)| whole.len() >= end) {
            Some((_, whole)) => whole,
            None => {
                let whole = remote.get(key, OBJECT_BYTES_MAX)?;
                self.surplus.fetch_add(whole.len() as i64, Ordering::Relaxed);
                whole
            }
        };
        if end > whole.len() {
            let (key, wanted, found) = (key.to_owned(), offset + bytes, whole.len() as u64);
            return Err(ObjectError::Truncated { key, wanted, found });
        }
        kept.push_front((key.to_owned(), whole.clone()));
        let mut sum = 0;
        kept.retain(|(_, bytes)| {
            sum += bytes.len();
            sum <= KEPT_BYTES_MAX || sum == bytes.len()
        });
        self.surplus.fetch_sub(bytes as i64, Ordering::Relaxed);
        Ok(whole.slice(start..end))
    }

    /// As [`Objects::surplus_bytes`].
    pub(crate) fn surplus_bytes(&self) -> i64 {
        self.surplus.load(Ordering::Relaxed)
    }

    /// The next reader fetches it again.
    pub(crate) fn forget(&self, key: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| known != key);
    }
}
