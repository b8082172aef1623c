//! Records which pages of the base are touched while an instance starts, in order, and what of
//! them a prefetch had brought before. One recorder for all volumes of an instance: their touches
//! have one order.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::lock;
use crate::trace::{PAGES_MAX, Trace};
use crate::volume::Volume;

/// See the module. Made on; [`Recorder::end`] ends it for good.
#[derive(Debug)]
pub struct Recorder {
    volumes: Vec<String>,
    on: AtomicBool,
    touches: Mutex<Touches>,
    prefetched: AtomicU64,
}

#[derive(Debug, Default)]
struct Touches {
    /// Volume and page, in the order of their first touch.
    order: Vec<(u8, u64)>,
    seen: HashSet<(u8, u64)>,
    /// What a prefetch has asked for.
    asked: HashSet<(u8, u64)>,
    placed: u64,
    hits: u64,
    misses: u64,
}

/// How a start went, in pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// Pages of the base that were touched or placed, each counted once.
    pub recorded: u64,
    /// Pages that were put where touching them is not seen.
    pub placed: u64,
    /// Pages that a prefetch has brought.
    pub prefetched: u64,
    /// Touched pages that a prefetch had brought before.
    pub hits: u64,
    /// Touched pages that were not on this host, so that whoever touched them had to wait.
    pub misses: u64,
}

impl Recorder {
    /// For volumes of these names.
    pub fn new(volumes: Vec<String>) -> Self {
        Self {
            volumes,
            on: AtomicBool::new(true),
            touches: Mutex::default(),
            prefetched: AtomicU64::new(0),
        }
    }

    /// What was touched so far.
    pub fn trace(&self) -> Trace {
        Trace::of(self.volumes.clone(), lock(&self.touches).order.iter().copied())
    }

    /// How it went so far.
    pub fn stats(&self) -> TraceStats {
        let touches = lock(&self.touches);
        TraceStats {
            recorded: touches.order.len() as u64,
            placed: touches.placed,
            prefetched: self.prefetched.load(Ordering::Relaxed),
            hits: touches.hits,
            misses: touches.misses,
        }
    }

    /// Ends it: what is touched from now on does not count.
    pub fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
        let mut touches = lock(&self.touches);
        (touches.seen, touches.asked) = Default::default();
    }

    /// These pages are put where touching them will not be seen, because earlier starts touched
    /// them: taken for touched.
    pub fn place(&self, volume: u8, pages: impl Iterator<Item = u64>) {
        let mut touches = lock(&self.touches);
        for page in pages {
            if touches.order.len() < PAGES_MAX && touches.seen.insert((volume, page)) {
                touches.order.push((volume, page));
                touches.placed += 1;
            }
        }
    }

    pub(crate) fn touch(&self, volume: u8, touched: impl Iterator<Item = (u64, bool)>) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let mut touches = lock(&self.touches);
        for (page, was_missing) in touched {
            if touches.order.len() >= PAGES_MAX || !touches.seen.insert((volume, page)) {
                continue;
            }
            touches.order.push((volume, page));
            if was_missing {
                touches.misses += 1;
            } else if touches.asked.contains(&(volume, page)) {
                touches.hits += 1;
            }
        }
    }

    /// A prefetch is about to ask for these.
    pub(crate) fn ask(&self, pages: impl Iterator<Item = (u8, u64)>) {
        if self.on.load(Ordering::Relaxed) {
            lock(&self.touches).asked.extend(pages);
        }
    }

    /// So many of them came.
    pub(crate) fn brought(&self, pages: u64) {
        self.prefetched.fetch_add(pages, Ordering::Relaxed);
    }
}

impl Volume {
    /// Lets a recorder know what is read from the base: this volume is the one at `place` of its
    /// volumes. Only the first call counts.
    pub fn record(&self, recorder: &Arc<Recorder>, place: u8) {
        let _ = self.recorder.set((recorder.clone(), place));
    }
}
