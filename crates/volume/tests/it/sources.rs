//! Repositories that are away, dawdle or lie.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;

use chunk::{ChunkId, ChunkSource, FetchError, Memory, Place, Urgency, Verified};
use volume::{
    Cancel, Recorder, Scrub, Stall, StallObserver, Trace, TraceStats, Volume, VolumeError, prefetch,
};

use crate::support::{Host, MemDisk, PAGE, offline, options, page, read, seal};

const P: u64 = PAGE as u64;
const PAGES: u64 = 64;

/// A source whose answers a test decides.
struct Moody {
    store: Arc<Memory>,
    mood: Mutex<Mood>,
    changed: Condvar,
    asked: Mutex<Vec<(ChunkId, Urgency)>>,
    /// Chunks that come along with any other.
    neighbours: Mutex<Vec<ChunkId>>,
    /// Whether it says so beforehand.
    tells: AtomicBool,
    /// Whether it knows that pages lie side by side, and which it was asked for at once.
    places: AtomicBool,
    asked_near: Mutex<Vec<Vec<ChunkId>>>,
    withheld: Mutex<Vec<ChunkId>>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

#[derive(Debug, Clone, PartialEq)]
enum Mood {
    Well,
    Away,
    /// Holds every answer.
    Held,
    Lies,
    Panics,
}

impl Moody {
    fn new(store: &Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            mood: Mutex::new(Mood::Well),
            changed: Condvar::new(),
            asked: Mutex::default(),
            neighbours: Mutex::default(),
            tells: AtomicBool::new(false),
            places: AtomicBool::new(false),
            asked_near: Mutex::default(),
            withheld: Mutex::default(),
            at_once: AtomicUsize::new(0),
            at_once_max: AtomicUsize::new(0),
        })
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    fn asked(&self) -> Vec<(ChunkId, Urgency)> {
        self.asked.lock().unwrap().clone()
    }

