//! What of a new version is not here yet, and bringing it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chunk::ChunkSource;
use manifest::{Manifest, NodeCache};
use model::{ChunkId, DiskRole};
use volume::{Cache, Cancel, Fetcher};

use crate::Host;
use crate::failure::Result;
use crate::makers::Maker;
use crate::record::Version;
use crate::store::Store;

/// Threads that fetch a new version.
const FETCH_THREADS: usize = 4;
/// Pages that are fetched at once.
const BATCH: usize = 1024;
/// Decoded nodes that are kept while two versions are compared.
const NODES_KEPT: usize = 512;
/// A page, bytes.
pub(super) const PAGE: u64 = model::PAGE_BYTES as u64;

impl Host {
    /// Brings what of a new version this host lacks; gives how many bytes of pages that was.
    pub(super) fn fetch_ahead(
        &self,
        store: &Store,
        maker: &Maker,
        old: &Version,
        new: &Version,
        rate: Option<u64>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<u64> {
        let (missing, cache) = missing(self, store, maker, old, new)?;
        let source = store.source();
        let fetcher = Fetcher::new(cache, source.clone(), FETCH_THREADS);
        let mut ordered: Vec<(Option<chunk::Place>, ChunkId)> =
            missing.iter().map(|id| (source.place(id), *id)).collect();
        ordered.sort_unstable_by_key(|(place, _)| *place);
        let (began, before) = (ambient::now(), store.fetched_bytes());
        let mut done = 0;
        for batch in ordered.chunks(BATCH) {
            let ids: Vec<ChunkId> = batch.iter().map(|(_, id)| *id).collect();
            let fetched = fetcher.get_near(&ids, &Cancel::default()).unwrap_or_default();
            for chunk in fetched {
                chunk?;
            }
            done += ids.len();
            progress(&format!(
                "fetching version {}: {} of {} pages",
                new.version,
                done,
                ordered.len()
            ));
            if let Some(rate) = rate.filter(|rate| *rate > 0) {
                let fetched = store.fetched_bytes() - before;
                let due = Duration::from_secs_f64(fetched as f64 / rate as f64);
                ambient::sleep(due.saturating_sub(began.elapsed()));
            }
        }
        for blob in [&new.kernel, &new.initrd, &new.firmware].into_iter().flatten() {
            let folder = self.dir.folder("cache/blobs")?;
            crate::blob::materialise(
                &folder,
                blob,
                &Arc::new(Fetcher::new(fetcher.cache().clone(), source.clone(), 1)),
            )?;
        }
        ambient::step("update: fetched");
        Ok(missing.len() as u64 * PAGE)
    }
}

/// The pages of a new version's disks that this host lacks, where they differ from the old one's.
pub(super) fn missing(
    host: &Host,
    store: &Store,
    maker: &Maker,
    old: &Version,
    new: &Version,
) -> Result<(BTreeSet<ChunkId>, Arc<Cache>)> {
    store.reach(&maker.location)?;
    let cache = Arc::new(Cache::open(&host.dir.folder("cache")?, host.dir.cache_bytes_max())?);
    let source = store.source();
    let nodes = NodeCache::new(source.clone(), NODES_KEPT);
    let mut missing = BTreeSet::new();
    let before: BTreeMap<&str, usize> =
        old.hardware.disks.iter().enumerate().map(|(at, disk)| (disk.name.as_str(), at)).collect();
    for (spec, id) in new.hardware.disks.iter().zip(&new.disks) {
        if spec.role == DiskRole::Data && before.contains_key(spec.name.as_str()) {
            continue;
        }
        let theirs = Manifest::open(*id, &*source)?;
        let ours = match before.get(spec.name.as_str()).and_then(|at| old.disks.get(*at)) {
            Some(id) => Manifest::open(*id, &*source)?,
            None => Manifest::empty(spec.size_bytes)?,
        };
        Manifest::diff(&ours, &theirs, &nodes, &mut |_, _, chunk| {
            missing.extend(chunk.filter(|chunk| !cache.has(chunk)));
        })?;
    }
    Ok((missing, cache))
}

/// What fetching these takes, as far as the index tells: bytes of the frames that they lie in.
pub(super) fn wire_bytes(store: &Store, ids: &BTreeSet<ChunkId>) -> u64 {
    let source = store.source();
    let places: BTreeSet<_> = ids.iter().filter_map(|id| source.place(id)).collect();
    places.iter().map(|place| u64::from(place.bytes)).sum()
}
