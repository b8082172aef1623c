//! How much of a version lies here, for a plane that prefers hosts that have it: `touched/VERSION.json`,
//! one for each version that was started here from its beginning.
//!
//! ```text
//! a start, once it has touched what it wants ──▶ how much that was, and of a sample of it the chunks
//! the agent, now and then ──▶ which of these chunks lie in the cache ──▶ as much of the whole
//! ```
//! What a start touches is what the next one needs, on whichever host: a version's manifests name far more.
//!
//! **Invariant:** it is a guess, and decides nothing but where something would start sooner. Bounded:
//! [`VERSIONS_MAX`] versions, the newest, each with [`SAMPLE`] chunks. Without a plane there are none.
//! *After a crash* a file may be cut short: then it says nothing until the next start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use model::{ChunkId, PAGE_BYTES, VersionId};
use serde::{Deserialize, Serialize};
use volume::{Cache, Trace, Volume};

use crate::Host;
use crate::dir::{self, HostDir};
use crate::failure::Result;

const FOLDER: &str = "touched";
const FORMAT: u32 = 1;
/// Versions that are known, the newest.
const VERSIONS_MAX: usize = 16;
/// Chunks by which it is told how much lies here.
const SAMPLE: u64 = 128;

/// What a start of a version needs, and what of that is on a host; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    pub needed_bytes: u64,
    pub here_bytes: u64,
}

/// One version's file.
#[derive(Debug, Serialize, Deserialize)]
struct TouchedFile {
    format: u32,
    bytes: u64,
    sample: Vec<String>,
}

/// Writes down what a start of a version has touched.
pub(crate) fn note(
    host: &HostDir,
    version: VersionId,
    trace: &Trace,
    volumes: &[Weak<Volume>],
) -> Result<()> {
    if !host.has_a_plane() || trace.is_empty() {
        return Ok(());
    }
    let folder = host.folder(FOLDER)?;
    let sample = sample(trace, volumes).iter().map(ChunkId::to_string).collect();
    let bytes = trace.pages() * PAGE_BYTES as u64;
    let file = TouchedFile { format: FORMAT, bytes, sample };
    dir::replace_passing(&folder.join(format!("{version}.json")), &file)?;
    for (_, old) in files(host)?.into_iter().skip(VERSIONS_MAX) {
        // Another start may have been as quick.
        let _ = std::fs::remove_file(old);
    }
    Ok(())
}

/// Chunks of pages that lie evenly in what was touched. One whose chunk cannot be told now is left out.
fn sample(trace: &Trace, volumes: &[Weak<Volume>]) -> Vec<ChunkId> {
    let volumes: Vec<Arc<Volume>> = volumes.iter().filter_map(Weak::upgrade).collect();
    let places: Vec<_> = trace
        .volumes()
        .iter()
        .map(|name| volumes.iter().find(|volume| volume.name() == name))
        .collect();
    let step = trace.pages().div_ceil(SAMPLE).max(1);
    let mut chunks = Vec::new();
    let mut before: u64 = 0;
    for run in trace.runs() {
        let first = before.next_multiple_of(step) - before;
        before += run.count;
        let Some(volume) = places[usize::from(run.volume)] else { continue };
        let pages = (first..run.count).step_by(step as usize).map(|page| run.first + page);
        chunks.extend(pages.filter_map(|page| volume.base_chunk(page).ok().flatten()));
    }
    chunks
}

/// The files, the newest first.
fn files(host: &HostDir) -> Result<Vec<(VersionId, PathBuf)>> {
    let entries = match std::fs::read_dir(host.root().join(FOLDER)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let version = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
        // One that has just gone is old.
        let written = std::fs::metadata(&path).and_then(|found| found.modified());
        if let (Some(version), Ok(written)) = (version.and_then(|id| id.parse().ok()), written) {
            files.push((written, version, path));
        }
    }
    files.sort_by(|a, b| b.cmp(a));
    Ok(files.into_iter().map(|(_, version, path)| (version, path)).collect())
}