    fn wait_for_asks(&self, n: usize) {
        let deadline = ambient::now() + Duration::from_secs(10);
        while self.asked().len() < n {
            assert!(ambient::now() < deadline, "only {} asks", self.asked().len());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl ChunkSource for Moody {
    fn fetch(&self, id: &ChunkId, urgency: Urgency) -> Result<Vec<Verified>, FetchError> {
        self.asked.lock().unwrap().push((*id, urgency));
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once_max.fetch_max(now, Ordering::SeqCst);
        let mood = self
            .changed
            .wait_while(self.mood.lock().unwrap(), |mood| *mood == Mood::Held)
            .unwrap()
            .clone();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match mood {
            Mood::Away => Err(FetchError::Unavailable { detail: "no route".to_owned() }),
            Mood::Lies => Ok(vec![Verified::of(b"something else".as_slice())]),
            Mood::Panics => panic!("a bug in a source (a test)"),
            _ => {
                let mut chunks = self.store.fetch(id, urgency)?;
                for neighbour in self.neighbours.lock().unwrap().iter() {
                    chunks.extend(self.store.fetch(neighbour, urgency)?);
                }
                Ok(chunks)
            }
        }
    }

    fn place(&self, id: &ChunkId) -> Option<Place> {
        let at = (0..PAGES).find(|n| *id == chunk::id_of(&page(*n)))?;
        let known = self.places.load(Ordering::SeqCst);
        known.then_some(Place { object: 1, offset: at * P, bytes: PAGE as u32 })
    }

    fn fetch_near(&self, ids: &[ChunkId], urgency: Urgency) -> Vec<Verified> {
        assert_eq!(urgency, Urgency::Background);
        self.asked_near.lock().unwrap().push(ids.to_vec());
        let mood = self.changed.wait_while(self.mood.lock().unwrap(), |mood| *mood == Mood::Held);
        match *mood.unwrap() {
            Mood::Panics => panic!("a bug in a source (a test)"),
            Mood::Well => {}
            _ => return Vec::new(),
        }
        let withheld = self.withheld.lock().unwrap();
        let here = ids.iter().filter(|id| !withheld.contains(id));
        here.filter_map(|id| self.store.fetch(id, urgency).ok()).flatten().collect()
    }

    fn together(&self, id: &ChunkId) -> Option<u64> {
        if let Some(place) = self.place(id) {
            return Some(place.offset);
        }
        // Sometimes wrong: then nothing is lost but time.
        let expected = self.tells.load(Ordering::SeqCst);
        (expected && (0..25).any(|n| *id == chunk::id_of(&page(n)))).then_some(1)
    }
}

/// A base of [`PAGES`] pages, and a volume on it on a host that has only its index.
fn on_moody() -> (Arc<Moody>, Host, Volume) {
    let store = Arc::new(Memory::new());
    let maker = Host::new(store.clone());
    let volume = maker.create(&MemDisk::new(), None, PAGES);
    volume.write_at(0, &(0..PAGES).flat_map(page).collect::<Vec<u8>>()).unwrap();
    let base = seal(&volume, &store).manifest;
    let moody = Moody::new(&store);
    let host = Host::new(moody.clone());
    let volume = host.create(&MemDisk::new(), Some(base), PAGES);
    read(&volume, 63 * P, PAGE).unwrap();
    moody.asked.lock().unwrap().clear();
    (moody, host, volume)
}

#[test]
fn a_scrub_waits_for_guests_and_ends_when_the_source_is_away() {
    let (moody, _host, volume) = on_moody();
    let volume = Arc::new(volume);
    // A guest waits for a page: the scrub asks for nothing.
    moody.be(Mood::Held);
    let scrub = Arc::new(Scrub::default());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&volume, 7 * P, PAGE).unwrap());
        moody.wait_for_asks(1);
        let scrubbing = scope.spawn(|| volume.scrub(&scrub));
        // Longer than it takes to look for who waits.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(moody.asked().len(), 1, "urgent before background");
        moody.be(Mood::Well);
        assert!(reader.join().unwrap() == page(7));
        assert_eq!(scrubbing.join().unwrap().unwrap().fetched_pages, PAGES - 2);
    });
    assert!(volume.is_local(0, PAGES * P));
    // With nobody there it does not ask for page after page.
    let (moody, _host, volume) = on_moody();
    moody.be(Mood::Away);
    let scrub = Scrub::default();
    assert!(volume.scrub(&scrub).unwrap_err().is_passing());
    assert!(scrub.progress().passed_pages < PAGES);
    // A paused one asks for nothing, and can be cancelled.
    moody.be(Mood::Well);
    scrub.pause();
    let before = moody.asked().len();
    std::thread::scope(|scope| {
        let scrubbing = scope.spawn(|| volume.scrub(&scrub));
        std::thread::sleep(Duration::from_millis(100));
        assert!(moody.asked().len() == before && !scrubbing.is_finished());
        scrub.cancel();
        assert!(matches!(scrubbing.join().unwrap(), Err(VolumeError::Cancelled { .. })));
    });
    assert_eq!(moody.asked().len(), before);
}

#[test]
fn errors_of_a_source_name_volume_and_page() {
    let (moody, _host, volume) = on_moody();
    moody.be(Mood::Away);
    assert_eq!(
        read(&volume, 7 * P, PAGE).unwrap_err().to_string(),
        "volume t/disk, page 7: chunks cannot be fetched now: no route"
    );
    moody.be(Mood::Lies);
    let error = read(&volume, 7 * P, PAGE).unwrap_err();
    assert!(
        matches!(error, VolumeError::Fetch { page: 7, error: FetchError::Damaged { .. }, .. }),
        "{error}"
    );
    moody.be(Mood::Panics);
    assert!(read(&volume, 7 * P, PAGE).unwrap_err().is_passing());
    moody.be(Mood::Well);
    moody.store.plant(chunk::id_of(&page(7)), page(8));
    let error = read(&volume, 6 * P, 3 * PAGE).unwrap_err();
    assert_eq!(error.page(), Some(7));
    assert!(read(&volume, 6 * P, PAGE).unwrap() == page(6));
    // A write of a part needs the page, a whole one does not.
    assert!(volume.write_at(7 * P + 1, b"x").is_err());
    volume.write_at(7 * P, &page(70)).unwrap();
    volume.write_at(7 * P + 1, b"x").unwrap();
}

