//! Scrubbing: fills the pages of the base that this host lacks into its cache, in the background,
//! so that the host can go offline and reads are quick.
//!
//! It is the last in every queue: it waits while anybody waits for a page, asks for little at a
//! time, rests far longer than it computes, and ends rather than push out of the cache what is in
//! use.
//!
//! Crash: nothing is kept of a scrub but what it brought; the next one finds that in the cache.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use ambient::Duration;
use chunk::{ChunkId, FetchError};
use manifest::Visit;

use crate::error::{Result, VolumeError};
use crate::layers;
use crate::lock::lock;
use crate::overlay::PageState;
use crate::spans;
use crate::stride::Stride;
use crate::volume::{PAGE, Volume};

/// It rests so many times as long as this process was computing meanwhile, for whomever: it takes
/// a twentieth of a processor at most, and less while a guest keeps the process busy. On a slow line
/// it mostly waits, and need not rest.
const REST: u32 = 19;
const REST_MAX: Duration = Duration::from_secs(5);
/// Bytes of pages that it brings a second, at most.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// How often it looks whether somebody still waits for a page.
const YIELD: Duration = Duration::from_millis(20);

/// The handle of a scrub: shared between who runs it and who watches it. One handle may go over
/// several volumes, one after the other.
#[derive(Debug, Default)]
pub struct Scrub {
    control: Mutex<Control>,
    changed: Condvar,
    passed_pages: AtomicU64,
    fetched_pages: AtomicU64,
    failed_pages: AtomicU64,
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Control {
    paused: bool,
    cancelled: bool,
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Pages of the volumes that it has come past, holes and local ones included.
    pub passed_pages: u64,
    /// Pages that it fetched.
    pub fetched_pages: u64,
    /// Pages that could not be had.
    pub failed_pages: u64,
    /// It ended early: the cache is full of what is in use.
    pub full: bool,
}

impl Scrub {
    /// Lets it wait until it is resumed.
    pub fn pause(&self) {
        lock(&self.control).paused = true;
    }

    /// Lets it go on.
    pub fn resume(&self) {
        lock(&self.control).paused = false;
        self.changed.notify_all();
    }

    /// Ends it.
    pub fn cancel(&self) {
        lock(&self.control).cancelled = true;
        self.changed.notify_all();
    }

    /// Waits so long; `false` at once when it was cancelled.
    pub fn rest(&self, time: Duration) -> bool {
        let rested = self.changed.wait_timeout_while(lock(&self.control), time, |c| !c.cancelled);
        !rested.unwrap_or_else(PoisonError::into_inner).0.cancelled
    }

    /// Counts from zero again, for another round over the same volumes.
    pub fn begin(&self) {
        for counter in [&self.passed_pages, &self.fetched_pages, &self.failed_pages] {
            counter.store(0, Ordering::Relaxed);
        }
        self.full.store(false, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn progress(&self) -> ScrubProgress {
        ScrubProgress {
            passed_pages: self.passed_pages.load(Ordering::Relaxed),
            fetched_pages: self.fetched_pages.load(Ordering::Relaxed),
            failed_pages: self.failed_pages.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Relaxed),
        }
    }

    /// Waits while it is paused; `false` when it was cancelled.
    pub fn await_leave(&self) -> bool {
        let waited = self.changed.wait_while(lock(&self.control), |c| c.paused && !c.cancelled);
        !waited.unwrap_or_else(PoisonError::into_inner).cancelled
    }

    fn is_cancelled(&self) -> bool {
        lock(&self.control).cancelled
    }
}

impl Volume {
    /// Fetches every page of the base that is not on this host, and that nothing was written over.
    /// Blocks: give it a thread.
    ///
    /// Pages that fail are counted and the rest goes on; the first failure is the error in the
    /// end. Only when the source is away it ends at once.
    pub fn scrub(&self, scrub: &Scrub) -> Result<ScrubProgress> {
        let base = self.layers().base.clone();
        let before = scrub.passed_pages.load(Ordering::Relaxed);
        let mut round = Round {
            volume: self,
            scrub,
            batch: Vec::new(),
            stride: Stride::default(),
            first_error: None,
            ended: false,
        };
        let walked = {
            // Both callbacks need it.
            let round = std::cell::RefCell::new(&mut round);
            base.walk(
                &self.nodes,
                &mut |_, _| {
                    if round.borrow_mut().has_ended() { Visit::Skip } else { Visit::Descend }
                },
                &mut |page, id| {
                    let mut round = round.borrow_mut();
                    if !round.ended {
                        scrub.passed_pages.store(before + page, Ordering::Relaxed);
                        round.meet(page, id);
                    }
                },
            )
        };
        round.bring();
        if scrub.is_cancelled() || self.cancel.is_cancelled() {
            return Err(VolumeError::Cancelled { volume: self.name.clone() });
        }
        if let Some(error) = round.first_error {
            return Err(error);
        }
        walked.map_err(|error| self.index_error(0, error))?;
        if !scrub.full.load(Ordering::Relaxed) {
            scrub.passed_pages.store(before + self.pages(), Ordering::Relaxed);
        }
        Ok(scrub.progress())
    }
}

/// One volume's scrub.
struct Round<'a> {
    volume: &'a Volume,
    scrub: &'a Scrub,
    batch: Vec<(u64, ChunkId)>,
    stride: Stride,
    first_error: Option<VolumeError>,
    /// Nothing more is fetched.
    ended: bool,
}

impl Round<'_> {
    fn has_ended(&mut self) -> bool {
        self.ended = self.ended || self.scrub.is_cancelled() || self.volume.cancel.is_cancelled();
        self.ended
    }

