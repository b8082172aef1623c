//! Which pages of the base were touched, in order: what the next start from the same base will
//! want first.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lock::lock;
use crate::volume::Volume;

/// Pages that a trace holds at most: 4 GiB of them.
const TRACE_PAGES_MAX: usize = 1 << 20;

/// Records touches while it is on.
#[derive(Default)]
pub struct Trace {
    on: AtomicBool,
    pages: Mutex<(Vec<u64>, HashSet<u64>)>,
}

impl Trace {
    pub fn touch(&self, touched: impl Iterator<Item = u64>) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let mut pages = lock(&self.pages);
        let (order, seen) = &mut *pages;
        for page in touched {
            if order.len() < TRACE_PAGES_MAX && seen.insert(page) {
                order.push(page);
            }
        }
    }
}

impl Volume {
    /// Starts to record which pages of the base are read, each once, in order.
    pub fn start_trace(&self) {
        *lock(&self.trace.pages) = Default::default();
        self.trace.on.store(true, Ordering::Relaxed);
    }

    /// Ends the recording and gives the pages, at most 2^20.
    pub fn take_trace(&self) -> Vec<u64> {
        self.trace.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.trace.pages)).0
    }
}