#[test]
fn one_request_for_many_readers() {
    let (moody, _host, volume) = on_moody();
    moody.be(Mood::Held);
    let barrier = Barrier::new(9);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert!(read(&volume, 5 * P, PAGE).unwrap() == page(5));
            });
        }
        barrier.wait();
        moody.wait_for_asks(1);
        std::thread::sleep(Duration::from_millis(50));
        moody.be(Mood::Well);
    });
    assert_eq!(moody.asked().len(), 1);
    assert_eq!(volume.stats().fetched_bytes, 9 * P, "each reader waited for its page");
}

#[test]
fn neighbours_answer_those_who_wait_for_them() {
    let (moody, host, volume) = on_moody();
    *moody.neighbours.lock().unwrap() = (0..20).map(|n| chunk::id_of(&page(n))).collect();
    moody.be(Mood::Held);
    std::thread::scope(|scope| {
        // Ten pages, three workers: those whose turn has not come need not be asked for.
        scope.spawn(|| assert!(read(&volume, 0, 10 * PAGE).is_ok()));
        moody.wait_for_asks(3);
        moody.be(Mood::Well);
    });
    assert_eq!(moody.asked().len(), 3);
    assert!(volume.is_local(0, 20 * P));
    // The header, the leaf and page 63 were there before. The reader does not wait for the last of
    // the three answers once it has its pages.
    let deadline = ambient::now() + Duration::from_secs(10);
    while host.fetcher.stats().chunks != 3 + 3 * 21 && ambient::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(host.fetcher.stats().chunks, 3 + 3 * 21);
}

#[test]
fn what_comes_together_is_asked_for_once() {
    let (moody, host, volume) = on_moody();
    *moody.neighbours.lock().unwrap() = (0..20).map(|n| chunk::id_of(&page(n))).collect();
    moody.tells.store(true, Ordering::SeqCst);
    let bytes = read(&volume, 0, 20 * PAGE).unwrap();
    assert!(bytes == (0..20).flat_map(page).collect::<Vec<u8>>());
    assert_eq!(moody.asked().len(), 1);
    // What did not come along after all is asked for.
    host.fetcher.prefetch((20..22).map(|n| chunk::id_of(&page(n))));
    let bytes = read(&volume, 20 * P, 10 * PAGE).unwrap();
    assert!(bytes == (20..30).flat_map(page).collect::<Vec<u8>>());
    // An error ends only the flight that it belongs to.
    let (moody, _host, volume) = on_moody();
    moody.tells.store(true, Ordering::SeqCst);
    moody.store.remove(&chunk::id_of(&page(3)));
    assert_eq!(read(&volume, 0, 10 * PAGE).unwrap_err().page(), Some(3));
    assert!(read(&volume, 4 * P, 6 * PAGE).is_ok());
}

#[test]
fn the_pages_of_one_read_are_fetched_at_once() {
    let (moody, _host, volume) = on_moody();
    moody.be(Mood::Held);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(read(&volume, 0, 10 * PAGE).is_ok()));
        moody.wait_for_asks(3);
        moody.be(Mood::Well);
    });
    assert_eq!(moody.at_once_max.load(Ordering::SeqCst), 3, "as many as there are workers");
    assert_eq!(moody.asked().len(), 10);
}

