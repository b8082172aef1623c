//! Flipped bits, full disks, and repositories that fail, dawdle or lie.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;

use chunk::{
    ChunkId, ChunkSink, ChunkSource, FetchError, Memory, Put, SinkError, Urgency, Verified,
};
use volume::{Cancel, Stall, StallObserver, Volume, VolumeError};

use crate::support::{Host, MemDisk, PAGE, options, page, read, seal};

const P: u64 = PAGE as u64;
const PAGES: u64 = 64;

fn set(flag: &AtomicBool, value: bool) {
    flag.store(value, Ordering::Relaxed);
}

fn offline() -> Host {
    Host::new(Arc::new(Memory::new()))
}

// ---- flipped bits ----

#[test]
fn a_flipped_bit_in_the_data_is_an_error_that_names_the_page() {
    let host = offline();
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    for n in 10..20 {
        volume.write_at(n * P, &page(n)).unwrap();
    }
    // Slots are handed out in order: page 13 is in the fourth.
    disk.tamper("1.data", |bytes| bytes[3 * PAGE + 100] ^= 4);
    let error = read(&volume, 13 * P, PAGE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "volume t/disk, page 13: this host's copy is damaged (slot 3 of 1.data: its bytes do not match their checksum)"
    );
    assert!(!error.is_passing());
    let error = read(&volume, 10 * P, 10 * PAGE).unwrap_err();
    assert_eq!(error.page(), Some(13));
    assert!(volume.write_at(13 * P + 5, b"part").is_err(), "a part cannot heal it");
    assert!(read(&volume, 14 * P, PAGE).unwrap() == page(14));
    // Sealing refuses it too: garbage never gets a name.
    volume.freeze().unwrap();
    let error = volume.seal(&mut Memory::new()).unwrap_err();
    assert_eq!(error.page(), Some(13));
    // Written as a whole, it is well again.
    volume.write_at(13 * P, &page(99)).unwrap();
    assert!(read(&volume, 13 * P, PAGE).unwrap() == page(99));
    assert!(volume.seal(&mut Memory::new()).is_err(), "what is frozen is still damaged");
}

#[test]
fn a_truncated_data_file_is_damage() {
    let host = offline();
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    volume.write_at(0, &[page(1), page(2)].concat()).unwrap();
    volume.flush().unwrap();
    disk.tamper("1.data", |bytes| bytes.truncate(PAGE + 10));
    assert!(read(&volume, 0, PAGE).unwrap() == page(1));
    assert!(matches!(read(&volume, P, PAGE), Err(VolumeError::DamagedPage { page: 1, .. })));
}

/// A volume with three flushes in its journal.
fn three_flushes(host: &Host) -> MemDisk {
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    for n in 0..3 {
        volume.write_at(n * 2 * P, &page(n + 1)).unwrap();
        volume.flush().unwrap();
    }
    disk
}

#[test]
fn a_flipped_bit_anywhere_in_the_journal_is_noticed() {
    let host = offline();
    let disk = three_flushes(&host);
    let mut len = 0;
    disk.tamper("1.journal", |bytes| len = bytes.len());
    assert_eq!(len, 4096 + 3 * 64);
    for at in (0..512).chain(4096..len) {
        let copy = MemDisk::with_image(disk.image());
        copy.tamper("1.journal", |bytes| bytes[at] ^= 1 << (at % 8));
        match host.open(&copy) {
            Err(VolumeError::DamagedFile { volume, file, .. }) => {
                assert_eq!((volume.as_str(), file.as_str()), ("t/disk", "1.journal"));
            }
            Err(VolumeError::Newer { .. }) if at < 40 => {}
            Err(error) => panic!("byte {at}: {error}"),
            Ok(_) => panic!("byte {at} was not noticed"),
        }
    }
    // The mark only helps to tell damage from a crash: without it the journal says the same.
    for at in 512..544 {
        let copy = MemDisk::with_image(disk.image());
        copy.tamper("1.journal", |bytes| bytes[at] ^= 1);
        assert!(read(&host.open(&copy).unwrap(), 4 * P, PAGE).unwrap() == page(3));
    }
}

