//! Collections and writers, one in the middle of the other, at every request to the store: what was
//! acknowledged stays whole, whatever came between which two requests.
//!
//! A race of threads meets the few moments that matter by chance; here each is met, once, always. The
//! store's clock stands still where a writer's own would show that time has passed, because the
//! promise rests on both measuring the same time.

mod common;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chunk::{ChunkSource, Urgency, id_of};
use common::{again, assert_whole, init, page, publish, store, verify};
use manifest::Manifest;
use model::{Generation, ManifestId};
use objects::{Features, Memory, ObjectError, ObjectMeta, Objects};
use repository::{GcOptions, PackWriter, RefPayload, Repository, Target};

/// Long against what a test takes: no writer's own clock comes near it.
const GRACE_MS: u64 = 10_000_000;

/// What lies in packs that no ref names any more: half of it will be wanted again.
const OLD: std::ops::Range<u64> = 0..6;
const WANTED: std::ops::Range<u64> = 2..8;
const KEPT: std::ops::Range<u64> = 100..103;

type Act = Box<dyn FnOnce() + Send>;

/// A store that does something else before its request number `at`.
struct Interrupted {
    inner: Arc<dyn Objects>,
    /// Counted from [`Interrupted::begin`] on.
    requests: AtomicU64,
    begun: AtomicBool,
    at: u64,
    act: Mutex<Option<Act>>,
}

impl Interrupted {
    fn new(inner: &Arc<dyn Objects>, at: u64, act: Act) -> Arc<Self> {
        let act = Mutex::new(Some(act));
        let (requests, begun) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { inner: inner.clone(), requests, begun, at, act })
    }

    fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }

    fn request(&self) -> &dyn Objects {
        if self.begun.load(Ordering::SeqCst)
            && self.requests.fetch_add(1, Ordering::SeqCst) == self.at
        {
            self.interrupt();
        }
        &*self.inner
    }

    /// Does it now, unless it was done.
    fn interrupt(&self) {
        let act = self.act.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(act) = act {
            act();
        }
    }

    /// Whether there were fewer requests than that.
    fn is_over(&self) -> bool {
        self.act.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Objects for Interrupted {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        self.request().get(key, bytes_max)
    }
    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        self.request().get_range(key, offset, bytes)
    }
    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.request().put_new(key, bytes)
    }
    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.request().put(key, bytes)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        self.request().list(prefix)
    }
    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        self.request().head(key)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.request().delete(key)
    }
    fn features(&self) -> Features {
        self.inner.features()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

/// How far the old packs are on their way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Old {
    /// Nothing names them, and no collection has seen that.
    Unnamed,
    /// Condemned a moment ago.
    Condemned,
    /// Condemned longer ago than the grace age: the next collection removes them.
    Due,
}

/// A repository with something that is needed and something that is on its way out.
struct World {
    memory: Arc<Memory>,
    objects: Arc<dyn Objects>,
    repository: Repository,
    kept: ManifestId,
    old: ManifestId,
    /// A session that began before anything was condemned, and found old chunks.
    pending: RefCell<Option<(Repository, PackWriter, ManifestId)>>,
}

fn options() -> GcOptions {
    GcOptions { keep_generations: 1, ..GcOptions::default() }
}

impl World {
    fn new(state: Old) -> Self {
        let memory = Arc::new(Memory::new());
        let objects: Arc<dyn Objects> = memory.clone();
        let repository = init(&objects, GRACE_MS);
        let kept = publish(&repository, "kept", KEPT).unwrap();
        let old = publish(&repository, "old", OLD).unwrap();
        let host = again(&repository, &objects).unwrap();
        let mut writer = host.writer().unwrap();
        let found = store(&host, &mut writer, WANTED).unwrap();
        let at = repository.refs().current("instance", "old").unwrap().unwrap();
        repository.refs().remove("instance", "old", at).unwrap();
        memory.advance_ms(2 * GRACE_MS);
        if state != Old::Unnamed {
            let stats = repository.gc(options()).unwrap();
            assert_eq!((stats.condemned_packs, stats.removed_packs), (1, 0), "{stats:?}");
        }
        if state == Old::Due {
            memory.advance_ms(2 * GRACE_MS);
        }
        let pending = RefCell::new(Some((host, writer, found)));
        Self { memory, objects, repository, kept, old, pending }
    }

