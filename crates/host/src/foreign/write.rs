//! Volumes become files again: what is a hole in the one is a hole in the other.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use chunk::{ChunkId, ChunkSource, Urgency};
use manifest::{Manifest, NodeCache, Visit};
use model::{ManifestId, PAGE_BYTES};
use volume::{Cache, Cancel, Fetcher};

use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::store::Store;

/// Pages that are fetched at once: 2 MiB.
const BATCH_PAGES: usize = 512;
/// Threads that fetch.
const FETCH_THREADS: usize = 8;
/// Decoded nodes kept.
const NODES_MAX: usize = 64;

/// Reads volumes of one repository, through the host's cache.
pub struct Reader {
    fetcher: Fetcher,
    source: Arc<dyn ChunkSource>,
}

impl Reader {
    pub fn new(host: &HostDir, store: &Store) -> Result<Self> {
        let cache = Arc::new(Cache::open(&host.folder("cache")?, host.cache_bytes_max())?);
        let source = store.source();
        Ok(Self { fetcher: Fetcher::new(cache, source.clone(), FETCH_THREADS), source })
    }

    /// Writes a volume into an empty file, which gets the volume's length. `go_on` is asked before
    /// every 2 MiB. Gives how much was not a hole, bytes.
    pub fn write(
        &self,
        volume: ManifestId,
        file: &File,
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<u64> {
        let manifest = Manifest::open(volume, &*self.source)?;
        file.set_len(manifest.size_bytes())?;
        let nodes = NodeCache::new(self.source.clone(), NODES_MAX);
        let mut batch = Batch { pages: Vec::new(), written: 0, failure: None };
        manifest.walk(
            &nodes,
            // After a failure there is nothing more to visit.
            &mut |_, _| Visit::Descend,
            &mut |page, id| {
                if batch.failure.is_none() {
                    batch.pages.push((page, *id));
                    if batch.pages.len() == BATCH_PAGES {
                        batch.failure = go_on().and_then(|()| self.flush(&mut batch, file)).err();
                    }
                }
            },
        )?;
        if let Some(failure) = batch.failure.take() {
            return Err(failure);
        }
        self.flush(&mut batch, file)?;
        Ok(batch.written)
    }

    /// Writes the pages of a batch, neighbours together.
    fn flush(&self, batch: &mut Batch, file: &File) -> Result<()> {
        let wanted: Vec<(usize, ChunkId)> =
            batch.pages.iter().map(|(_, id)| *id).enumerate().collect();
        let mut bytes = vec![0; wanted.len() * PAGE_BYTES];
        let missing = self.fetcher.cache().read_pages(&wanted, &mut bytes);
        let ids: Vec<ChunkId> = missing.iter().map(|(_, id)| *id).collect();
        let chunks = self
            .fetcher
            .get_many(&ids, Urgency::Urgent, &Cancel::default())
            .ok_or_else(|| Failure::new("internal", "reading was cancelled", ""))?;
        for ((at, id), chunk) in missing.into_iter().zip(chunks) {
            let page = batch.pages[at].0;
            let chunk =
                chunk.map_err(|error| Failure::from(error).during(format!("page {page}")))?;
            if chunk.len() != PAGE_BYTES {
                let detail = format!("chunk {} is no page", id.short());
                return Err(Failure::new("damaged", detail, "`collective repo check` says more"));
            }
            bytes[at * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&chunk);
        }
        let mut run = Vec::new();
        let mut start = 0;
        for ((page, _), content) in batch.pages.drain(..).zip(bytes.chunks_exact(PAGE_BYTES)) {
            let at = page * PAGE_BYTES as u64;
            if start + run.len() as u64 != at {
                file.write_all_at(&run, start)?;
                run.clear();
                start = at;
            }
            run.extend_from_slice(content);
            batch.written += PAGE_BYTES as u64;
        }
        Ok(file.write_all_at(&run, start)?)
    }
}

/// Pages that wait to be fetched together.
struct Batch {
    pages: Vec<(u64, ChunkId)>,
    written: u64,
    failure: Option<Failure>,
}
