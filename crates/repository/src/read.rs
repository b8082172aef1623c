//! Reading chunks: index, ranged read of the frame, open, decompress, verify.
//!
//! Everything that leaves here is [`Verified`]. Damage is met in this order: the other places
//! where the index says the chunk lies, the same place once more (the damage may have happened
//! on the way), a fresh index (the pack may have been rewritten), the other sources; only then
//! is it an error that names the object.

use chunk::crypt::FrameKind;
use chunk::frame::{FRAME_BYTES_MAX, decode};
use chunk::{ChunkSource, FetchError, Urgency, Verified};
use model::ChunkId;
use objects::ObjectError;

use crate::index::Location;
use crate::layout::pack_key;
use crate::{Repository, RepositoryError};

impl ChunkSource for Repository {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        let first = match self.fetch_here(id) {
            Ok(chunks) => return Ok(chunks),
            Err(error) => error,
        };
        // A chunk of the maker's, named by a user's manifest, is missing here for ever: so ask
        // those who have it by their own index before looking for news in ours.
        let mut away = None;
        for source in &self.inner.sources {
            match source.fetch(id, urgency) {
                Ok(chunks) if chunks.first().is_some_and(|chunk| chunk.id() == *id) => {
                    return Ok(chunks);
                }
                Err(error @ FetchError::Unavailable { .. }) => away = Some(error),
                _ => {}
            }
        }
        if matches!(first, FetchError::Unavailable { .. }) {
            return Err(first);
        }
        self.refresh_shared().map_err(into_fetch)?;
        match self.fetch_here(id) {
            // A source that is away may have it: that is worth waiting for. And the first error
            // says more about damage than that the pack is gone by now.
            Err(FetchError::Missing { .. }) => Err(away.unwrap_or(first)),
            other => other,
        }
    }

    fn together(&self, id: &ChunkId) -> Option<u64> {
        let name = self.inner.cipher.stored_name(id);
        let locations = self.look_up(|index| index.locations(&name)).ok()?;
        match locations.first() {
            // Packs have random ids, so the sum of the parts tells frames apart well enough for a
            // hint.
            Some(at) => {
                let pack = u64::from_le_bytes(std::array::from_fn(|i| at.pack.0[i]));
                Some(pack.wrapping_add(u64::from(at.frame)))
            }
            None => self.inner.sources.iter().find_map(|source| source.together(id)),
        }
    }
}

impl Repository {
    /// Whether the index, as last seen, has this chunk.
    pub fn contains(&self, id: &ChunkId) -> bool {
        let name = self.inner.cipher.stored_name(id);
        self.look_up(|index| index.locations(&name)).is_ok_and(|found| !found.is_empty())
    }

    fn fetch_here(&self, id: &ChunkId) -> Result<Vec<Verified>, FetchError> {
        let name = self.inner.cipher.stored_name(id);
        let locations = self.look_up(|index| index.locations(&name)).map_err(into_fetch)?;
        let mut worst = FetchError::Missing { id: *id };
        for _ in 0..2 {
            for location in &locations {
                match self.fetch_at(id, location) {
                    Ok(chunks) => return Ok(chunks),
                    Err(error @ FetchError::Unavailable { .. }) => worst = error,
                    Err(_) if matches!(worst, FetchError::Unavailable { .. }) => {}
                    Err(error) => worst = error,
                }
            }
            // Damage may have happened on the way; a store that is away was asked often enough.
            if !matches!(worst, FetchError::Damaged { .. }) {
                break;
            }
        }
        Err(worst)
    }

    fn fetch_at(&self, id: &ChunkId, at: &Location) -> Result<Vec<Verified>, FetchError> {
        let key = pack_key(&at.pack);
        let damaged = |detail: String| FetchError::Damaged {
            id: *id,
            detail: format!("{key}, frame {} at {}: {detail}", at.frame, at.offset),
        };
        let read = self.inner.objects.get_range(&key, at.offset, u64::from(at.bytes));
        let mut frame = match read {
            Ok(bytes) => bytes.to_vec(),
            Err(error @ (ObjectError::NotFound { .. } | ObjectError::Truncated { .. })) => {
                return Err(damaged(error.to_string()));
            }
            Err(error) => return Err(FetchError::Unavailable { detail: error.to_string() }),
        };
        let cipher = self.inner.pack_ciphers.get(&self.inner.cipher, at.pack);
        cipher
            .open(FrameKind::Chunks, at.frame, &mut frame)
            .map_err(|error| damaged(error.to_string()))?;
        let chunks = decode(&frame, FRAME_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
        let slot = usize::from(at.slot);
        let wanted = chunks
            .get(slot)
            .ok_or_else(|| damaged("it has fewer chunks than the index says".into()))?;
        let wanted =
            Verified::check(*id, wanted).map_err(|mismatch| damaged(mismatch.to_string()))?;
        let mut verified = Vec::with_capacity(chunks.len());
        verified.push(wanted);
        verified.extend(
            chunks
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != slot)
                .map(|(_, bytes)| Verified::of(bytes)),
        );
        Ok(verified)
    }
}

pub(crate) fn into_fetch(error: RepositoryError) -> FetchError {
    match error {
        RepositoryError::Fetch(error) => error,
        other => FetchError::Unavailable { detail: other.to_string() },
    }
}