    fn open(&self) -> Repository {
        again(&self.repository, &self.objects).unwrap()
    }

    /// In the end: what was acknowledged is whole, now and after more collections, which get rid of
    /// the rest.
    fn check(&self, acknowledged: Option<(ManifestId, std::ops::Range<u64>)>, what: &str) {
        let whole = || {
            let host = self.open();
            verify(&host, self.kept, KEPT);
            if let Some((id, seeds)) = &acknowledged {
                assert!(host.refs().read("instance", "wanted").unwrap().is_some(), "{what}");
                verify(&host, *id, seeds.clone());
            }
            assert_whole(&host);
        };
        whole();
        let mut last = None;
        for _ in 0..4 {
            self.memory.advance_ms(2 * GRACE_MS);
            last = Some(self.open().gc(options()).unwrap());
        }
        whole();
        assert_eq!(last.unwrap().condemned_bytes, 0, "{what}: what is needed was taken back");
    }
}

type Outcome = Result<ManifestId, Box<dyn std::error::Error + Send + Sync>>;

fn advance(host: &Repository, id: ManifestId) -> Outcome {
    let payload = RefPayload { roots: vec![Target::Manifest(id)], body: vec![] };
    host.refs().advance("instance", "wanted", Generation(0), &payload)?;
    Ok(id)
}

/// What a writer does in the middle of a collection.
#[derive(Debug, Clone, Copy)]
enum Writing {
    /// All of it: stores, and names.
    Anew,
    /// Ends a session that began long before, and names what it stored and found.
    Pending,
    /// Names what a session stored that ended just before the collection.
    Finished,
    /// Names what it has just read.
    Remembered,
}

/// Before request number `at` of a collection, a writer writes. False: there was no such request.
fn write_during_a_collection(state: Old, writing: Writing, at: u64) -> bool {
    let world = World::new(state);
    let pending = world.pending.take().unwrap();
    // A session that ended before the collection must have been seen by it or see it.
    let (host, mut writer, found) = match writing {
        Writing::Finished => {
            let host = world.open();
            let mut writer = host.writer().unwrap();
            let found = store(&host, &mut writer, WANTED).unwrap();
            (host, Some(writer), found)
        }
        _ => (pending.0, Some(pending.1), pending.2),
    };
    if let Writing::Finished = writing {
        writer.take().unwrap().finish().unwrap();
    }
    let (key, objects, old) = (world.open(), world.objects.clone(), world.old);
    let mut write = move || -> Outcome {
        match writing {
            Writing::Anew => publish(&again(&key, &objects)?, "wanted", WANTED),
            Writing::Pending => {
                writer.take().expect("it writes once").finish()?;
                advance(&host, found)
            }
            Writing::Finished => advance(&host, found),
            Writing::Remembered => {
                let host = again(&key, &objects)?;
                Manifest::open(old, &host)?;
                for seed in OLD {
                    host.fetch(&id_of(&page(seed)), Urgency::Urgent)?;
                }
                advance(&host, old)
            }
        }
    };
    let outcome = Arc::new(Mutex::new(None));
    let act: Act = {
        let outcome = outcome.clone();
        Box::new(move || *outcome.lock().unwrap() = Some(write()))
    };
    let interrupted = Interrupted::new(&world.objects, at, act);
    let collector = again(&world.repository, &(interrupted.clone() as _)).unwrap();
    interrupted.begin();
    let collected = collector.gc(options());
    let over = interrupted.is_over();
    interrupted.interrupt();
    let what = format!("{state:?}, {writing:?} before request {at}");
    collected.unwrap_or_else(|error| panic!("{what}: {error}"));
    let acknowledged = match outcome.lock().unwrap().take().expect("it was written") {
        Ok(id) if id == world.old => Some((id, OLD)),
        Ok(id) => Some((id, WANTED)),
        // Only who relied on what was about to go may be told to do it again.
        Err(error) => {
            assert_ne!(state, Old::Unnamed, "{what}: {error}");
            assert!(!matches!(writing, Writing::Anew | Writing::Finished), "{what}: {error}");
            None
        }
    };
    world.check(acknowledged, &what);
    !over
}

