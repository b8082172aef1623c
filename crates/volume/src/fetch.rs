//! Demand fetch: gets chunks from the repository, through the host's cache.
//!
//! ```text
//! get_many --in cache?--> done
//!     \--no--> a flight per chunk (one, however many wait) --> queue: urgent | background
//!                                                   worker --> source.fetch --> cache, flights
//! ```
//! Invariants
//! * One request in flight per chunk, and as far as the source can tell one for chunks that come
//!   together: the others wait for it, and are asked for only if it did not bring them.
//! * Neighbours that come along are kept, and end their flights.
//! * What [`Fetcher::get_near`] wants is one request; what that does not bring is asked for alone.
//! * Urgent goes before background, and background never occupies the last worker.
//! * Bounded: `threads` requests at once; the urgent queue holds what callers wait for; the
//!   background queue takes [`PREFETCH_MAX`] hints and [`TASKS_MAX`] tasks and drops the rest.
//! * A failed flight is forgotten when its waiters have been told: the next ask tries again.
//!
//! Waiting ends when the flight does, or within 50 ms when its caller is cancelled; the request
//! itself goes on and its result is kept.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use ambient::Duration;
use chunk::{ChunkId, ChunkSource, FetchError, Place, Urgency, Verified};

use crate::cache::Cache;
use crate::lock::lock;

/// Background hints that wait at most.
const PREFETCH_MAX: usize = 8192;
/// Background tasks that wait at most.
const TASKS_MAX: usize = 64;
/// How often a waiter looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Gets chunks. Dropping it ends its workers.
pub struct Fetcher {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    cache: Arc<Cache>,
    source: Arc<dyn ChunkSource>,
    queues: Mutex<Queues>,
    work: Condvar,
    background_max: usize,
    chunks: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Queues {
    urgent: VecDeque<ChunkId>,
    background: VecDeque<ChunkId>,
    /// What is to be asked for in one request each, before `background`.
    near: VecDeque<Vec<ChunkId>>,
    tasks: VecDeque<Task>,
    background_running: usize,
    urgent_running: usize,
    /// When the last urgent chunk came, or failed to.
    urgent_ended: Option<ambient::Instant>,
    /// What comes together and is being fetched, with those who wait for it to come along.
    together: HashMap<u64, Vec<(ChunkId, Urgency)>>,
    flights: HashMap<ChunkId, Arc<Flight>>,
    stopped: bool,
}

/// Something that fetches, done in the background.
type Task = Box<dyn FnOnce() + Send>;

/// What a worker does next.
enum Work {
    Fetch { id: ChunkId, urgency: Urgency, together: Option<u64> },
    FetchNear { ids: Vec<ChunkId>, together: BTreeSet<u64> },
    Do(Task),
}

/// One chunk on its way.
#[derive(Default)]
struct Flight {
    /// What it comes together with.
    together: Option<u64>,
    /// A worker has it. Changed only under the lock of the queues.
    started: AtomicBool,
    /// Somebody waits for it. Changed only under the lock of the queues.
    urgent: AtomicBool,
    outcome: Mutex<Option<Result<Verified, FetchError>>>,
    done: Condvar,
}

/// A flag by which waiting is ended.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends all waiting with this flag, now and later.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What came from the source since the fetcher was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Chunks, neighbours included.
    pub chunks: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
}