impl Host {
    /// Of each version that was started here lately, what a start needs and what of that lies here. Looks
    /// into the index of the cache some thousand times: nobody should wait for it.
    pub fn touched(&self) -> Result<BTreeMap<VersionId, Touched>> {
        let files = files(&self.dir)?;
        if files.is_empty() {
            return Ok(BTreeMap::new());
        }
        let cache = Cache::open(&self.dir.folder("cache")?, self.dir.cache_bytes_max())?;
        let mut touched = BTreeMap::new();
        for (version, path) in files.into_iter().take(VERSIONS_MAX) {
            // One that is cut short, has just gone or is a newer program's says nothing.
            let Ok(file) = dir::decode::<TouchedFile>(&path) else { continue };
            if file.format != FORMAT {
                continue;
            }
            let sample = file.sample.iter().take(2 * SAMPLE as usize);
            let sample: Vec<ChunkId> = sample.filter_map(|id| id.parse().ok()).collect();
            let here = sample.iter().filter(|id| cache.has(id)).count() as u128;
            let share = u128::from(file.bytes) * here;
            let here_bytes = share.checked_div(sample.len() as u128).unwrap_or_default() as u64;
            touched.insert(version, Touched { needed_bytes: file.bytes, here_bytes });
        }
        Ok(touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunk::Memory;
    use volume::{Fetcher, Recorder, VolumeOptions};

    const PAGE: u64 = PAGE_BYTES as u64;
    const PAGES: u64 = 500;

    fn fetcher(folder: &std::path::Path, bytes: u64, from: &Arc<Memory>) -> Arc<Fetcher> {
        let cache = Arc::new(Cache::open(folder, bytes).unwrap());
        Arc::new(Fetcher::new(cache, from.clone(), 1))
    }

    #[test]
    fn what_a_start_touched_is_here_until_the_cache_has_lost_it() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::open(folder.path(), None).unwrap();
        let store = Arc::new(Memory::new());
        let elsewhere = tempfile::tempdir().unwrap();
        let make = |name: &str, base, fetcher: &Arc<Fetcher>| {
            let folder = elsewhere.path().join(name);
            let options = VolumeOptions::named("disk");
            Volume::create(&folder, base, PAGES * PAGE, fetcher.clone(), options).unwrap()
        };
        let maker = fetcher(&elsewhere.path().join("cache"), 1 << 24, &store);
        let made = make("made", None, &maker);
        for page in 0..PAGES {
            made.write_at(page * PAGE, &(page + 1).to_le_bytes().repeat(PAGE_BYTES / 8)).unwrap();
        }
        made.freeze().unwrap();
        let base = made.seal(&mut store.clone()).unwrap().manifest;

        let cache = host.dir.folder("cache").unwrap();
        let here = fetcher(&cache, host.dir.cache_bytes_max(), &store);
        let volume = Arc::new(make("here", Some(base), &here));
        let recorder = Arc::new(Recorder::new(vec!["disk".to_owned()]));
        volume.record(&recorder, 0);
        let mut page = vec![0; PAGE_BYTES];
        for at in (0..PAGES).filter(|at| at % 5 < 3) {
            volume.read_at(at * PAGE, &mut page).unwrap();
        }
        let (trace, volumes) = (recorder.trace(), [Arc::downgrade(&volume)]);
        let version = |n: u8| VersionId::from_bytes([n; 32]);
        note(&host.dir, version(1), &trace, &volumes).unwrap();
        assert!(host.touched().unwrap().is_empty(), "there is no plane");

        host.write_for_plane("identity.json", &()).unwrap();
        note(&host.dir, version(1), &trace, &volumes).unwrap();
        let needed_bytes = PAGES * 3 / 5 * PAGE;
        let found = |here_bytes| [(version(1), Touched { needed_bytes, here_bytes })].into();
        assert_eq!(host.touched().unwrap(), found(needed_bytes));
        let sample = sample(&trace, &volumes);
        assert!(sample.iter().all(|id| store.contains(id)));
        assert!((SAMPLE as usize / 2..=SAMPLE as usize).contains(&sample.len()));
        std::fs::remove_dir_all(&cache).unwrap();
        assert_eq!(host.touched().unwrap(), found(0));

        // The newest are kept.
        (2..30).for_each(|n| note(&host.dir, version(n), &trace, &volumes).unwrap());
        let touched = host.touched().unwrap();
        assert!(touched.keys().copied().eq((14..30).map(version)), "{:?}", touched.keys());
        std::fs::write(host.dir.root().join(FOLDER).join(format!("{}.json", version(29))), "")
            .unwrap();
        assert_eq!(host.touched().unwrap().len(), VERSIONS_MAX - 1);
    }
}