    fn meet(&mut self, page: u64, id: &ChunkId) {
        if self.volume.fetcher.cache().has(id) {
            return;
        }
        self.batch.push((page, *id));
        if self.batch.len() >= self.stride.pages() {
            self.bring();
        }
    }

    /// Fetches what has gathered, when it is its turn.
    fn bring(&mut self) {
        let (volume, scrub) = (self.volume, self.scrub);
        let mut batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        scrub.await_leave();
        while volume.fetcher.is_waited_for() && scrub.rest(YIELD) {}
        if self.has_ended() {
            return;
        }
        // What came meanwhile is here, and what was written over is read by nobody.
        let (layers, cache) = (volume.layers(), volume.fetcher.cache());
        batch.retain(|(page, id)| {
            layers::state(layers.overlays(), *page) == PageState::Absent && !cache.has(id)
        });
        if batch.is_empty() {
            return;
        }
        let bytes = batch.len() as u64 * PAGE;
        // Neighbours come along.
        if cache.room() < 2 * bytes {
            scrub.full.store(true, Ordering::Relaxed);
            self.ended = true;
            return;
        }
        let (began, computed) = (ambient::now(), ambient::processor_time());
        let located: Vec<_> = batch.iter().map(|(_, id)| (*id, volume.fetcher.place(id))).collect();
        let mut outcomes = HashMap::new();
        for ids in spans::group(&located, batch.len()) {
            let chunks = volume.fetcher.get_near(&ids, &volume.cancel);
            outcomes.extend(ids.into_iter().zip(chunks.into_iter().flatten()));
            // No other page can be had now either.
            let is_away =
                |outcome: &Result<_, _>| matches!(outcome, Err(FetchError::Unavailable { .. }));
            if volume.cancel.is_cancelled() || outcomes.values().any(is_away) {
                self.ended = true;
                break;
            }
        }
        for (page, id) in batch {
            match outcomes.get(&id) {
                Some(Ok(_)) => {
                    scrub.fetched_pages.fetch_add(1, Ordering::Relaxed);
                }
                Some(Err(error)) => {
                    scrub.failed_pages.fetch_add(1, Ordering::Relaxed);
                    self.first_error.get_or_insert_with(|| volume.fetch_error(page, error.clone()));
                }
                None => {}
            }
        }
        let worked = began.elapsed();
        self.stride.took(worked);
        let due = Duration::from_micros(bytes * 1_000_000 / BYTES_PER_SECOND);
        let computed = ambient::processor_time().saturating_sub(computed);
        scrub.rest((computed * REST).min(REST_MAX).max(due.saturating_sub(worked)));
    }
}
