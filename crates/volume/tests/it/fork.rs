//! Volumes that share a base.

use std::sync::Arc;

use chunk::Memory;
use volume::{Cancel, Recorder, Scrub, VolumeError, prefetch};

use crate::support::{Host, MemDisk, PAGE, page, read, seal};

const PAGES: u64 = 600;
const P: u64 = PAGE as u64;

/// A base with every third page in it, and what it should read as.
fn base(store: &Arc<Memory>) -> (model::ManifestId, Vec<u8>) {
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), None, PAGES);
    let mut bytes = vec![0; PAGES as usize * PAGE];
    for n in (0..PAGES).step_by(3) {
        bytes[n as usize * PAGE..][..PAGE].copy_from_slice(&page(n));
    }
    volume.write_at(0, &bytes).unwrap();
    (seal(&volume, store).manifest, bytes)
}

#[test]
fn a_page_that_was_never_fetched_is_not_zero_in_a_fork() {
    let store = Arc::new(Memory::new());
    let (parent, mut bytes) = base(&store);
    // Another host, whose cache is empty: the parent is filled lazily, and only a little of it.
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    assert!(read(&volume, 3 * P, PAGE).unwrap() == page(3));
    volume.write_at(10 * P + 7, b"changed").unwrap();
    bytes[10 * PAGE + 7..][..7].copy_from_slice(b"changed");
    volume.discard(30 * P, 10 * P).unwrap();
    bytes[30 * PAGE..40 * PAGE].fill(0);
    volume.freeze().unwrap();
    let sealed = volume.seal(&mut store.clone()).unwrap();
    assert_eq!(sealed.dirty_bytes, P);
    // Forks on a third host, which has seen nothing at all.
    let other = Host::new(store.clone());
    for n in 0..2u64 {
        let fork = other.create(&MemDisk::new(), Some(sealed.manifest), PAGES);
        fork.write_at(n * P, b"mine").unwrap();
        let mut mine = bytes.clone();
        mine[n as usize * PAGE..][..4].copy_from_slice(b"mine");
        assert!(read(&fork, 0, mine.len()).unwrap() == mine, "fork {n}");
    }
    // And the parent does not notice.
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    volume.adopt(&sealed).unwrap();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
}

#[test]
fn only_what_changed_is_stored() {
    let store = Arc::new(Memory::new());
    let (parent, bytes) = base(&store);
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    // Everything is written again, one page differs.
    volume.write_at(0, &bytes).unwrap();
    volume.write_at(9 * P, &page(12345)).unwrap();
    let sealed = seal(&volume, &store);
    assert_eq!(sealed.dirty_bytes, 200 * P);
    assert!(sealed.stored_bytes < 5 * P, "{sealed:?}");
    assert_eq!(sealed.reused_bytes, 199 * P);
    // Back to the old content: the old name.
    volume.write_at(9 * P, &page(9)).unwrap();
    assert_eq!(seal(&volume, &store).manifest, parent);
}

#[test]
fn after_adopting_reads_need_no_network() {
    let store = Arc::new(Memory::new());
    let (parent, _) = base(&store);
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    let bytes: Vec<u8> = (0..PAGES).flat_map(|n| page(5000 + n)).collect();
    volume.write_at(0, &bytes).unwrap();
    seal(&volume, &store);
    assert_eq!(volume.stats().active.data_pages, 0);
    assert!(volume.is_local(0, PAGES * P));
    let before = store.fetches();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    assert_eq!(store.fetches(), before);
}

/// On a real file system the overlay's file itself becomes a part of the cache.
#[test]
fn sealing_copies_no_page() {
    let store = Arc::new(Memory::new());
    let host = Host::new(store.clone());
    let dir = host.dir.path().join("volume");
    let volume = volume::Volume::create(
        &dir,
        None,
        PAGES * P,
        host.fetcher.clone(),
        crate::support::options(),
    )
    .unwrap();
    let bytes: Vec<u8> = (0..PAGES).flat_map(page).collect();
    volume.write_at(0, &bytes).unwrap();
    let data = std::fs::metadata(dir.join("1.data")).unwrap();
    seal(&volume, &store);
    use std::os::unix::fs::MetadataExt;
    let moved = std::fs::read_dir(host.dir.path())
        .unwrap()
        .any(|entry| entry.unwrap().metadata().unwrap().ino() == data.ino());
    assert!(moved && !dir.join("1.data").exists() && !dir.join("1.journal").exists());
    let before = store.fetches();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    assert_eq!((store.fetches(), volume.stats().cache_hits), (before, PAGES));
}

