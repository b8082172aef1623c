//! Flipped bits and cut files: noticed, named, and never passed on.

use std::sync::Arc;

use chunk::Memory;
use volume::{Volume, VolumeError};

use crate::support::{Host, MemDisk, PAGE, offline, options, page, read, seal};

const P: u64 = PAGE as u64;
const PAGES: u64 = 64;

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
    let again =
        Volume::create_on(Arc::new(disk.disk.clone()), None, P, host.fetcher.clone(), options());
    assert!(matches!(again, Err(VolumeError::Exists { .. })));
}

/// A making that was cut short leaves empty overlays; more than that is no making that was cut short.
#[test]
fn a_state_that_was_lost_is_told_from_one_that_never_was() {
    let host = offline();
    let lost = three_flushes(&host).image();
    let without = |files: &[&str]| {
        let mut image = lost.clone();
        image.names.retain(|name, _| files.iter().all(|file| file != name));
        host.open(&MemDisk::with_image(image))
    };
    assert!(matches!(without(&["state"]), Err(VolumeError::DamagedFile { .. })));
    assert!(matches!(without(&["state", "1.data"]), Err(VolumeError::NotFound { .. })));
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
