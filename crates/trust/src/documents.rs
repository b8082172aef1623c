//! Documents that are signed, and what a host keeps of them for when the maker is away.
//!
//! *Invariants.* A document's bytes are those whose hash was signed, each time they are read: from
//! here, or from the maker. Only such bytes are kept, each in a file of its hash's name, whole or not
//! at all. One that is damaged is fetched again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use objects::Objects;

use crate::key::hex;
use crate::state::{folder, write_durably};
use crate::store::SIGNED;
use crate::{Result, TrustError};

/// A document that is signed no more is kept for so long: somebody may be reading what was believed
/// before.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Where documents come from.
pub(crate) struct Documents {
    /// What was read is kept here.
    pub(crate) folder: PathBuf,
    /// None: only what this host has.
    pub(crate) objects: Option<Arc<dyn Objects>>,
    /// What came from the maker, bytes.
    pub(crate) fetched_bytes: AtomicU64,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Documents({})", self.folder.display())
    }
}

/// The object of a document.
pub(crate) fn key_of(name: &str, sha256: &[u8]) -> String {
    format!("{SIGNED}targets/{}.{name}", hex(sha256))
}

impl Documents {
    /// The document with this name, hash and length.
    pub(crate) fn read(&self, name: &str, sha256: &[u8], bytes: u64) -> Result<Vec<u8>> {
        let is_it =
            |found: &[u8]| found.len() as u64 == bytes && digest(&SHA256, found).as_ref() == sha256;
        let file = self.folder.join(hex(sha256));
        if let Some(kept) = std::fs::read(&file).ok().filter(|kept| is_it(kept)) {
            return Ok(kept);
        }
        let Some(objects) = &self.objects else {
            let detail = format!("{name} is not on this host");
            return Err(TrustError::Away { location: "its maker".to_owned(), detail });
        };
        let found = objects
            .get(&key_of(name, sha256), bytes)
            .map_err(|error| TrustError::read(error, &objects.location()))?;
        self.fetched_bytes.fetch_add(found.len() as u64, Ordering::Relaxed);
        if !is_it(&found) {
            let detail = format!("{name} has other bytes than those that were signed");
            return Err(TrustError::Mixed { detail });
        }
        // A disk that is full is no reason to know less: then it is not there when the maker is away.
        let _ = folder(&self.folder).and_then(|()| write_durably(&file, &found));
        Ok(found.to_vec())
    }

    /// Removes what is not among these any more. What cannot be removed now is removed another time.
    pub(crate) fn keep_only<'a>(&self, signed: impl Iterator<Item = &'a [u8]>) {
        let signed: HashSet<String> = signed.map(hex).collect();
        let before = ambient::unix_ms().saturating_sub(KEPT.as_millis() as u64);
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let written = entry.metadata().and_then(|meta| meta.modified());
            let old = written.is_ok_and(|at| {
                at.duration_since(UNIX_EPOCH).is_ok_and(|at| (at.as_millis() as u64) < before)
            });
            if old && !signed.contains(&*entry.file_name().to_string_lossy()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