#[test]
fn local_is_what_was_written_fetched_or_never_there() {
    let store = Arc::new(Memory::new());
    let (parent, _) = base(&store);
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    let mut buf = vec![0; PAGE];
    assert!(!volume.is_local(0, P));
    assert!(!volume.try_read_local(0, &mut buf).unwrap());
    assert!(!volume.is_local(P, P), "a hole, but the index is not here yet");
    read(&volume, 0, PAGE).unwrap();
    assert!(volume.is_local(0, P) && volume.is_local(P, 2 * P) && !volume.is_local(0, 4 * P));
    assert!(volume.try_read_local(0, &mut buf).unwrap() && buf == page(0));
    assert!(!volume.try_read_local(3 * P, &mut buf).unwrap());
    // What is here of a read that goes on elsewhere counts once: where it ends.
    let counters = volume.counters();
    let mut both = vec![0; 4 * PAGE];
    assert_eq!(counters.cached_bytes(), P);
    assert!(!volume.try_read_local(0, &mut both).unwrap());
    assert_eq!(counters.cached_bytes(), P);
    volume.read_at(0, &mut both).unwrap();
    assert_eq!((counters.cached_bytes(), &both[..PAGE]), (2 * P, &page(0)[..]));
    volume.write_at(300 * P, &page(1)).unwrap();
    volume.discard(301 * P, P).unwrap();
    assert!(volume.is_local(300 * P, 2 * P));
    assert!(!volume.is_local(0, PAGES * P + 1), "beyond the end");
}

#[test]
fn scrubbing_makes_everything_local() {
    let store = Arc::new(Memory::new());
    let (parent, bytes) = base(&store);
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    // What was written over is wanted by nobody.
    volume.write_at(6 * P, &page(7000)).unwrap();
    volume.discard(9 * P, P).unwrap();
    let scrub = Scrub::default();
    let progress = volume.scrub(&scrub).unwrap();
    assert_eq!(
        (progress.passed_pages, progress.fetched_pages, progress.failed_pages, progress.full),
        (PAGES, 198, 0, false)
    );
    let before = store.fetches();
    assert!(volume.is_local(0, PAGES * P));
    let mut expected = bytes;
    expected[6 * PAGE..7 * PAGE].copy_from_slice(&page(7000));
    expected[9 * PAGE..10 * PAGE].fill(0);
    assert!(read(&volume, 0, expected.len()).unwrap() == expected);
    assert_eq!(store.fetches(), before);
    scrub.begin();
    assert_eq!(volume.scrub(&scrub).unwrap().fetched_pages, 0);
    scrub.cancel();
    assert!(!scrub.rest(std::time::Duration::from_secs(3600)));
    assert!(matches!(volume.scrub(&scrub), Err(VolumeError::Cancelled { .. })));
}

#[test]
fn a_scrub_goes_past_what_is_missing_and_says_so() {
    let store = Arc::new(Memory::new());
    let (parent, _) = base(&store);
    store.remove(&chunk::id_of(&page(33)));
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    let scrub = Scrub::default();
    let error = volume.scrub(&scrub).unwrap_err();
    assert_eq!(error.page(), Some(33));
    assert_eq!((scrub.progress().fetched_pages, scrub.progress().failed_pages), (199, 1));
}

#[test]
fn a_scrub_pushes_nothing_out_that_is_in_use() {
    let store = Arc::new(Memory::new());
    let (parent, bytes) = base(&store);
    // 200 pages are wanted, and there is room for not quite as many.
    let host = Host::with_cache(store.clone(), 1 << 20);
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    let hot: Vec<u64> = (190..200).map(|n| 3 * n).collect();
    hot.iter().for_each(|&n| assert!(read(&volume, n * P, PAGE).unwrap() == page(n)));
    let scrub = Scrub::default();
    let progress = volume.scrub(&scrub).unwrap();
    assert!(progress.full, "{progress:?}");
    assert!((1..180).contains(&progress.fetched_pages), "{progress:?}");
    assert!(progress.passed_pages < PAGES, "{progress:?}");
    let before = store.fetches();
    hot.iter().for_each(|&n| assert!(read(&volume, n * P, PAGE).unwrap() == page(n)));
    assert_eq!(store.fetches(), before, "what was in use is still there");
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    // What nobody has used for long may go.
    for entry in std::fs::read_dir(host.dir.path()).unwrap() {
        let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000)).unwrap();
    }
    assert!(host.fetcher.cache().room() > 900 << 10);
}