#[test]
fn urgent_goes_before_background() {
    let (moody, host, volume) = on_moody();
    moody.be(Mood::Held);
    host.fetcher.prefetch((0..40).map(|n| chunk::id_of(&page(n))));
    moody.wait_for_asks(2);
    std::thread::scope(|scope| {
        // One worker is left for it, however much waits in the background.
        scope.spawn(|| assert!(read(&volume, 50 * P, PAGE).is_ok()));
        moody.wait_for_asks(3);
        assert_eq!(moody.asked()[2], (chunk::id_of(&page(50)), Urgency::Urgent));
        // What is wanted urgently now overtakes the rest of the background.
        scope.spawn(|| assert!(read(&volume, 39 * P, PAGE).is_ok()));
        std::thread::sleep(Duration::from_millis(50));
        moody.be(Mood::Well);
    });
    let asked = moody.asked();
    let at = asked.iter().position(|(id, _)| *id == chunk::id_of(&page(39))).unwrap();
    assert!(at <= 5, "{at}");
    drop(volume);
    drop(host);
}

/// Counts what it is told.
#[derive(Default)]
struct Watcher {
    stalled: Mutex<Vec<(Option<u64>, String, u32)>>,
    resumed: AtomicUsize,
}

impl StallObserver for Watcher {
    fn stalled(&self, stall: &Stall<'_>) {
        self.stalled.lock().unwrap().push((stall.page, stall.error.to_string(), stall.attempts));
    }

    fn resumed(&self, volume: &str, _: Duration) {
        assert_eq!(volume, "t/disk");
        self.resumed.fetch_add(1, Ordering::SeqCst);
    }
}

fn watched() -> (Arc<Moody>, Host, Arc<Volume>, Arc<Watcher>) {
    let (moody, host, volume) = on_moody();
    let (volume, watcher) = watched_on(&MemDisk::new(), &host, volume.base());
    read(&volume, 63 * P, PAGE).unwrap();
    (moody, host, Arc::new(volume), watcher)
}

fn watched_on(
    disk: &MemDisk,
    host: &Host,
    base: Option<model::ManifestId>,
) -> (Volume, Arc<Watcher>) {
    let watcher = Arc::new(Watcher::default());
    let mut options = options();
    options.observer = Some(watcher.clone());
    let (disk, fetcher) = (Arc::new(disk.disk.clone()), host.fetcher.clone());
    (Volume::create_on(disk, base, PAGES * P, fetcher, options).unwrap(), watcher)
}

#[test]
fn a_reader_waits_for_a_repository_that_is_away() {
    let (moody, _host, volume, watcher) = watched();
    moody.be(Mood::Away);
    let reader = {
        let volume = volume.clone();
        std::thread::spawn(move || {
            let mut bytes = vec![0; PAGE];
            volume.read_at_until(7 * P, &mut bytes).map(|()| bytes)
        })
    };
    let writer = {
        let volume = volume.clone();
        std::thread::spawn(move || volume.write_at_until(9 * P + 100, b"part"))
    };
    moody.wait_for_asks(4);
    moody.be(Mood::Lies);
    moody.wait_for_asks(moody.asked().len() + 2);
    assert!(!reader.is_finished() && !writer.is_finished());
    // Others are not held up.
    assert!(read(&volume, 63 * P, PAGE).unwrap() == page(63));
    volume.write_at(20 * P, &page(1)).unwrap();
    moody.be(Mood::Well);
    assert!(reader.join().unwrap().unwrap() == page(7));
    writer.join().unwrap().unwrap();
    let mut expected = page(9);
    expected[100..104].copy_from_slice(b"part");
    assert!(read(&volume, 9 * P, PAGE).unwrap() == expected);
    assert_eq!(watcher.resumed.load(Ordering::SeqCst), 2);
    let stalled = watcher.stalled.lock().unwrap();
    assert!(stalled.iter().any(|(page, error, attempts)| *page == Some(7)
        && error.contains("page 7")
        && *attempts == 1));
}

