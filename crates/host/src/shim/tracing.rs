//! What this start touches, and what the starts before it did: learned, and fetched ahead.
//!
//! ```text
//! volumes open ──▶ the trace is read ──▶ its pages are fetched, ahead of the guest
//!      │                           └──▶ what of them is here is placed in the kernel's cache
//!      └─ recording ──▶ ready ──▶ a little longer ──▶ recorded ──▶ the version's trace learns
//!                                                        └──────▶ the next checkpoint takes it along
//! ```
//! *Invariants.* Nothing waits for it: neither the start nor the guest. What fails here costs the
//! guest some waiting, later, and nobody an error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api::TracePrint;
use chunk::{ChunkSource, Verified};
use model::{Generation, VersionId};
use volume::{Cache, Cancel, Fetcher, Recorded, Recorder, Trace, Volume};

use super::claim::Claim;
use super::shared::Shared;
use super::volumes::Volumes;
use crate::dir::HostDir;
use crate::failure::Result;
use crate::record::{How, Traces};
use crate::store::{Store, VersionTrace};
use crate::touched;

/// A guest that is ready goes on touching what it wants for its first work.
const AFTER_READY: Duration = Duration::from_secs(5);
/// Nobody works with a guest that runs for a build.
const AFTER_READY_MAKER: Duration = Duration::from_secs(1);
/// A guest that is not ready by then has touched what it wants.
const READY: Duration = Duration::from_secs(600);
/// A trace that is not known by then comes too late to be placed: QEMU is there soon.
const PLACE_PATIENCE: Duration = Duration::from_millis(50);
/// Pages placed at once.
const PLACE_PAGES: u64 = 64;
/// One generation in so many is recorded as it is. Odd, because a start and a suspend make two.
const UNPLACED: u64 = 7;
const PAGE: u64 = model::PAGE_BYTES as u64;

/// One start's traces.
pub struct Tracing {
    how: How,
    version: VersionId,
    generation: Generation,
    recorder: Arc<Recorder>,
    /// The recording went on for as long as it should.
    whole: AtomicBool,
    /// What the checkpoint has that this start goes on from.
    known: Traces,
    /// What that checkpoint's trace says, once it was read.
    own: OnceLock<Option<Trace>>,
    cancel: Cancel,
    cache: Arc<Cache>,
    /// The trace that this start uses, once it is known.
    to_place: Mutex<Receiver<Trace>>,
}

impl Tracing {
    /// Starts to record, and no more.
    pub fn record(
        claim: &Claim,
        how: How,
        volumes: &[Arc<Volume>],
        cache: &Arc<Cache>,
    ) -> Arc<Self> {
        Self::new(claim, how, volumes, cache).0
    }

    fn new(
        claim: &Claim,
        how: How,
        volumes: &[Arc<Volume>],
        cache: &Arc<Cache>,
    ) -> (Arc<Self>, SyncSender<Trace>) {
        let names = volumes.iter().map(|volume| volume.name().to_owned()).collect();
        let recorder = Arc::new(Recorder::new(names));
        for (place, volume) in (0..=u8::MAX).zip(volumes) {
            volume.record(&recorder, place);
        }
        let known = claim.checkpoint.as_ref().map(|checkpoint| checkpoint.traces);
        let (to_place, trace) = sync_channel(1);
        let this = Arc::new(Self {
            how,
            version: claim.head.version,
            generation: claim.generation,
            recorder,
            whole: AtomicBool::new(false),
            known: known.unwrap_or_default(),
            own: OnceLock::new(),
            cancel: Cancel::default(),
            cache: cache.clone(),
            to_place: Mutex::new(trace),
        });
        (this, to_place)
    }

