//! This host's copy of the index: files of entries and, beside them, what the log said at one
//! point.
//!
//! ```text
//! <local_dir>/<repository id>/seg-<random>       entries (see `file`)
//! <local_dir>/<repository id>/state-<number>     packs and segments after object <number>
//! <local_dir>/<repository id>/probed             the store that passed the probe
//! ```
//!
//! Every file is written under another name, renamed, and never changed, so any number of
//! processes share the directory without locks: each takes the newest state that is whole, and
//! goes on from there in its own memory until it writes a newer one.
//!
//! Crash and damage: everything here can be had again from the store. What does not check is
//! thrown away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chunk::crypt::{PackId, RepositoryId};
use xxhash_rust::xxh3::xxh3_64;

use super::{Index, PackInfo, Segment};
use crate::RepositoryError;
use crate::layout::number_of;
use crate::wire::{Malformed, Reader, hex, unhex};

const MAGIC: &[u8; 8] = b"cltvlst1";
const SEGMENT: &str = "seg-";
const STATE: &str = "state-";
const PROBED: &str = "probed";
/// The largest state that is read: four million packs.
const STATE_BYTES_MAX: u64 = 256 << 20;
/// Segments that no state names are removed when they are older than this: another process may
/// be about to name them.
const UNNAMED_AGE: Duration = Duration::from_secs(3600);

/// The directory of one repository's index files.
pub(crate) struct LocalDir {
    dir: PathBuf,
}

impl LocalDir {
    /// Makes the directory if it is not there.
    pub(crate) fn open(base: &Path, repository: RepositoryId) -> Result<Self, RepositoryError> {
        let dir = base.join(hex(&repository.0));
        fs::create_dir_all(&dir).map_err(|error| failed(&dir, &error))?;
        Ok(Self { dir })
    }

    pub(super) fn new_segment(&self) -> PathBuf {
        self.dir.join(format!("{SEGMENT}{}", hex(&ambient::random::<16>())))
    }

    /// The newest state that is whole.
    pub(crate) fn load(&self) -> Option<Index> {
        let mut numbers: Vec<u64> =
            self.names().iter().filter_map(|name| number_of(name.strip_prefix(STATE)?)).collect();
        numbers.sort_unstable();
        numbers.into_iter().rev().find_map(|number| self.read(number).ok())
    }

    /// Writes what `index` says, whose segments are all in files.
    pub(super) fn save(&self, index: &Index) -> Result<(), RepositoryError> {
        index.segments.iter().for_each(|segment| segment.keep_file());
        let bytes = encode(index);
        let path = self.state_path(index.applied);
        let temporary = self.dir.join(format!("new-{}", hex(&ambient::random::<8>())));
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| failed(&path, &error))?;
        self.tidy(index);
        Ok(())
    }

    /// Whether this store passed the probe.
    pub(crate) fn was_probed(&self, store: &str) -> bool {
        fs::read(self.dir.join(PROBED)).is_ok_and(|kept| kept == store.as_bytes())
    }

    /// Remembers that this store passed the probe. If that fails, it is only asked again.
    pub(crate) fn remember_probe(&self, store: &str) {
        let _ = fs::write(self.dir.join(PROBED), store);
    }

    /// Throws everything away.
    pub(crate) fn clear(&self) {
        for name in self.names() {
            // What cannot be removed is not loaded either, because it does not check.
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn state_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{STATE}{number:020}"))
    }

    fn read(&self, number: u64) -> Result<Index, RepositoryError> {
        let path = self.state_path(number);
        let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
        let bad = |detail: &str| RepositoryError::Local {
            path: path.display().to_string(),
            detail: detail.to_owned(),
        };
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| bad("it is cut"))?;
        if bytes.len() as u64 > STATE_BYTES_MAX || xxh3_64(body).to_le_bytes() != *sum {
            return Err(bad("its checksum does not match"));
        }
        let (mut index, segments) = decode(body).map_err(|error| bad(&error.to_string()))?;
        for name in segments {
            let segment = Segment::open(&self.dir.join(format!("{SEGMENT}{}", hex(&name))))?;
            index.segments.push(Arc::new(segment));
        }
        if index.applied != number {
            return Err(bad("it is another state under this name"));
        }
        Ok(index)
    }

    /// Removes older states, and segments that only they named.
    fn tidy(&self, index: &Index) {
        let named: Vec<&str> = index
            .segments
            .iter()
            .filter_map(|segment| segment.path()?.file_name()?.to_str())
            .collect();
        let names = self.names();
        let newest = names.iter().filter_map(|name| self.modified(name)).max();
        for name in names {
            let older = name
                .strip_prefix(STATE)
                .and_then(number_of)
                .is_some_and(|number| number < index.applied);
            let unnamed = name != PROBED
                && !name.starts_with(STATE)
                && !named.contains(&name.as_str())
                && self.is_old(&name, newest);
            if older || unnamed {
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
    }

    fn is_old(&self, name: &str, newest: Option<SystemTime>) -> bool {
        let age = newest.zip(self.modified(name)).map(|(newest, then)| newest.duration_since(then));
        age.is_some_and(|age| age.is_ok_and(|age| age > UNNAMED_AGE))
    }

    fn modified(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.dir.join(name)).and_then(|meta| meta.modified()).ok()
    }
}

fn encode(index: &Index) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&index.applied.to_le_bytes());
    out.extend_from_slice(&index.latest_snapshot.to_le_bytes());
    out.extend_from_slice(&(index.tables.len() as u32).to_le_bytes());
    index.tables.iter().for_each(|table| out.extend_from_slice(table));
    out.extend_from_slice(&(index.packs.len() as u32).to_le_bytes());
    for (id, info) in &index.packs {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&info.bytes.to_le_bytes());
        out.extend_from_slice(&info.chunks.to_le_bytes());
        out.extend_from_slice(&info.condemned_at.to_le_bytes());
    }
    out.extend_from_slice(&(index.condemned_orphans.len() as u32).to_le_bytes());
    for (id, number) in &index.condemned_orphans {
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&number.to_le_bytes());
    }
    let names: Vec<[u8; 16]> = index
        .segments
        .iter()
        .filter_map(|segment| unhex(segment.path()?.file_name()?.to_str()?.strip_prefix(SEGMENT)?))
        .collect();
    out.extend_from_slice(&(names.len() as u32).to_le_bytes());
    names.iter().for_each(|name| out.extend_from_slice(name));
    let sum = xxh3_64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

fn decode(body: &[u8]) -> Result<(Index, Vec<[u8; 16]>), Malformed> {
    let mut fields = Reader::new(body);
    if fields.take(8)? != MAGIC {
        return Err(Malformed("not a state of an index"));
    }
    let mut index =
        Index { applied: fields.u64()?, latest_snapshot: fields.u64()?, ..Index::default() };
    for _ in 0..fields.count(16)? {
        index.tables.push(fields.array()?);
    }
    for _ in 0..fields.count(52)? {
        let id = PackId(fields.array()?);
        let (bytes, chunks) = (fields.u64()?, fields.u32()?);
        index.packs.insert(id, PackInfo { bytes, chunks, condemned_at: fields.u64()? });
    }
    for _ in 0..fields.count(40)? {
        let id = PackId(fields.array()?);
        index.condemned_orphans.insert(id, fields.u64()?);
    }
    let segments = (0..fields.count(16)?).map(|_| fields.array()).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok((index, segments))
}

fn failed(path: &Path, error: &io::Error) -> RepositoryError {
    RepositoryError::Local { path: path.display().to_string(), detail: error.to_string() }
}