#[test]
fn cancelling_ends_all_waiting() {
    for mood in [Mood::Away, Mood::Held] {
        let (moody, _host, volume, _) = watched();
        moody.be(mood);
        let reader = {
            let volume = volume.clone();
            std::thread::spawn(move || volume.read_at_until(7 * P, &mut [0; PAGE]))
        };
        moody.wait_for_asks(1);
        let since = ambient::now();
        volume.cancel();
        assert!(matches!(reader.join().unwrap(), Err(VolumeError::Cancelled { .. })));
        assert!(since.elapsed() < Duration::from_secs(2));
        // What is local still works, so that it can be flushed and closed.
        volume.write_at(0, &page(3)).unwrap();
        volume.flush().unwrap();
        moody.be(Mood::Well);
    }
}

#[test]
fn damage_on_this_host_holds_the_guest_and_says_so() {
    let host = offline();
    let disk = MemDisk::new();
    let (volume, watcher) = watched_on(&disk, &host, None);
    volume.write_at(0, &page(1)).unwrap();
    disk.tamper("1.data", |bytes| bytes[0] ^= 1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut bytes = vec![0; PAGE];
            volume.read_at_until(0, &mut bytes).map(|()| bytes)
        });
        while watcher.stalled.lock().unwrap().len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!reader.is_finished());
        // Mended from elsewhere, here by writing the page anew.
        volume.write_at(0, &page(2)).unwrap();
        assert!(reader.join().unwrap().unwrap() == page(2));
    });
    let stalled = watcher.stalled.lock().unwrap();
    assert!(stalled[0].0 == Some(0) && stalled[0].1.contains("damaged"), "{stalled:?}");
    // What the caller did wrong is not waited for.
    let error = volume.read_at_until(PAGES * P, &mut [0; 1]);
    assert!(matches!(error, Err(VolumeError::OutOfRange { .. })));
}

#[test]
fn accesses_beyond_the_end_are_refused() {
    let host = offline();
    let volume = host.create(&MemDisk::new(), None, PAGES);
    let end = PAGES * P;
    for (offset, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (0, end + 1)] {
        let refused = |result| matches!(result, Err(VolumeError::OutOfRange { .. }));
        assert!(refused(volume.discard(offset, len)));
        if len < 10 {
            assert!(refused(volume.read_at(offset, &mut vec![0; len as usize])));
            assert!(refused(volume.write_at(offset, &vec![0; len as usize])));
        }
    }
    volume.read_at(end, &mut []).unwrap();
    volume.write_at(0, &[]).unwrap();
    volume.discard(end, 0).unwrap();
}

#[test]
fn a_cancelled_fetch_gives_nothing() {
    let (moody, host, _volume) = on_moody();
    moody.be(Mood::Held);
    let cancel = Cancel::default();
    cancel.cancel();
    assert!(host.fetcher.get_many(&[chunk::id_of(&page(1))], Urgency::Urgent, &cancel).is_none());
    moody.be(Mood::Well);
}

