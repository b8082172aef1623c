//! The instance's scrub: once its guest is ready and has had a moment, what this host lacks of its volumes, and of
//! what it boots from, comes in the background, so that the guest can go on without the repository.
//!
//! ```text
//! off     waiting ──(the guest is ready)──▶ running ──▶ done
//!            ▲                                │  └────▶ full (of what is in use)
//!            └──(a while later, again)────────┘ pages could not be had
//! ```
//! *Invariants.* Nothing waits for it, and its trouble is nobody's: what it could not bring is
//! fetched when the guest touches it. It stands still while a checkpoint is stored.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::ScrubPrint;
use model::PAGE_BYTES;
use volume::{Scrub, Volume, VolumeError};

use super::shared::Shared;
use crate::boot_file::BootFile;
use crate::dir::HostDir;
use crate::store::Store;

/// Before what could not be had is asked for again; twice as long each time.
const AGAIN_MIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// What `inspect` calls the states of the drawing above.
const STATES: [&str; 5] = ["off", "waiting", "running", "done", "full"];
const OFF: u8 = 0;
const WAITING: u8 = 1;
const RUNNING: u8 = 2;
const DONE: u8 = 3;
const FULL: u8 = 4;

/// One instance's scrub.
#[derive(Default)]
pub struct Scrubbing {
    scrub: Scrub,
    state: AtomicU8,
    pages: OnceLock<u64>,
}

/// Lets the scrub stand still until it is dropped.
pub struct Still(Arc<Scrubbing>);

impl Scrubbing {
    /// Starts it once `settled` has ended, unless the user or the situation says that there shall be
    /// none.
    pub fn start(
        host: &HostDir,
        store: &Store,
        volumes: Vec<Arc<Volume>>,
        boot: Vec<Arc<BootFile>>,
        settled: Receiver<()>,
        shared: &Shared,
    ) -> Arc<Self> {
        let this = Arc::new(Self::default());
        // What lies in this host's own directory is here already.
        let is_here = host.sources().is_empty() && host.holds(store.location());
        if host.scrubs() && !is_here {
            let _ = this.pages.set(volumes.iter().map(|v| v.size_bytes() / PAGE).sum());
            this.be(WAITING);
            let scrubbing = this.clone();
            std::thread::spawn(move || {
                // Nobody ever sends: it ends.
                let _ = settled.recv();
                scrubbing.run(&volumes, &boot);
            });
        }
        let reader = this.clone();
        shared.set_scrub(Arc::new(move || reader.print()));
        this
    }

    fn run(&self, volumes: &[Arc<Volume>], boot: &[Arc<BootFile>]) {
        let mut again = AGAIN_MIN;
        loop {
            self.be(RUNNING);
            self.scrub.begin();
            let mut complete = true;
            // First: there is little of it, and a guest that restarts needs all of it.
            for file in boot {
                match file.keep(&self.scrub) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(failure) => {
                        eprintln!("scrub: {failure}");
                        complete = false;
                    }
                }
            }
            for volume in volumes {
                match volume.scrub(&self.scrub) {
                    Ok(_) => {}
                    Err(VolumeError::Cancelled { .. }) => return,
                    Err(error) => {
                        eprintln!("scrub: {error}");
                        complete = false;
                    }
                }
            }
            if self.scrub.progress().full {
                return self.be(FULL);
            }
            if complete {
                return self.be(DONE);
            }
            self.be(WAITING);
            if !self.scrub.rest(again) {
                return;
            }
            again = (again * 2).min(AGAIN_MAX);
        }
    }

    /// Lets it stand still while something else is more urgent than all of it.
    pub fn still(self: &Arc<Self>) -> Still {
        self.scrub.pause();
        Still(self.clone())
    }

    /// Ends it.
    pub fn end(&self) {
        self.scrub.cancel();
    }

    /// The line of `inspect`.
    fn print(&self) -> ScrubPrint {
        let progress = self.scrub.progress();
        let pages = self.pages.get().copied().unwrap_or(0);
        let state = self.state.load(Ordering::Relaxed);
        ScrubPrint {
            state: STATES[usize::from(state)].to_owned(),
            percent: (progress.passed_pages * 100).checked_div(pages).unwrap_or(0).min(100),
            fetched_bytes: progress.fetched_pages * PAGE,
            missing_bytes: progress.failed_pages * PAGE,
        }
    }

    fn be(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.0.scrub.resume();
    }
}

const PAGE: u64 = PAGE_BYTES as u64;
const _: () = assert!(STATES.len() == FULL as usize + 1 && OFF == 0);