#[test]
fn a_truncated_journal_is_noticed() {
    let host = offline();
    let disk = three_flushes(&host);
    for len in [0, 100, 4095, 4096, 4096 + 64, 4096 + 64 + 63, 4096 + 3 * 64 - 1] {
        let copy = MemDisk::with_image(disk.image());
        copy.tamper("1.journal", |bytes| bytes.truncate(len));
        let error = host.open(&copy).err();
        assert!(matches!(error, Some(VolumeError::DamagedFile { .. })), "{len}: {error:?}");
    }
}

#[test]
fn damage_before_the_end_is_noticed_without_the_mark_too() {
    let host = offline();
    let disk = three_flushes(&host);
    let no_mark = |bytes: &mut Vec<u8>| bytes[512..544].fill(0);
    for at in 4096..4096 + 2 * 64 {
        let copy = MemDisk::with_image(disk.image());
        copy.tamper("1.journal", no_mark);
        copy.tamper("1.journal", |bytes| bytes[at] ^= 1);
        let error = host.open(&copy).err();
        assert!(matches!(error, Some(VolumeError::DamagedFile { .. })), "{at}: {error:?}");
    }
    // Only the last batch could be the trace of a crash.
    disk.tamper("1.journal", no_mark);
    disk.tamper("1.journal", |bytes| bytes[4096 + 2 * 64 + 40] ^= 1);
    let volume = host.open(&disk).unwrap();
    assert!(read(&volume, 2 * P, PAGE).unwrap() == page(2));
    assert!(read(&volume, 4 * P, PAGE).unwrap() == vec![0; PAGE]);
}

#[test]
fn a_journal_of_another_volume_is_refused() {
    let host = offline();
    let (disk, other) = (three_flushes(&host), three_flushes(&host));
    let mut journal = Vec::new();
    other.tamper("1.journal", |bytes| journal = bytes.clone());
    disk.tamper("1.journal", |bytes| *bytes = journal);
    assert!(matches!(host.open(&disk), Err(VolumeError::DamagedFile { .. })));
}

#[test]
fn a_flipped_bit_anywhere_in_the_state_is_noticed() {
    let host = offline();
    let disk = three_flushes(&host);
    let mut len = 0;
    disk.tamper("state", |bytes| len = bytes.len());
    for at in 0..len {
        let copy = MemDisk::with_image(disk.image());
        copy.tamper("state", |bytes| bytes[at] ^= 1 << (at % 8));
        assert!(host.open(&copy).is_err(), "byte {at}");
        let copy = MemDisk::with_image(disk.image());
        copy.tamper("state", |bytes| bytes.truncate(at));
        assert!(host.open(&copy).is_err(), "cut at {at}");
    }
    let empty = MemDisk::new();
    assert!(matches!(host.open(&empty), Err(VolumeError::NotFound { .. })));
    let disk = Arc::new(disk);
    let again = Volume::create_on(disk, None, P, host.fetcher.clone(), options());
    assert!(matches!(again, Err(VolumeError::Exists { .. })));
}

#[test]
fn a_damaged_cache_only_costs_a_fetch() {
    let store = Arc::new(Memory::new());
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), None, PAGES);
    let bytes: Vec<u8> = (0..PAGES).flat_map(page).collect();
    volume.write_at(0, &bytes).unwrap();
    seal(&volume, &store);
    let before = store.fetches();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    assert_eq!(store.fetches(), before);
    // One bit in every page of every segment.
    let segments = || {
        let files = std::fs::read_dir(host.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "chunks"))
    };
    for path in segments() {
        let mut file = std::fs::read(&path).unwrap();
        file.chunks_mut(PAGE).for_each(|page| page[17] ^= 32);
        std::fs::write(&path, &file).unwrap();
    }
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    assert!(store.fetches() >= before + PAGES, "{} {}", store.fetches(), before);
    let repaired = store.fetches();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    assert_eq!(store.fetches(), repaired, "the fetched pages are kept again");
    // Nor does it matter when files are cut or go.
    for path in segments() {
        std::fs::File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    }
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    segments().for_each(|path| std::fs::remove_file(path).unwrap());
    std::fs::File::options()
        .write(true)
        .open(host.dir.path().join("index"))
        .unwrap()
        .set_len(0)
        .unwrap();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
}