#[test]
fn a_writer_at_every_step_of_a_collection() {
    for state in [Old::Unnamed, Old::Condemned, Old::Due] {
        for writing in [Writing::Anew, Writing::Pending, Writing::Finished, Writing::Remembered] {
            let steps = (0..).take_while(|at| write_during_a_collection(state, writing, *at));
            assert!(steps.count() > 10, "{state:?}, {writing:?}");
        }
    }
}

/// Before request number `at` of a writer, two collections. False: there was no such request.
fn collect_during_a_write(state: Old, at: u64) -> bool {
    let world = World::new(state);
    drop(world.pending.take());
    let act: Act = {
        let collector = world.open();
        Box::new(move || {
            for _ in 0..2 {
                let stats = collector.gc(options()).unwrap();
                // What is condemned is old; what is removed was condemned long before.
                let removed = u64::from(state == Old::Due);
                assert!(stats.removed_packs <= removed, "before request {at}: {stats:?}");
                let condemned = u64::from(state == Old::Unnamed);
                assert!(stats.condemned_packs <= condemned, "before request {at}: {stats:?}");
            }
        })
    };
    let interrupted = Interrupted::new(&world.objects, at, act);
    let host = again(&world.repository, &(interrupted.clone() as _)).unwrap();
    interrupted.begin();
    let what = format!("{state:?}, collected before request {at}");
    let id = publish(&host, "wanted", WANTED).unwrap_or_else(|error| panic!("{what}: {error}"));
    let over = interrupted.is_over();
    interrupted.interrupt();
    world.check(Some((id, WANTED)), &what);
    !over
}

#[test]
fn a_collection_at_every_step_of_a_writer() {
    for state in [Old::Unnamed, Old::Condemned, Old::Due] {
        let steps = (0..).take_while(|at| collect_during_a_write(state, *at));
        assert!(steps.count() > 10, "{state:?}");
    }
}

/// Before request number `at` of a session, more time than the grace age passes, with collections: the
/// session is told, or what it stored is whole. False: there was no such request.
fn sleep_during_a_session(at: u64) -> bool {
    let world = World::new(Old::Unnamed);
    drop(world.pending.take());
    let act: Act = {
        let (collector, memory) = (world.open(), world.memory.clone());
        Box::new(move || {
            for _ in 0..3 {
                memory.advance_ms(2 * GRACE_MS);
                collector.gc(options()).unwrap();
            }
        })
    };
    let interrupted = Interrupted::new(&world.objects, at, act);
    let host = again(&world.repository, &(interrupted.clone() as _)).unwrap();
    let session = || -> Outcome {
        let mut writer = host.writer()?;
        let id = store(&host, &mut writer, WANTED)?;
        writer.finish()?;
        Ok(id)
    };
    interrupted.begin();
    let what = format!("slept before request {at}");
    let stored = session();
    let over = interrupted.is_over();
    interrupted.interrupt();
    // Named at once, as far as it goes: a session that was told to store again has nothing to name.
    let acknowledged = match stored.and_then(|id| advance(&host, id)) {
        Ok(id) => Some((id, WANTED)),
        Err(error) => {
            assert!(error.to_string().contains("store again"), "{what}: {error}");
            None
        }
    };
    world.check(acknowledged, &what);
    !over
}

#[test]
fn a_session_that_sleeps_at_any_step_is_told_or_whole() {
    assert!((0..).take_while(|at| sleep_during_a_session(*at)).count() > 5);
}
