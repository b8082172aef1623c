//! Many threads at once, while the volume is flushed, frozen, sealed and adopted under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chunk::Memory;
use volume::Volume;

use crate::support::{Host, PAGE, options, read, seal};

const P: u64 = PAGE as u64;
const PAGES: u64 = 256;

/// A page whose every word says which version of which page it is.
fn versioned(page: u64, version: u64) -> Vec<u8> {
    (page << 32 | version).to_le_bytes().repeat(PAGE / 8)
}

fn version_of(page: u64, bytes: &[u8]) -> u64 {
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    assert!(words.iter().all(|word| *word == words[0]), "page {page} is torn");
    assert!(words[0] == 0 || words[0] >> 32 == page, "page {page} has another page's bytes");
    words[0] & 0xffff_ffff
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_sees_a_torn_or_old_page() {
    let store = Arc::new(Memory::new());
    let host = Host::with_cache(store.clone(), 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let volume =
        Volume::create(dir.path(), None, PAGES * P, host.fetcher.clone(), options()).unwrap();
    let stop = AtomicBool::new(false);
    // What each page has at least; writers of a page raise it after they wrote.
    let least: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let (volume, stop, least) = (&volume, &stop, &least);
        for writer in 0..2u64 {
            scope.spawn(move || {
                let mut version = 0;
                while !stop.load(Ordering::Relaxed) {
                    version += 1;
                    // Each writer has every second run of eight pages.
                    let first = (version * 7 + writer) % (PAGES / 8) / 2 * 16 + writer * 8;
                    let bytes: Vec<u8> =
                        (first..first + 8).flat_map(|page| versioned(page, version)).collect();
                    volume.write_at(first * P, &bytes).unwrap();
                    for page in first..first + 8 {
                        least[page as usize].store(version, Ordering::SeqCst);
                    }
                }
            });
        }
        for reader in 0..2u64 {
            scope.spawn(move || {
                let mut turn = reader;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let first = turn * 13 % (PAGES - 20);
                    let before: Vec<u64> = (first..first + 20)
                        .map(|page| least[page as usize].load(Ordering::SeqCst))
                        .collect();
                    let bytes = read(volume, first * P, 20 * PAGE).unwrap();
                    for (n, page) in bytes.chunks_exact(PAGE).enumerate() {
                        let version = version_of(first + n as u64, page);
                        assert!(version >= before[n], "page {} went back", first + n as u64);
                    }
                }
            });
        }
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                volume.flush().unwrap();
            }
        });
        let _stop = Stop(stop);
        for _ in 0..40 {
            seal(volume, &store);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    volume.flush().unwrap();
    let bytes = read(&volume, 0, (PAGES * P) as usize).unwrap();
    drop(volume);
    let volume = Volume::open(dir.path(), host.fetcher.clone(), options()).unwrap();
    assert!(read(&volume, 0, bytes.len()).unwrap() == bytes);
    for page in 0..PAGES {
        let at = page as usize * PAGE;
        let least = least[page as usize].load(Ordering::SeqCst);
        assert!(version_of(page, &bytes[at..at + PAGE]) >= least);
    }
}

#[test]
fn writers_of_parts_of_a_page_do_not_lose_each_other() {
    let store = Arc::new(Memory::new());
    let host = Host::with_cache(store.clone(), 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let volume =
        Volume::create(dir.path(), None, PAGES * P, host.fetcher.clone(), options()).unwrap();
    volume.write_at(0, &vec![9; 16 * PAGE]).unwrap();
    seal(&volume, &store);
    std::thread::scope(|scope| {
        let volume = &volume;
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 1..=100u8 {
                        for page in 0..16 {
                            // Reaches over the middle of the page, never over another writer's.
                            let offset = page * P + writer * 1000 + 50;
                            volume.write_at(offset, &[round; 900]).unwrap();
                        }
                    }
                })
            })
            .collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            seal(volume, &store);
        }
    });
    for page in 0..16 {
        let bytes = read(&volume, page * P, PAGE).unwrap();
        for writer in 0..4 {
            let start = writer * 1000 + 50;
            assert!(bytes[start..start + 900].iter().all(|byte| *byte == 100), "page {page}");
            assert!(bytes[start + 900..start + 1000].iter().all(|byte| *byte == 9));
        }
    }
}