// ---- full and failing disks ----

#[test]
fn a_full_disk_fails_writes_and_keeps_what_was_there() {
    let host = offline();
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    let old: Vec<u8> = (0..8).flat_map(page).collect();
    volume.write_at(0, &old).unwrap();
    volume.flush().unwrap();
    set(&disk.faults.full, true);
    for _ in 0..3 {
        let error = volume.write_at(0, &page(50)).unwrap_err();
        assert!(matches!(error, VolumeError::NoSpace { .. }) && error.is_passing(), "{error}");
        assert!(volume.write_at(6 * P, &[page(51), page(52), page(53)].concat()).is_err());
    }
    assert!(read(&volume, 0, old.len()).unwrap() == old);
    // Discarding needs no space; flushing it does.
    volume.discard(P, P).unwrap();
    assert!(matches!(volume.flush(), Err(VolumeError::NoSpace { .. })));
    set(&disk.faults.full, false);
    volume.write_at(0, &page(50)).unwrap();
    volume.flush().unwrap();
    drop(volume);
    let volume = host.open(&disk).unwrap();
    let expected = [page(50), vec![0; PAGE], old[2 * PAGE..].to_vec()].concat();
    assert!(read(&volume, 0, old.len()).unwrap() == expected);
    assert!(volume.stats().active.file_bytes <= 9 * P, "failed writes leak no slots");
}

#[test]
fn a_flush_that_failed_can_be_repeated() {
    let host = offline();
    let disk = MemDisk::recording();
    let volume = host.create(&disk, None, PAGES);
    volume.write_at(0, &[page(1), page(2)].concat()).unwrap();
    set(&disk.faults.sync_fails, true);
    assert!(matches!(volume.flush(), Err(VolumeError::Io { .. })));
    volume.write_at(P, &page(3)).unwrap();
    volume.discard(5 * P, P).unwrap();
    assert!(volume.flush().is_err());
    set(&disk.faults.sync_fails, false);
    let writes = disk.log().len();
    volume.flush().unwrap();
    // The kernel may have dropped what it could not sync: it was written again.
    let again = disk.log()[writes..]
        .iter()
        .filter(|op| matches!(op, crate::support::Op::Write { bytes, .. } if bytes.len() == PAGE))
        .count();
    assert!(again >= 2, "{again}");
    drop(volume);
    let volume = host.open(&disk).unwrap();
    assert!(read(&volume, 0, 2 * PAGE).unwrap() == [page(1), page(3)].concat());
}

#[test]
fn freezing_needs_no_space() {
    let host = offline();
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    volume.write_at(0, &page(1)).unwrap();
    set(&disk.faults.full, true);
    set(&disk.faults.create_full, true);
    volume.freeze().unwrap();
    // Sealing would make the next overlay: that fails, and nothing is lost.
    assert!(matches!(volume.seal(&mut Memory::new()), Err(VolumeError::NoSpace { .. })));
    set(&disk.faults.full, false);
    volume.write_at(P, &page(2)).unwrap();
    assert!(matches!(volume.freeze(), Err(VolumeError::NoSpace { .. })), "no overlay is left");
    set(&disk.faults.create_full, false);
    volume.freeze().unwrap();
    assert!(read(&volume, 0, 2 * PAGE).unwrap() == [page(1), page(2)].concat());
    assert_eq!(volume.seal(&mut Memory::new()).unwrap().dirty_bytes, 2 * P);
}

#[test]
fn freezing_does_no_io() {
    let host = offline();
    let disk = MemDisk::recording();
    let volume = host.create(&disk, None, PAGES);
    volume.write_at(0, &page(1)).unwrap();
    let before = disk.log().len();
    volume.freeze().unwrap();
    volume.freeze().unwrap();
    assert_eq!(disk.log().len(), before);
}

/// A store that takes some chunks and then fails.
struct FullSink {
    room: usize,
    error: SinkError,
}

impl ChunkSink for FullSink {
    fn put(&mut self, _: ChunkId, _: &[u8]) -> Result<Put, SinkError> {
        self.room = self.room.checked_sub(1).ok_or(self.error.clone())?;
        Ok(Put::Stored)
    }
}

