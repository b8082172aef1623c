//! Chunks of a new version, out of a part of a delta and what of the old version is on this host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunk::Verified;
use delta::{Group, NEW_BYTES_MAX, OLD_BYTES_MAX, Part, Run};
use model::ChunkId;
use volume::{Cache, Fetcher};

use super::{Budget, PAGE, Sources, Spot};
use crate::failure::Result;

/// Puts into the host's cache what of `missing` a part gives, and takes it out of `missing`. What does
/// not fit together is left for the repository.
pub fn apply(
    part: &Part,
    old: &Sources,
    new: &Sources,
    fetcher: &Arc<Fetcher>,
    budget: &mut Budget,
    missing: &mut BTreeSet<ChunkId>,
) -> Result<()> {
    for group in &part.groups {
        if budget.name(group).is_none() {
            continue;
        }
        let Some(ids) = new.ids(&group.new, NEW_BYTES_MAX / PAGE)? else { continue };
        if ids.iter().all(|id| !missing.contains(id)) || !budget.work(group) {
            continue;
        }
        let Some(chunks) = unpacked(part, group, ids.len(), old, fetcher.cache())? else {
            continue;
        };
        let verified: Vec<Verified> = ids
            .iter()
            .zip(chunks.chunks_exact(PAGE))
            .filter_map(|(id, bytes)| Verified::check(*id, bytes).ok())
            .collect();
        fetcher.cache().keep(&verified.iter().collect::<Vec<_>>());
        for chunk in &verified {
            // As much as the cache has: it may be too small for all.
            if fetcher.cache().has(&chunk.id()) {
                missing.remove(&chunk.id());
            }
        }
    }
    Ok(())
}

/// Puts into the host's cache what a part gives, and says where it lies, for who will make the manifests of it.
pub fn give(
    part: &Part,
    old: &Sources,
    fetcher: &Arc<Fetcher>,
    budget: &mut Budget,
    given: &mut BTreeMap<Spot, ChunkId>,
) -> Result<()> {
    for group in &part.groups {
        let Some(pages) = budget.name(group).filter(|_| budget.work(group)) else { continue };
        let Some(bytes) = unpacked(part, group, pages, old, fetcher.cache())? else { continue };
        let chunks: Vec<Verified> = bytes.chunks_exact(PAGE).map(Verified::of).collect();
        fetcher.cache().keep(&chunks.iter().collect::<Vec<_>>());
        let spots = group.new.iter().flat_map(spots);
        given.extend(spots.zip(chunks.iter().map(Verified::id)));
    }
    Ok(())
}

fn spots(run: &Run) -> impl Iterator<Item = Spot> {
    let source = run.source;
    (0..u64::from(run.count)).map(move |at| (source, run.first.saturating_add(at)))
}

fn unpacked(
    part: &Part,
    group: &Group,
    pages: usize,
    old: &Sources,
    cache: &Cache,
) -> Result<Option<Vec<u8>>> {
    let Some(ids) = old.ids(&group.old, OLD_BYTES_MAX / PAGE)? else { return Ok(None) };
    let mut before = Vec::with_capacity(ids.len() * PAGE);
    for id in &ids {
        // Fetching it would cost what the delta saves.
        let Some(chunk) = cache.read(id) else { return Ok(None) };
        before.extend_from_slice(chunk.bytes());
    }
    Ok(part.unpack(group, &before, pages * PAGE).ok())
}
