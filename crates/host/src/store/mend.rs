//! `repo check --repair`: what is damaged or missing comes from wherever it still is.
//!
//! *Order.* Places that are copies of this repository put whole objects back first, the log and refs
//! too; then chunks come from everybody: the places that were named, this host's cache, its sources, makers
//! and their mirrors.

use std::sync::Arc;

use api::CheckPrint;
use chunk::{ChunkSource, FetchError, Urgency, Verified};
use model::ChunkId;
use repository::{Helper, Mended, Problem};
use volume::Cache;

use super::care::at_step;
use super::{Store, open_objects, open_stranger};
use crate::dir::HostDir;
use crate::failure::Result;

impl Store {
    /// Checks a repository, every byte, and mends what it can.
    pub fn mend(
        host: &HostDir,
        location: &str,
        from: &[String],
        progress: &mut dyn FnMut(&str),
    ) -> Result<CheckPrint> {
        let mut helpers = Vec::new();
        let mut mended = Vec::new();
        let mut copies = Vec::new();
        let id = Self::open(host, location).map(|store| store.repository().id());
        for place in from {
            let objects = open_objects(host, place)?;
            let opened = open_stranger(host, objects, place);
            let opened = opened.map_err(|failure| failure.during(format!("--from {place}")))?;
            // Where this one does not open, what says to be a copy is judged by the repair.
            if id.as_ref().map_or(true, |id| opened.id() == *id) {
                copies.push(place);
            }
            helpers.push(Helper { name: place.clone(), source: Arc::new(opened) });
        }
        for place in copies {
            let repaired = Self::repair(host, location, place, progress)?;
            mended.extend(
                repaired.repaired.iter().map(|key| format!("{key}: put back from {place}")),
            );
        }
        let cache = Cache::open(&host.folder("cache")?, host.cache_bytes_max())?;
        helpers
            .push(Helper { name: "this host's cache".to_owned(), source: Arc::new(Kept(cache)) });
        let store = Self::open(host, location)?;
        let done = store.repository().mend(&helpers, &mut at_step(progress))?;
        mended.extend(done.mended.iter().map(sentence));
        Ok(CheckPrint {
            ok: done.left.is_empty(),
            chunks: done.report.chunks,
            objects: done.report.packs,
            read_bytes: done.report.verified_bytes,
            problems: done.left.iter().map(Problem::to_string).collect(),
            mended,
            fetched_bytes: done.fetched_bytes,
        })
    }
}

/// What became of one finding.
fn sentence(mended: &Mended) -> String {
    let from = mended.fetched.iter().map(|(who, many)| format!("{many} chunks from {who}"));
    let mut parts: Vec<String> = from.collect();
    if mended.rescued > 0 {
        parts.push(format!("{} that were still whole", mended.rescued));
    }
    match &mended.object {
        Some(object) => format!("{object}: {}", parts.join(", ")),
        None => format!("what was in no pack: {}", parts.join(", ")),
    }
}

/// The pages that this host keeps of repositories.
struct Kept(Cache);

impl ChunkSource for Kept {
    fn fetch(&self, id: &ChunkId, _: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.0.read(id).map(|page| vec![page]).ok_or(FetchError::Missing { id: *id })
    }
}
