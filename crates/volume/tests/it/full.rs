//! Full and failing disks, and stores that fail while sealing: nothing is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chunk::{ChunkId, ChunkSink, Memory, Put, SinkError};
use volume::{Volume, VolumeError};

use crate::support::{Host, MemDisk, PAGE, offline, options, page, read};

const P: u64 = PAGE as u64;
const PAGES: u64 = 64;

fn set(flag: &AtomicBool, value: bool) {
    flag.store(value, Ordering::Relaxed);
}

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

/// Random writes leave pages all over the file. A long one lays them together, and where there is no
/// room for that, writes them where they are.
#[test]
fn a_long_write_lays_together_what_lies_scattered() {
    for is_full in [false, true] {
        let host = offline();
        let disk = MemDisk::new();
        let volume = host.create(&disk, None, PAGES);
        let mut all = Vec::new();
        for n in 0..PAGES {
            volume.write_at(n * 37 % PAGES * P, &page(n)).unwrap();
        }
        (0..PAGES).for_each(|n| all.extend(page(n + 7)));
        disk.record();
        if is_full {
            disk.faults.ends_at.set(PAGES * P).unwrap();
        }
        volume.write_at(0, &all).unwrap();
        let count = if is_full { PAGES as usize } else { 1 };
        assert_eq!(disk.log().len(), count, "is_full: {is_full}");
        // From then on they are rewritten in their places, at once.
        volume.write_at(0, &all).unwrap();
        assert_eq!(disk.log().len(), 2 * count);
        assert_eq!(volume.stats().active.file_bytes, 2 * PAGES * P);
        volume.write_at(P, &page(1)).unwrap();
        all[PAGE..2 * PAGE].copy_from_slice(&page(1));
        volume.flush().unwrap();
        drop(volume);
        let volume = host.open(&disk).unwrap();
        assert!(read(&volume, 0, all.len()).unwrap() == all);
    }
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
        .filter(|op| matches!(op, crate::support::Act::Write { bytes, .. } if bytes.len() == PAGE))
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
    // One that is just giving it up is waited for.
    let giving_up = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(volume);
    });
    assert!(read(&open().unwrap(), 0, PAGE).unwrap() == page(1));
    giving_up.join().unwrap();
    let nothing = Volume::open(&dir.path().join("x"), host.fetcher.clone(), options());
    assert!(matches!(nothing, Err(VolumeError::NotFound { .. })));
}