    /// Starts to record, and to fetch ahead. Gives what ends when both are done.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another noun; a struct would rename them"
    )]
    pub fn start(
        host: &HostDir,
        store: &Store,
        claim: &Claim,
        how: How,
        maker: bool,
        volumes: &[Arc<Volume>],
        fetcher: &Arc<Fetcher>,
        shared: &Arc<Shared>,
    ) -> (Arc<Self>, Receiver<()>) {
        let (this, to_place) = Self::new(claim, how, volumes, fetcher.cache());
        let (done, settled) = channel();
        let ahead = {
            let (this, done) = (this.clone(), done.clone());
            let (store, fetcher, volumes) = (store.clone(), fetcher.clone(), volumes.to_vec());
            move || {
                this.fetch_ahead(&store, &fetcher, &volumes, &to_place);
                drop(done);
            }
        };
        std::thread::spawn(ahead);
        let (learning, store, source) = (this.clone(), store.clone(), fetcher.clone());
        let ready = shared.clone();
        // What another instance of its version would touch, only a start from the beginning tells.
        let first = !maker && claim.checkpoint.is_none();
        let first: Option<Vec<_>> = first.then(|| volumes.iter().map(Arc::downgrade).collect());
        let host = host.clone();
        std::thread::spawn(move || {
            let _ = ready.await_ready(READY);
            std::thread::sleep(if maker { AFTER_READY_MAKER } else { AFTER_READY });
            learning.whole.store(true, Ordering::Relaxed);
            learning.recorder.end();
            if let Err(failure) = learning.learn(&store, &*source) {
                eprintln!("what this start touched is not kept: {failure}");
            }
            let trace = learning.recorder.trace();
            if let Some(volumes) = first
                && let Err(failure) = touched::note(&host, learning.version, &trace, &volumes)
            {
                eprintln!("the plane is not told what this start touched: {failure}");
            }
            drop(done);
        });
        let reader = this.clone();
        shared.set_trace(Arc::new(move || reader.print()));
        (this, settled)
    }

    /// Puts what the starts before touched, and this host has, into the kernel's cache: touching it
    /// then costs the guest no way through FUSE. Ends when QEMU opens the files; runs beside its
    /// start.
    ///
    /// What is put there is not seen when it is touched. So that a trace forgets what is of no use
    /// any more, one start in [`UNPLACED`] or so goes without.
    pub fn place(&self, volumes: &Volumes) {
        let Ok(trace) = lock(&self.to_place).recv_timeout(PLACE_PATIENCE) else { return };
        if self.generation.0 % UNPLACED == UNPLACED - 1 {
            return;
        }
        let all: Vec<_> = volumes.all().collect();
        let mut buffer = Vec::new();
        for run in trace.runs() {
            let name = &trace.volumes()[usize::from(run.volume)];
            let Some(at) = all.iter().position(|volume| volume.name() == name) else { continue };
            let mut first = run.first;
            while first < run.first + run.count {
                let pages = (run.first + run.count - first).min(PLACE_PAGES);
                buffer.resize((pages * PAGE) as usize, 0);
                let is_local = all[at].peek_local(first * PAGE, &mut buffer).unwrap_or(false);
                if is_local && !volumes.place(all[at], first * PAGE, &buffer) {
                    return;
                }
                if is_local {
                    self.recorder.place(at as u8, first..first + pages);
                }
                first += pages;
            }
        }
    }

    /// Fetches what the starts before touched.
    fn fetch_ahead(
        &self,
        store: &Store,
        fetcher: &Arc<Fetcher>,
        volumes: &[Arc<Volume>],
        to_place: &SyncSender<Trace>,
    ) {
        let own = self.known.of(self.how).and_then(|id| Store::trace(&**fetcher, id).ok());
        let own = self.own.get_or_init(|| own);
        let trace = match own {
            Some(own) => Some(own.clone()),
            None => {
                let of_version = store.version_trace(&**fetcher, self.version, self.how);
                of_version.ok().and_then(|of_version| of_version.trace)
            }
        };
        if let Some(trace) = trace {
            let _ = to_place.try_send(trace.clone());
            volume::prefetch(&trace, volumes, &self.recorder, &self.cancel);
        }
    }

    /// Lets the version's trace know what this start touched.
    fn learn(&self, store: &Store, source: &dyn ChunkSource) -> Result<()> {
        let touched = self.recorder.trace();
        if touched.is_empty() || !store.is_writable() || self.cancel.is_cancelled() {
            return Ok(());
        }
        let known = store.version_trace(source, self.version, self.how)?;
        let learned = match &known {
            VersionTrace { trace: None, .. } => touched,
            VersionTrace { trace: Some(trace), .. }
                if trace.is_stale(&touched, Recorded::Whole) =>
            {
                trace.merged(&touched, Recorded::Whole)
            }
            _ => return Ok(()),
        };
        // Of two hosts that learn at once one is as good as the other.
        store.set_version_trace(self.version, self.how, &known, &learned).map(drop)
    }

    /// What a checkpoint that is taken now knows: what the one before it knew, and for starts of
    /// this kind what this one touched.
    pub fn for_checkpoint(&self) -> (Traces, Option<(How, Trace)>) {
        let touched = self.recorder.trace();
        if touched.is_empty() {
            return (self.known, None);
        }
        let whole = self.whole.load(Ordering::Relaxed);
        let recorded = if whole { Recorded::Whole } else { Recorded::Part };
        let merged = match self.own.get() {
            Some(Some(own)) => own.merged(&touched, recorded),
            _ => touched,
        };
        (self.known, Some((self.how, merged)))
    }

    /// A checkpoint with this trace is stored. The next start here has no time to ask a repository for
    /// it before QEMU opens its files.
    pub fn stored(&self, trace: &Trace) {
        self.cache.keep(&[&Verified::of(trace.encode())]);
    }

    /// Ends what is going on.
    pub fn end(&self) {
        self.cancel.cancel();
        self.recorder.end();
    }

    fn print(&self) -> TracePrint {
        let stats = self.recorder.stats();
        TracePrint {
            recorded: stats.recorded,
            placed: stats.placed,
            prefetched: stats.prefetched,
            hits: stats.hits,
            misses: stats.misses,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done under it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