#[test]
fn a_seal_that_fails_changes_nothing_and_can_be_repeated() {
    let store = Arc::new(Memory::new());
    let host = Host::new(store.clone());
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, 4000);
    let mut bytes: Vec<u8> = (0..3000).flat_map(page).collect();
    volume.write_at(0, &bytes).unwrap();
    volume.freeze().unwrap();
    for room in [0, 1, 300, 2999, 3000, 3010, 3024] {
        let error = SinkError::NoSpace { detail: "full".to_owned() };
        let error = volume.seal(&mut FullSink { room, error }).unwrap_err();
        assert!(matches!(error, VolumeError::Seal { .. }) && error.is_passing(), "{error}");
    }
    volume.write_at(5, b"meanwhile").unwrap();
    bytes[5..14].copy_from_slice(b"meanwhile");
    volume.freeze().unwrap();
    let sealed = volume.seal(&mut store.clone()).unwrap();
    assert_eq!(sealed.dirty_bytes, 3000 * P);
    volume.adopt(&sealed).unwrap();
    assert!(matches!(volume.adopt(&sealed), Err(VolumeError::StaleSeal { .. })));
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    volume.flush().unwrap();
    drop(volume);
    let volume = host.open(&disk).unwrap();
    assert_eq!(volume.base(), Some(sealed.manifest));
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    let files: HashSet<String> = disk.names().into_iter().collect();
    assert!(!files.contains("1.data") && !files.contains("2.data"), "{files:?}");
}

#[test]
fn a_volume_is_held_by_one_process_at_a_time() {
    let host = offline();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk0");
    let volume = Volume::create(&path, None, PAGES * P, host.fetcher.clone(), options()).unwrap();
    volume.write_at(0, &page(1)).unwrap();
    volume.flush().unwrap();
    let open = || Volume::open(&path, host.fetcher.clone(), options());
    assert!(matches!(open(), Err(VolumeError::InUse { .. })));
    drop(volume);
    assert!(read(&open().unwrap(), 0, PAGE).unwrap() == page(1));
    let nothing = Volume::open(&dir.path().join("x"), host.fetcher.clone(), options());
    assert!(matches!(nothing, Err(VolumeError::NotFound { .. })));
}

// ---- repositories ----

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

    fn together(&self, id: &ChunkId) -> Option<u64> {
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
    // The header, the leaf and page 63 were there before.
    assert_eq!(host.fetcher.stats().chunks, 3 + 3 * 21);
}

#[test]
fn what_comes_together_is_asked_for_once() {
    let (moody, _host, volume) = on_moody();
    *moody.neighbours.lock().unwrap() = (0..20).map(|n| chunk::id_of(&page(n))).collect();
    set(&moody.tells, true);
    let bytes = read(&volume, 0, 20 * PAGE).unwrap();
    assert!(bytes == (0..20).flat_map(page).collect::<Vec<u8>>());
    assert_eq!(moody.asked().len(), 1);
    // What did not come along after all is asked for.
    volume.prefetch(20, 2);
    let bytes = read(&volume, 20 * P, 10 * PAGE).unwrap();
    assert!(bytes == (20..30).flat_map(page).collect::<Vec<u8>>());
    // An error ends only the flight that it belongs to.
    let (moody, _host, volume) = on_moody();
    set(&moody.tells, true);
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
    volume.prefetch(0, 40);
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
    let base = volume.base();
    let watcher = Arc::new(Watcher::default());
    let mut options = options();
    options.observer = Some(watcher.clone());
    let disk = Arc::new(MemDisk::new());
    let volume = Volume::create_on(disk, base, PAGES * P, host.fetcher.clone(), options).unwrap();
    read(&volume, 63 * P, PAGE).unwrap();
    (moody, host, Arc::new(volume), watcher)
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
fn damage_on_this_host_is_not_waited_for() {
    let host = offline();
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    volume.write_at(0, &page(1)).unwrap();
    disk.tamper("1.data", |bytes| bytes[0] ^= 1);
    let error = volume.read_at_until(0, &mut [0; PAGE]);
    assert!(matches!(error, Err(VolumeError::DamagedPage { page: 0, .. })));
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
