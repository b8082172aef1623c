//! Chunks of a new version, out of a part of a delta and what of the old version is on this host.

use std::collections::BTreeSet;
use std::sync::Arc;

use chunk::Verified;
use delta::{Group, NEW_BYTES_MAX, OLD_BYTES_MAX, Part};
use model::ChunkId;
use volume::{Cache, Fetcher};

use super::{PAGE, Sources};
use crate::failure::Result;

/// Puts into the host's cache what of `missing` a part gives, and takes it out of `missing`. What does
/// not fit together is left for the repository.
pub fn apply(
    part: &Part,
    old: &Sources,
    new: &Sources,
    fetcher: &Arc<Fetcher>,
    missing: &mut BTreeSet<ChunkId>,
) -> Result<()> {
    for group in &part.groups {
        let Some(ids) = new.ids(&group.new, NEW_BYTES_MAX / PAGE)? else { continue };
        if ids.iter().all(|id| !missing.contains(id)) {
            continue;
        }
        let Some(chunks) = unpacked(part, group, &ids, old, fetcher.cache())? else { continue };
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

fn unpacked(
    part: &Part,
    group: &Group,
    new: &[ChunkId],
    old: &Sources,
    cache: &Cache,
) -> Result<Option<Vec<u8>>> {
    let Some(ids) = old.ids(&group.old, OLD_BYTES_MAX / PAGE)? else { return Ok(None) };
    let mut dictionary = Vec::with_capacity(ids.len() * PAGE);
    for id in &ids {
        // Fetching it would cost what the delta saves.
        let Some(chunk) = cache.read(id) else { return Ok(None) };
        dictionary.extend_from_slice(chunk.bytes());
    }
    Ok(part.unpack(group, &dictionary, new.len() * PAGE).ok())
}