#[test]
fn a_volume_may_be_larger_than_its_base_and_not_smaller() {
    let store = Arc::new(Memory::new());
    let (parent, bytes) = base(&store);
    let host = Host::new(store.clone());
    let disk = MemDisk::new();
    let volume = host.create(&disk, Some(parent), PAGES * 2);
    let mut larger = bytes.clone();
    larger.resize(bytes.len() * 2, 0);
    assert!(read(&volume, 0, larger.len()).unwrap() == larger);
    volume.write_at(PAGES * 2 * P - 3, b"end").unwrap();
    let sealed = seal(&volume, &store);
    let again = host.create(&MemDisk::new(), Some(sealed.manifest), PAGES * 2);
    assert_eq!(read(&again, PAGES * 2 * P - 3, 3).unwrap(), b"end");
    for (base, size) in [(Some(parent), (PAGES - 1) * P), (None, 0), (None, 4095)] {
        let disk = Arc::new(MemDisk::new());
        let error = volume::Volume::create_on(
            Arc::new(disk.disk.clone()),
            base,
            size,
            host.fetcher.clone(),
            crate::support::options(),
        );
        assert!(matches!(error, Err(VolumeError::BadSize { .. })), "{size}");
    }
}

#[test]
fn a_trace_is_what_was_touched_in_order() {
    let store = Arc::new(Memory::new());
    let (parent, _) = base(&store);
    let host = Host::new(store.clone());
    let volume = host.create(&MemDisk::new(), Some(parent), PAGES);
    let recorder = Arc::new(Recorder::new(vec!["t/disk".to_owned()]));
    volume.record(&recorder, 0);
    for n in [90, 3, 90, 4, 5, 6] {
        read(&volume, n * P, PAGE).unwrap();
    }
    // What is placed counts as touched, once.
    recorder.place(0, 18..19);
    read(&volume, 18 * P, PAGE).unwrap();
    assert_eq!((recorder.stats().recorded, recorder.stats().placed), (4, 1));
    // A part of a page needs the rest of it, a whole one does not.
    volume.write_at(9 * P + 5, b"part").unwrap();
    volume.write_at(12 * P, &page(12)).unwrap();
    let trace = recorder.trace();
    let touched: Vec<u64> = trace.runs().iter().map(|run| run.first).collect();
    assert_eq!(touched, [90, 3, 6, 18, 9], "holes need no prefetch");
    let other = Host::new(store.clone());
    let volumes = [Arc::new(other.create(&MemDisk::new(), Some(parent), PAGES))];
    let nobody = Recorder::new(Vec::new());
    prefetch(&trace, &volumes, &nobody, &Cancel::default());
    assert!(touched.iter().all(|&page| volumes[0].is_local(page * P, P)));
    assert!(!volumes[0].is_local(12 * P, P));
}

#[test]
fn a_huge_volume_costs_no_more_than_a_small_one() {
    const TIB: u64 = 1 << 40;
    let store = Arc::new(Memory::new());
    let host = Host::new(store.clone());
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, 64 * TIB / P);
    let places = [0, 5 * TIB, 33 * TIB + 3 * P, 64 * TIB - P];
    for (n, offset) in places.into_iter().enumerate() {
        volume.write_at(offset, &page(n as u64)).unwrap();
    }
    let first = seal(&volume, &store);
    assert_eq!(first.dirty_bytes, 4 * P);
    // Everything but the ends goes: one record, and one look at what the base has.
    volume.discard(P, 64 * TIB - 2 * P).unwrap();
    volume.write_at(20 * TIB, &page(20)).unwrap();
    volume.flush().unwrap();
    assert!(volume.stats().active.journal_bytes < 8192);
    drop(volume);
    let volume = host.open(&disk).unwrap();
    let second = seal(&volume, &store);
    assert_eq!(second.dirty_bytes, P);
    for (offset, expected) in [
        (0, page(0)),
        (5 * TIB, vec![0; PAGE]),
        (20 * TIB, page(20)),
        (33 * TIB + 3 * P, vec![0; PAGE]),
        (64 * TIB - P, page(3)),
    ] {
        assert!(read(&volume, offset, PAGE).unwrap() == expected, "{offset}");
    }
    assert!(store.len() < 60, "{} chunks", store.len());
}
