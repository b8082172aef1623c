//! The host's cache by itself.

use std::path::Path;
use std::time::{Duration, SystemTime};

use chunk::{ChunkId, Verified};
use volume::Cache;

use crate::support::{PAGE, page};

fn chunk(n: u64) -> Verified {
    Verified::of(page(n))
}

fn keep(cache: &Cache, chunks: &[Verified]) {
    cache.keep(&chunks.iter().collect::<Vec<_>>());
}

/// Reads pages; says which were there, and checks those.
fn there(cache: &Cache, chunks: &[Verified]) -> Vec<bool> {
    let wanted: Vec<(usize, ChunkId)> =
        chunks.iter().enumerate().map(|(at, chunk)| (at, chunk.id())).collect();
    let mut buf = vec![0; chunks.len() * PAGE];
    let missing = cache.read_pages(&wanted, &mut buf);
    let there: Vec<bool> =
        (0..chunks.len()).map(|at| !missing.iter().any(|(missing, _)| *missing == at)).collect();
    for (at, chunk) in chunks.iter().enumerate() {
        assert!(!there[at] || buf[at * PAGE..][..PAGE] == chunk[..]);
    }
    there
}

fn count(there: &[bool]) -> usize {
    there.iter().filter(|there| **there).count()
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn keeps_pages_and_nodes_for_all_processes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 16 << 20).unwrap();
    let other = Cache::open(dir.path(), 16 << 20).unwrap();
    let pages: Vec<Verified> = (0..500).map(chunk).collect();
    for batch in pages.chunks(7) {
        keep(&cache, batch);
    }
    let node = Verified::of(vec![7; 4120]);
    let record = Verified::of(vec![7; 100_000]);
    keep(&other, &[node.clone(), record.clone()]);
    for cache in [&cache, &other, &Cache::open(dir.path(), 16 << 20).unwrap()] {
        assert_eq!(count(&there(cache, &pages)), 500);
        assert_eq!(cache.read(&node.id()).unwrap()[..], node[..]);
        assert_eq!(cache.read(&pages[3].id()).unwrap()[..], pages[3][..]);
        assert!(cache.has(&node.id()) && !cache.has(&chunk(1000).id()));
        assert!(cache.read(&record.id()).is_none(), "too large to be kept");
        assert!(there(cache, &[chunk(1000)]) == [false]);
        let as_page = cache.read_pages(&[(0, node.id())], &mut [0; PAGE]);
        assert_eq!(as_page.len(), 1, "a node is no page");
    }
    assert_eq!(cache.stats().failures + other.stats().failures, 0);
}

#[test]
fn stays_within_its_bound_and_keeps_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 4 << 20).unwrap();
    let hot: Vec<Verified> = (0..10).map(chunk).collect();
    keep(&cache, &hot);
    let all: Vec<Verified> = (100..5100).map(chunk).collect();
    for (n, batch) in all.chunks(20).enumerate() {
        keep(&cache, batch);
        if n == 10 {
            // As if the first segments had been written long ago, and the hot one read just now.
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                let path = entry.unwrap().path();
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
            }
            let reader = Cache::open(dir.path(), 4 << 20).unwrap();
            assert_eq!(count(&there(&reader, &hot)), 10);
        }
        assert!(disk_bytes(dir.path()) <= (4 << 20) + (1 << 20), "bounded");
    }
    assert_eq!(count(&there(&cache, &all[4300..])), 700, "the newest are there");
    assert_eq!(count(&there(&cache, &all[200..1000])), 0, "the oldest went");
}

#[test]
fn a_full_cache_really_holds_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 32 << 20).unwrap();
    // 29 of 32 MiB: less than what the last unfinished segment may take.
    let all: Vec<Verified> = (0..7400).map(chunk).collect();
    for batch in all.chunks(32) {
        keep(&cache, batch);
    }
    assert!(count(&there(&cache, &all)) >= 7398, "no page gives way while there is room");
}

#[test]
fn another_size_or_garbage_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 20).unwrap();
    keep(&cache, &[chunk(1)]);
    let larger = Cache::open(dir.path(), 8 << 20).unwrap();
    assert!(there(&larger, &[chunk(1)]) == [false]);
    assert!(there(&cache, &[chunk(1)]) == [true], "who has the old index keeps it");
    std::fs::write(dir.path().join("index"), b"garbage").unwrap();
    let cache = Cache::open(dir.path(), 8 << 20).unwrap();
    keep(&cache, &[chunk(2)]);
    assert!(there(&cache, &[chunk(2)]) == [true]);
    assert!(
        !dir.path()
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().contains("new") })
    );
}

#[test]
fn whatever_the_index_says_only_right_bytes_come_out() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 1 << 20).unwrap();
    let pages: Vec<Verified> = (0..100).map(chunk).collect();
    keep(&cache, &pages);
    let index =
        std::fs::File::options().read(true).write(true).open(dir.path().join("index")).unwrap();
    let len = index.metadata().unwrap().len();
    let mut bytes = vec![0; len as usize - 4096];
    index.read_exact_at(&mut bytes, 4096).unwrap();
    // Ids stay, places change: lengths, offsets and segments that cannot be, or are another's.
    for round in 0..6u8 {
        let mut changed = bytes.clone();
        for row in changed.chunks_mut(2048) {
            for entry in row.chunks_exact_mut(48) {
                if entry[..32] != [0; 32] {
                    entry[32 + usize::from(round) * 3 % 16] ^= 1 << round;
                    entry[47] ^= round;
                }
            }
        }
        index.write_all_at(&changed, 4096).unwrap();
        there(&cache, &pages);
        pages.iter().for_each(|page| {
            let read = cache.read(&page.id());
            assert!(read.is_none_or(|read| read[..] == page[..]));
        });
    }
    // It heals as chunks are kept again.
    keep(&cache, &pages);
    assert_eq!(count(&there(&cache, &pages)), 100);
}

#[test]
fn many_threads_share_it() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), 2 << 20).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                for n in 0..300 {
                    let chunks: Vec<Verified> =
                        (0..4).map(|i| chunk((n * (thread + 1) + i) % 700)).collect();
                    keep(cache, &chunks);
                    there(cache, &chunks);
                }
            });
        }
    });
    assert_eq!(cache.stats().failures, 0);
    assert!(cache.stats().hits > 1000);
}

#[test]
fn processes_that_start_at_once_share_one_index() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let caches: Vec<Cache> = std::thread::scope(|scope| {
            let open = || Cache::open(dir.path(), 1 << 20).unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        keep(&caches[0], &[chunk(1)]);
        assert!(caches.iter().all(|cache| there(cache, &[chunk(1)]) == [true]));
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.filter(|name| name.to_string_lossy().contains("new")).count(), 0);
    }
}
