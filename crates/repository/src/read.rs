//! Reading chunks: index, ranged read of the frame, open, decompress, verify.
//!
//! Everything that leaves here is [`Verified`]. Damage is met in this order: the other places
//! where the index says the chunk lies, the same place once more (the damage may have happened
//! on the way), a fresh index (the pack may have been rewritten), the other sources; only then
//! is it an error that names the object.

use chunk::crypt::FrameKind;
use chunk::frame::{FRAME_BYTES_MAX, decode};
use chunk::{ChunkSource, FetchError, Place, Urgency, Verified};
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

    fn place(&self, id: &ChunkId) -> Option<Place> {
        match self.location_of(id) {
            // Packs have random ids, so a part tells them apart well enough for a hint.
            Some(at) => Some(Place {
                object: u64::from_le_bytes(std::array::from_fn(|i| at.pack.0[i])),
                offset: at.offset,
                bytes: at.bytes,
            }),
            None => self.inner.sources.iter().find_map(|source| source.place(id)),
        }
    }

    fn fetch_near(&self, ids: &[ChunkId], urgency: Urgency) -> Vec<Verified> {
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for id in ids {
            match self.location_of(id) {
                Some(at) => here.push(at),
                None => elsewhere.push(*id),
            }
        }
        let mut chunks = self.fetch_span(here).unwrap_or_default();
        if !elsewhere.is_empty() {
            let source = self.inner.sources.iter().find(|s| s.place(&elsewhere[0]).is_some());
            chunks.extend(source.map_or_else(Vec::new, |s| s.fetch_near(&elsewhere, urgency)));
        }
        chunks
    }
}

/// Bytes that one request for chunks that lie near one another asks for, at most.
const SPAN_BYTES_MAX: u64 = 16 << 20;

impl Repository {
    /// Whether the index, as last seen, has this chunk.
    pub fn contains(&self, id: &ChunkId) -> bool {
        let name = self.inner.cipher.stored_name(id);
        self.look_up(|index| index.locations(&name)).is_ok_and(|found| !found.is_empty())
    }

    pub(crate) fn fetch_here(&self, id: &ChunkId) -> Result<Vec<Verified>, FetchError> {
        let name = self.inner.cipher.stored_name(id);
        let locations = self.look_up(|index| index.locations(&name)).map_err(into_fetch)?;
        let mut worst = FetchError::Missing { id: *id };
        for _ in 0..2 {
            for location in &locations {
                match self.fetch_at(id, location) {
                    Ok(chunks) => return Ok(chunks),
                    Err(error @ FetchError::Unavailable { .. }) => worst = error,
                    Err(error) => {
                        // The next look is at the store's, not at a copy of it.
                        self.inner.objects.forget(&pack_key(&location.pack));
                        if !matches!(worst, FetchError::Unavailable { .. }) {
                            worst = error;
                        }
                    }
                }
            }
            // Damage may have happened on the way; a store that is away was asked often enough.
            if !matches!(worst, FetchError::Damaged { .. }) {
                break;
            }
        }
        Err(worst)
    }

    /// Whether one of the sources behind this repository keeps a chunk.
    pub(crate) fn has_elsewhere(&self, id: &ChunkId) -> bool {
        let kept = |source: &std::sync::Arc<dyn ChunkSource>| {
            source.place(id).is_some() || source.fetch(id, Urgency::Background).is_ok()
        };
        self.inner.sources.iter().any(kept)
    }

    /// Where a chunk lies, as the index was last seen.
    fn location_of(&self, id: &ChunkId) -> Option<Location> {
        let name = self.inner.cipher.stored_name(id);
        self.look_up(|index| index.locations(&name)).ok()?.first().copied()
    }

    /// Reads the frames at these places in one request: those that lie in the first one's pack,
    /// not too far from it. A frame that cannot be opened is left out.
    fn fetch_span(&self, mut places: Vec<Location>) -> Option<Vec<Verified>> {
        places.sort_unstable_by_key(|at| at.offset);
        let first = *places.first()?;
        let end = |at: &Location| at.offset.saturating_add(u64::from(at.bytes));
        places.retain(|at| {
            at.pack == first.pack && end(at).saturating_sub(first.offset) <= SPAN_BYTES_MAX
        });
        places.dedup_by_key(|at| at.offset);
        let len = places.iter().map(end).max()?.saturating_sub(first.offset);
        let span = self.inner.objects.get_range(&pack_key(&first.pack), first.offset, len).ok()?;
        let cipher = self.inner.pack_ciphers.get(&self.inner.cipher, first.pack);
        let mut chunks = Vec::new();
        for at in &places {
            let start = (at.offset - first.offset) as usize;
            let Some(sealed) = span.get(start..start + at.bytes as usize) else { continue };
            let mut frame = sealed.to_vec();
            if cipher.open(FrameKind::Chunks, at.frame, &mut frame).is_ok()
                && let Ok(opened) = decode(&frame, FRAME_BYTES_MAX)
            {
                chunks.extend(opened.iter().map(Verified::of));
            }
        }
        Some(chunks)
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
