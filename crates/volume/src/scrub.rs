//! Scrubbing: fills the pages of the base that this host lacks into its cache, in the background,
//! so that the host can go offline and reads are quick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ambient::Duration;
use chunk::{ChunkId, Urgency};
use manifest::Visit;

use crate::error::{Result, VolumeError};
use crate::volume::Volume;

/// Chunks asked for together.
const BATCH: usize = 256;
const PAUSE_POLL: Duration = Duration::from_millis(50);

/// The handle of a scrub: shared between who runs it and who watches it.
#[derive(Debug, Default)]
pub struct Scrub {
    paused: AtomicBool,
    cancelled: AtomicBool,
    seen_pages: AtomicU64,
    fetched_pages: AtomicU64,
    failed_pages: AtomicU64,
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Pages of the base looked at; the base's holes are not counted.
    pub seen_pages: u64,
    /// Pages that had to be fetched.
    pub fetched_pages: u64,
    /// Pages that could not be had.
    pub failed_pages: u64,
}

impl Scrub {
    /// Lets it wait until it is resumed.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn progress(&self) -> ScrubProgress {
        ScrubProgress {
            seen_pages: self.seen_pages.load(Ordering::Relaxed),
            fetched_pages: self.fetched_pages.load(Ordering::Relaxed),
            failed_pages: self.failed_pages.load(Ordering::Relaxed),
        }
    }
}

impl Volume {
    /// Fetches every page of the base that is not on this host. Blocks: give it a thread. Pages
    /// that fail are counted, the rest goes on; the first failure is the error in the end. Pages
    /// that an overlay hides are fetched too: the next base may still have them.
    pub fn scrub(&self, scrub: &Scrub) -> Result<ScrubProgress> {
        let layers = self.layers();
        let ended = || scrub.cancelled.load(Ordering::Relaxed) || self.cancel.is_cancelled();
        let cache = self.fetcher.cache();
        let mut batch: Vec<(u64, ChunkId)> = Vec::with_capacity(BATCH);
        let mut first_error = None;
        let fetch = |batch: &mut Vec<(u64, ChunkId)>| {
            while scrub.paused.load(Ordering::Relaxed) && !ended() {
                std::thread::sleep(PAUSE_POLL);
            }
            let batch = std::mem::take(batch);
            // A cancelled scrub fetches nothing more.
            if ended() {
                return None;
            }
            let ids: Vec<ChunkId> = batch.iter().map(|&(_, id)| id).collect();
            let chunks = self.fetcher.get_many(&ids, Urgency::Background, &self.cancel)?;
            let mut error = None;
            for ((page, _), chunk) in batch.into_iter().zip(chunks) {
                let counter =
                    if chunk.is_ok() { &scrub.fetched_pages } else { &scrub.failed_pages };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Err(failure) = chunk {
                    error.get_or_insert(self.fetch_error(page, failure));
                }
            }
            error
        };
        let walked = layers.base.walk(
            &self.nodes,
            &mut |_, _| if ended() { Visit::Skip } else { Visit::Descend },
            &mut |page, id| {
                if ended() {
                    return;
                }
                scrub.seen_pages.fetch_add(1, Ordering::Relaxed);
                if !cache.has(id) {
                    batch.push((page, *id));
                    if batch.len() == BATCH {
                        let error = fetch(&mut batch);
                        first_error = first_error.take().or(error);
                    }
                }
            },
        );
        if !batch.is_empty() {
            let error = fetch(&mut batch);
            first_error = first_error.or(error);
        }
        walked.map_err(|error| self.index_error(0, error))?;
        if ended() {
            return Err(VolumeError::Cancelled { volume: self.name.clone() });
        }
        match first_error {
            Some(error) => Err(error),
            None => Ok(scrub.progress()),
        }
    }
}