impl Fetcher {
    /// Starts `threads` workers (at least 1) that fetch from `source`.
    pub fn new(cache: Arc<Cache>, source: Arc<dyn ChunkSource>, threads: usize) -> Self {
        let threads = ambient::threads(threads.max(1));
        let shared = Arc::new(Shared {
            cache,
            source,
            queues: Mutex::default(),
            work: Condvar::new(),
            background_max: (threads - 1).max(1),
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let workers = (0..threads)
            .map(|_| {
                let shared = shared.clone();
                ambient::spawn("fetch".to_owned(), move || shared.work())
                    .expect("the operating system has another thread")
            })
            .collect();
        Self { shared, workers }
    }

    /// The host's cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.shared.cache
    }

    /// Gets chunks from the source, all at once, whatever the cache has; the results are in the
    /// order of `ids`. `None` when cancelled before all were there.
    pub fn get_many(
        &self,
        ids: &[ChunkId],
        urgency: Urgency,
        cancel: &Cancel,
    ) -> Option<Vec<Result<Verified, FetchError>>> {
        let together: Vec<_> = ids.iter().map(|id| self.shared.source.together(id)).collect();
        let flights: Vec<Arc<Flight>> = {
            let mut queues = lock(&self.shared.queues);
            let ids = ids.iter().zip(together);
            ids.map(|(id, together)| queues.enrol(id, together, urgency)).collect()
        };
        self.shared.work.notify_all();
        flights.iter().map(|flight| flight.wait(cancel)).collect()
    }

    /// Gets chunks that lie near one another from the source, in the background, in one request;
    /// the results are in the order of `ids`. `None` when cancelled before all were there.
    pub fn get_near(
        &self,
        ids: &[ChunkId],
        cancel: &Cancel,
    ) -> Option<Vec<Result<Verified, FetchError>>> {
        let together: Vec<_> = ids.iter().map(|id| self.shared.source.together(id)).collect();
        let flights: Vec<Arc<Flight>> = {
            let mut queues = lock(&self.shared.queues);
            let mut near = Vec::new();
            let flights = ids.iter().zip(together).map(|(id, together)| {
                let (flight, is_new) = queues.flight(id, together);
                if is_new {
                    near.push(*id);
                }
                flight
            });
            let flights = flights.collect();
            if !near.is_empty() {
                queues.near.push_back(near);
            }
            flights
        };
        self.shared.work.notify_all();
        flights.iter().map(|flight| flight.wait(cancel)).collect()
    }

    /// Where a chunk lies in the source, as far as is known.
    pub(crate) fn place(&self, id: &ChunkId) -> Option<Place> {
        self.shared.source.place(id)
    }

    /// Asks for chunks that will be wanted soon. A hint: it may be dropped, and errors are not
    /// told.
    pub fn prefetch(&self, ids: impl IntoIterator<Item = ChunkId>) {
        let missing = ids.into_iter().filter(|id| !self.shared.cache.has(id));
        let missing: Vec<_> =
            missing.map(|id| (id, self.shared.source.together(&id))).take(PREFETCH_MAX).collect();
        let mut queues = lock(&self.shared.queues);
        for (id, together) in missing {
            if queues.background.len() >= PREFETCH_MAX {
                break;
            }
            queues.enrol(&id, together, Urgency::Background);
        }
        drop(queues);
        self.shared.work.notify_all();
    }

    /// Does something that itself fetches, in the background. A hint: `false` when there is no
    /// worker for it, or too much waits already.
    pub(crate) fn spawn(&self, task: impl FnOnce() + Send + 'static) -> bool {
        let mut queues = lock(&self.shared.queues);
        // Whoever waits for a chunk in a worker's place needs another worker to bring it.
        let accepted = self.workers.len() > 1 && queues.tasks.len() < TASKS_MAX;
        if accepted {
            queues.tasks.push_back(Box::new(task));
            drop(queues);
            self.shared.work.notify_all();
        }
        accepted
    }

    /// Whether anybody waits for an urgent chunk.
    pub(crate) fn is_waited_for(&self) -> bool {
        lock(&self.shared.queues).is_waited_for()
    }

    /// Whether anybody waits for an urgent chunk, or did within this time: who touches one page after
    /// another waits again in a moment.
    pub fn was_waited_for(&self, within: ambient::Duration) -> bool {
        let queues = lock(&self.shared.queues);
        queues.is_waited_for() || queues.urgent_ended.is_some_and(|ended| ended.elapsed() < within)
    }

    /// Counts.
    pub fn stats(&self) -> FetchStats {
        FetchStats {
            chunks: self.shared.chunks.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A source that looks into the host's cache first: for manifests and other records.
impl ChunkSource for Fetcher {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        if let Some(chunk) = self.shared.cache.read(id) {
            return Ok(vec![chunk]);
        }
        let never = Cancel::default();
        let results = self.get_many(std::slice::from_ref(id), urgency, &never);
        results.unwrap_or_default().into_iter().collect()
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        lock(&self.shared.queues).stopped = true;
        self.shared.work.notify_all();
        let this = std::thread::current().id();
        // A task may have been the last to hold this: then this is a worker, on its way out.
        for worker in self.workers.drain(..).filter(|worker| worker.thread().id() != this) {
            // A worker does not panic; and if it did, there is nobody to tell.
            let _ = worker.join();
        }
    }
}

impl Queues {
    fn is_waited_for(&self) -> bool {
        self.urgent_running > 0 || !self.urgent.is_empty()
    }

    /// The flight of a chunk, queued if it is new, moved forward if it is more urgent now.
    fn enrol(&mut self, id: &ChunkId, together: Option<u64>, urgency: Urgency) -> Arc<Flight> {
        let (flight, is_new) = self.flight(id, together);
        flight.urgent.fetch_or(urgency == Urgency::Urgent, Ordering::Relaxed);
        match (is_new, urgency) {
            (true, Urgency::Urgent) => self.urgent.push_back(*id),
            (true, Urgency::Background) => self.background.push_back(*id),
            // It may be queued twice now; whoever takes it second finds it started or gone.
            (false, Urgency::Urgent) if !flight.started.load(Ordering::Relaxed) => {
                self.urgent.push_back(*id);
            }
            _ => {}
        }
        flight
    }

    /// The flight of a chunk, and whether it is new; then it is in no queue yet.
    fn flight(&mut self, id: &ChunkId, together: Option<u64>) -> (Arc<Flight>, bool) {
        if let Some(known) = self.flights.get(id) {
            return (known.clone(), false);
        }
        let flight = Arc::new(Flight { together, ..Flight::default() });
        self.flights.insert(*id, flight.clone());
        (flight, true)
    }

    /// Of chunks that were to be asked for in one request those that still are, started.
    fn take_near(&mut self, ids: Vec<ChunkId>) -> Option<Work> {
        let mut taken = Vec::with_capacity(ids.len());
        let mut keys = BTreeSet::new();
        for id in ids {
            let Some(flight) = self.flights.get(&id) else { continue };
            if flight.started.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(key) = flight.together.filter(|key| !keys.contains(key)) {
                // Somebody else's request is bringing it.
                if let Some(waiting) = self.together.get_mut(&key) {
                    waiting.push((id, Urgency::Background));
                    continue;
                }
                keys.insert(key);
            }
            flight.started.store(true, Ordering::Relaxed);
            taken.push(id);
        }
        keys.iter().for_each(|key| drop(self.together.insert(*key, Vec::new())));
        (!taken.is_empty()).then_some(Work::FetchNear { ids: taken, together: keys })
    }

    /// The next chunk to fetch.
    fn take(&mut self, background_max: usize) -> Option<Work> {
        loop {
            let (id, urgency) = if let Some(id) = self.urgent.pop_front() {
                (id, Urgency::Urgent)
            } else if self.background_running < background_max {
                if let Some(task) = self.tasks.pop_front() {
                    self.background_running += 1;
                    return Some(Work::Do(task));
                }
                if let Some(near) = self.near.pop_front() {
                    let Some(work) = self.take_near(near) else { continue };
                    self.background_running += 1;
                    return Some(work);
                }
                (self.background.pop_front()?, Urgency::Background)
            } else {
                return None;
            };
            let Some(flight) = self.flights.get(&id) else { continue };
            if flight.started.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(together) = flight.together {
                if let Some(waiting) = self.together.get_mut(&together) {
                    waiting.push((id, urgency));
                    continue;
                }
                self.together.insert(together, Vec::new());
            }
            flight.started.store(true, Ordering::Relaxed);
            match urgency {
                Urgency::Urgent => self.urgent_running += 1,
                Urgency::Background => self.background_running += 1,
            }
            return Some(Work::Fetch { id, urgency, together: flight.together });
        }
    }

    /// Queues again, in front, what was expected to come along and did not.
    fn arrived(&mut self, together: u64) {
        for (id, urgency) in self.together.remove(&together).into_iter().flatten().rev() {
            if self.flights.contains_key(&id) {
                match urgency {
                    Urgency::Urgent => self.urgent.push_front(id),
                    Urgency::Background => self.background.push_front(id),
                }
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let work = {
                let mut queues = lock(&self.queues);
                loop {
                    if queues.stopped {
                        return;
                    }
                    if let Some(next) = queues.take(self.background_max) {
                        break next;
                    }
                    queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
                }
            };
            match work {
                Work::Fetch { id, urgency, together } => {
                    // A source that panics must not leave a guest waiting for ever.
                    let fetched =
                        catch_unwind(AssertUnwindSafe(|| self.source.fetch(&id, urgency)))
                            .unwrap_or_else(|_| {
                                let detail = "the source panicked".to_owned();
                                Err(FetchError::Unavailable { detail })
                            });
                    self.land(&id, urgency, together, fetched);
                }
                Work::FetchNear { ids, together } => {
                    let fetch = || self.source.fetch_near(&ids, Urgency::Background);
                    let chunks = catch_unwind(AssertUnwindSafe(fetch)).unwrap_or_default();
                    self.land_near(&ids, &together, chunks);
                }
                Work::Do(task) => {
                    // It has nobody to tell.
                    let _ = catch_unwind(AssertUnwindSafe(task));
                    lock(&self.queues).background_running -= 1;
                    self.work.notify_all();
                }
            }
        }
    }

    /// Keeps what came and tells who waits.
    fn land(
        &self,
        id: &ChunkId,
        urgency: Urgency,
        together: Option<u64>,
        fetched: Result<Vec<Verified>, FetchError>,
    ) {
        let (chunks, mut failure) = match fetched {
            Ok(chunks) if chunks.iter().any(|chunk| chunk.id() == *id) => (chunks, None),
            Ok(chunks) => {
                let detail = "the source gave other chunks".to_owned();
                (chunks, Some(FetchError::Damaged { id: *id, detail }))
            }
            Err(error) => (Vec::new(), Some(error)),
        };
        self.keep(&chunks, |chunk| chunk == id);
        let mut landed = Vec::new();
        {
            let mut queues = lock(&self.queues);
            match urgency {
                Urgency::Urgent => {
                    queues.urgent_running -= 1;
                    queues.urgent_ended = Some(ambient::now());
                }
                Urgency::Background => queues.background_running -= 1,
            }
            for chunk in chunks {
                if let Some(flight) = queues.flights.remove(&chunk.id()) {
                    landed.push((flight, Ok(chunk)));
                }
            }
            if let Some(error) = failure.take()
                && let Some(flight) = queues.flights.remove(id)
            {
                landed.push((flight, Err(error)));
            }
            if let Some(together) = together {
                queues.arrived(together);
            }
        }
        self.tell(landed);
    }

    /// The same for one request for many: what it did not bring is asked for alone.
    fn land_near(&self, ids: &[ChunkId], together: &BTreeSet<u64>, chunks: Vec<Verified>) {
        let wanted: HashSet<&ChunkId> = ids.iter().collect();
        self.keep(&chunks, |chunk| wanted.contains(chunk));
        let mut landed = Vec::new();
        {
            let mut queues = lock(&self.queues);
            queues.background_running -= 1;
            for chunk in chunks {
                if let Some(flight) = queues.flights.remove(&chunk.id()) {
                    landed.push((flight, Ok(chunk)));
                }
            }
            for id in ids.iter().rev() {
                if let Some(flight) = queues.flights.get(id) {
                    flight.started.store(false, Ordering::Relaxed);
                    match flight.urgent.load(Ordering::Relaxed) {
                        true => queues.urgent.push_front(*id),
                        false => queues.background.push_front(*id),
                    }
                }
            }
            together.iter().for_each(|key| queues.arrived(*key));
        }
        self.tell(landed);
    }

    /// Keeps what came in the cache. Before the flights end: who asks just afterwards finds it
    /// there. What was asked for is kept even if it seems to be there: it may be damaged.
    fn keep(&self, chunks: &[Verified], was_asked_for: impl Fn(&ChunkId) -> bool) {
        let wanted = |chunk: &&Verified| was_asked_for(&chunk.id()) || !self.cache.has(&chunk.id());
        self.cache.keep(&chunks.iter().filter(wanted).collect::<Vec<_>>());
        for chunk in chunks {
            self.chunks.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    }

    /// Tells who waits.
    fn tell(&self, landed: Vec<(Arc<Flight>, Result<Verified, FetchError>)>) {
        // What waited for these, or for a place in the background, may go on.
        self.work.notify_all();
        for (flight, outcome) in landed {
            *lock(&flight.outcome) = Some(outcome);
            flight.done.notify_all();
        }
    }
}

impl Flight {
    fn wait(&self, cancel: &Cancel) -> Option<Result<Verified, FetchError>> {
        let mut outcome = lock(&self.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return Some(outcome.clone());
            }
            if cancel.is_cancelled() {
                return None;
            }
            outcome = self
                .done
                .wait_timeout(outcome, CANCEL_POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
