//! Copying the needed chunks out of packs that are mostly garbage, or tiny.
//!
//! The copies are listed in the log before the old pack is condemned; a reader that still
//! knows the old place finds it there for at least the grace age.

use std::collections::{BTreeMap, HashMap, HashSet};

use chunk::crypt::{FrameKind, PackId};
use chunk::frame::{FRAME_BYTES_MAX, decode};
use chunk::id_of;
use objects::OBJECT_BYTES_MAX;

use super::Run;
use crate::index::{Index, Location, Marks};
use crate::layout::pack_key;
use crate::{PackWriter, RepositoryError};

/// A pack below this many bytes is tiny.
const TINY_PACK_BYTES: u64 = 1 << 20;
/// So many tiny packs are gathered into few.
const TINY_PACKS: usize = 32;

/// A frame of which something is needed, and the slots that are.
type NeededFrame = (Location, Vec<u16>);

impl Run<'_> {
    /// Rewrites packs; gives those whose needed chunks are elsewhere now.
    pub(super) fn repack(
        &mut self,
        index: &Index,
        marks: &Marks,
        needed: &HashMap<PackId, u32>,
        ages: &HashMap<PackId, (u64, u64)>,
    ) -> Result<HashSet<PackId>, RepositoryError> {
        let percent = u64::from(self.options.repack_below_percent);
        let settled = |id: &PackId| ages.get(id).is_some_and(|(_, m)| self.is_old(*m));
        let in_use = index
            .packs
            .iter()
            .filter(|(id, info)| info.condemned_at == 0 && needed.contains_key(id) && settled(id));
        let (mut wasteful, mut tiny) = (HashSet::new(), Vec::new());
        for (id, info) in in_use {
            let used = u64::from(needed.get(id).copied().unwrap_or(0));
            if used * 100 < u64::from(info.chunks) * percent {
                wasteful.insert(*id);
            } else if info.bytes < TINY_PACK_BYTES {
                tiny.push(*id);
            }
        }
        if tiny.len() >= TINY_PACKS {
            wasteful.extend(tiny);
        }
        if wasteful.is_empty() {
            return Ok(wasteful);
        }
        let mut frames: BTreeMap<PackId, BTreeMap<u32, NeededFrame>> = BTreeMap::new();
        index.for_each(marks, |_, location, marked| {
            if marked && wasteful.contains(&location.pack) {
                let pack = frames.entry(location.pack).or_default();
                let frame = pack.entry(location.frame).or_insert((*location, Vec::new()));
                frame.1.push(location.slot);
            }
        })?;
        let mut writer = self.repository.thorough_writer()?;
        let mut rewritten = HashSet::new();
        for (pack, frames) in frames {
            let frames: Vec<NeededFrame> = frames.into_values().collect();
            match self.copy(&pack, &frames, &mut writer) {
                Ok(()) => {
                    rewritten.insert(pack);
                }
                // It stays as it is: `check` reports damage, and a copy of part of it that was
                // already made is only garbage for the next run.
                Err(RepositoryError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        writer.finish_copies().map(drop)?;
        self.stats.repacked_packs = rewritten.len() as u64;
        Ok(rewritten)
    }

    fn copy(
        &self,
        pack: &PackId,
        frames: &[NeededFrame],
        writer: &mut PackWriter,
    ) -> Result<(), RepositoryError> {
        let key = pack_key(pack);
        let bytes = self.repository.inner.objects.get(&key, OBJECT_BYTES_MAX)?;
        let cipher = self.repository.inner.cipher.pack(*pack);
        for (at, slots) in frames {
            let damaged = |detail: &str| {
                RepositoryError::damaged(&key, format!("frame {}: {detail}", at.frame))
            };
            let (start, end) = (at.offset as usize, at.offset as usize + at.bytes as usize);
            let mut frame = bytes.get(start..end).ok_or_else(|| damaged("it is cut"))?.to_vec();
            cipher
                .open(FrameKind::Chunks, at.frame, &mut frame)
                .map_err(|error| damaged(&error.to_string()))?;
            let chunks =
                decode(&frame, FRAME_BYTES_MAX).map_err(|error| damaged(&error.to_string()))?;
            for slot in slots {
                let chunk = chunks.get(usize::from(*slot));
                let chunk = chunk.ok_or_else(|| damaged("a chunk is missing"))?;
                writer.put_copy(id_of(chunk), chunk)?;
            }
        }
        Ok(())
    }
}