#[test]
fn reading_ahead_waits_for_nobody() {
    let (moody, host, volume) = on_moody();
    let mut options = options();
    options.readahead_bytes = 8 * P;
    let disk = Arc::new(MemDisk::new());
    let base = volume.base();
    let volume = Volume::create_on(
        Arc::new(disk.disk.clone()),
        base,
        PAGES * P,
        host.fetcher.clone(),
        options,
    )
    .unwrap();
    read(&volume, 0, PAGE).unwrap();
    read(&volume, P, PAGE).unwrap();
    let comes = |pages: u64| {
        let deadline = ambient::now() + Duration::from_secs(10);
        while !volume.is_local(0, pages * P) {
            assert!(ambient::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    // In the background as much arrives as was read, and not a whole window at once.
    comes(4);
    assert!(!volume.is_local(6 * P, P));
    read(&volume, 2 * P, PAGE).unwrap();
    read(&volume, 3 * P, PAGE).unwrap();
    comes(8);
    assert!(!volume.is_local(20 * P, P));
    // And a source that holds everything holds up only who wants a page that is not here.
    moody.be(Mood::Held);
    for n in 4..8 {
        assert!(read(&volume, n * P, PAGE).unwrap() == page(n));
    }
    moody.be(Mood::Well);
}

#[test]
fn a_cache_that_cannot_be_written_fails_no_read() {
    let (moody, _host, volume) = on_moody();
    // So small that it soon needs a new segment, which it cannot make.
    let host = Host::with_cache(moody.clone(), 1);
    let volume = host.create(&MemDisk::new(), volume.base(), PAGES);
    std::fs::remove_dir_all(host.dir.path()).unwrap();
    let expected: Vec<u8> = (0..PAGES).flat_map(page).collect();
    for _ in 0..2 {
        assert!(read(&volume, 0, expected.len()).unwrap() == expected);
    }
    assert!(moody.asked().len() as u64 >= PAGES);
    assert!(host.fetcher.cache().stats().failures > 0);
    volume.write_at(3, b"part").unwrap();
    assert_eq!(seal(&volume, &moody.store).dirty_bytes, P);
    assert_eq!(read(&volume, 3, 4).unwrap(), b"part");
}

/// A volume whose source knows what lies side by side, and what records its touches.
fn on_placed() -> (Arc<Moody>, Host, [Arc<Volume>; 1], Arc<Recorder>) {
    let (moody, host, volume) = on_moody();
    moody.places.store(true, Ordering::SeqCst);
    let recorder = Arc::new(Recorder::new(vec![volume.name().to_owned()]));
    volume.record(&recorder, 0);
    (moody, host, [Arc::new(volume)], recorder)
}

fn trace(pages: &[u64]) -> Trace {
    Trace::of(vec!["t/disk".to_owned()], pages.iter().map(|&page| (0, page)))
}

fn ids(pages: impl IntoIterator<Item = u64>) -> Vec<ChunkId> {
    pages.into_iter().map(|n| chunk::id_of(&page(n))).collect()
}

#[test]
fn a_prefetch_brings_a_trace_in_few_requests_in_its_order() {
    let (moody, _host, volumes, recorder) = on_placed();
    let [volume] = &volumes;
    // Written over, here already, unknown to the volume: nothing of that is asked for.
    volume.write_at(22 * P, &page(7)).unwrap();
    let wanted = trace(&[20, 28, 21, 22, 23, 29, 63, 15, 500]);
    prefetch(&wanted, &volumes, &recorder, &Cancel::default());
    assert_eq!(moody.asked(), [], "nothing was asked for alone");
    assert_eq!(*moody.asked_near.lock().unwrap(), [ids([15, 20, 21, 23, 28, 29])]);
    for n in [20, 21, 23, 28, 29, 63, 15] {
        assert!(read(volume, n * P, PAGE).unwrap() == page(n));
    }
    // Who looks without touching leaves no trace; what is placed will not be seen when it is touched.
    assert!(volume.peek_local(41 * P, &mut [0; PAGE]).is_ok_and(|local| !local));
    assert!(volume.peek_local(20 * P, &mut [0; PAGE]).is_ok_and(|local| local));
    read(volume, 5 * P, 2 * PAGE).unwrap();
    read(volume, 5 * P, 3 * PAGE).unwrap();
    let expected = TraceStats { recorded: 10, placed: 0, prefetched: 6, hits: 6, misses: 3 };
    assert_eq!(recorder.stats(), expected);
    assert_eq!(recorder.trace(), trace(&[20, 21, 23, 28, 29, 63, 15, 5, 6, 7]));
    // Nothing is left to do, and what comes later does not count.
    recorder.end();
    prefetch(&recorder.trace(), &volumes, &recorder, &Cancel::default());
    assert_eq!(moody.asked_near.lock().unwrap().len(), 1);
    read(volume, 30 * P, PAGE).unwrap();
    assert_eq!(recorder.stats(), expected);
}

#[test]
fn a_prefetch_asks_alone_for_what_did_not_come_along() {
    for mood in [Mood::Well, Mood::Panics] {
        let (moody, _host, volumes, recorder) = on_placed();
        moody.withheld.lock().unwrap().extend(ids([11]));
        moody.store.remove(&ids([13])[0]);
        moody.be(mood.clone());
        prefetch(&trace(&[10, 11, 12, 13]), &volumes, &recorder, &Cancel::default());
        let alone: Vec<ChunkId> = moody.asked().into_iter().map(|(id, _)| id).collect();
        if mood == Mood::Well {
            assert_eq!(alone, ids([11, 13]));
            assert_eq!(recorder.stats().prefetched, 3);
            assert!(volumes[0].is_local(10 * P, 3 * P));
        } else {
            assert_eq!(alone, ids([10, 11, 12, 13]));
            assert_eq!(recorder.stats().prefetched, 0);
        }
        assert!(read(&volumes[0], 13 * P, PAGE).is_err());
    }
}

#[test]
fn who_touches_what_a_prefetch_is_bringing_waits_for_it_and_others_do_not() {
    let (moody, _host, volumes, recorder) = on_placed();
    let [volume] = &volumes;
    moody.be(Mood::Held);
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let prefetching =
            scope.spawn(|| prefetch(&trace(&[10, 11, 12]), &volumes, &recorder, &cancel));
        eventually(|| !moody.asked_near.lock().unwrap().is_empty());
        let touching = scope.spawn(|| read(volume, 11 * P, PAGE).unwrap());
        let other = scope.spawn(|| read(volume, 50 * P, PAGE).unwrap());
        // The other one's request goes out while the prefetch is held.
        moody.wait_for_asks(1);
        eventually(|| recorder.stats().misses == 2);
        assert!(!touching.is_finished());
        moody.be(Mood::Well);
        assert!(touching.join().unwrap() == page(11) && other.join().unwrap() == page(50));
        prefetching.join().unwrap();
    });
    assert_eq!(moody.asked(), [(ids([50])[0], Urgency::Urgent)]);
    let expected = TraceStats { recorded: 2, placed: 0, prefetched: 3, hits: 0, misses: 2 };
    assert_eq!(recorder.stats(), expected, "it was asked for, but had not come");
}

#[test]
fn a_page_that_is_waited_for_stays_urgent_when_its_request_comes_back_without_it() {
    let (moody, _host, volumes, recorder) = on_placed();
    let [volume] = &volumes;
    moody.withheld.lock().unwrap().extend(ids([11]));
    moody.be(Mood::Held);
    std::thread::scope(|scope| {
        let prefetching =
            scope.spawn(|| prefetch(&trace(&[10, 11]), &volumes, &recorder, &Cancel::default()));
        eventually(|| !moody.asked_near.lock().unwrap().is_empty());
        let touching = scope.spawn(|| read(volume, 11 * P, PAGE).unwrap());
        // Until it waits.
        eventually(|| recorder.stats().misses == 1);
        std::thread::sleep(Duration::from_millis(50));
        moody.be(Mood::Well);
        assert!(touching.join().unwrap() == page(11));
        prefetching.join().unwrap();
    });
    assert_eq!(moody.asked(), [(ids([11])[0], Urgency::Urgent)]);
}

#[test]
fn a_cancelled_prefetch_ends_and_asks_for_nothing_more() {
    let (moody, _host, volumes, recorder) = on_placed();
    moody.places.store(false, Ordering::SeqCst);
    moody.be(Mood::Held);
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let all: Vec<u64> = (0..60).collect();
        let wanted = trace(&all);
        let (volumes, recorder, cancel) = (&volumes, &recorder, &cancel);
        let prefetching = scope.spawn(move || prefetch(&wanted, volumes, recorder, cancel));
        eventually(|| moody.asked_near.lock().unwrap().len() == 2);
        cancel.cancel();
        prefetching.join().unwrap();
        moody.be(Mood::Well);
    });
    // The two that were on their way, and the one that waited for a worker.
    assert!(moody.asked_near.lock().unwrap().len() <= 3);
}

fn eventually(holds: impl Fn() -> bool) {
    let deadline = ambient::now() + Duration::from_secs(10);
    while !holds() {
        assert!(ambient::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}
