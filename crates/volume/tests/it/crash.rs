//! Power loss after every single operation on the disk, with what was not synced kept, lost, torn
//! or reordered: whatever was flushed is there, and every page is something that was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use chunk::Memory;
use volume::Volume;

use volume::memory_disk::{self, Act, Durable, Image};

use crate::support::{Host, MemDisk, PAGE, page, read, seal};

const PAGES: u64 = 48;

/// A small generator, so that a failure can be repeated from its seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What happens to operations that were not synced.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Kept,
    Lost,
    /// Each 512-byte sector of each write is kept or lost.
    Torn(u64),
}

/// The disk as it may be after a crash when `acts` had been done to `start`.
fn crashed(start: &Image, acts: &[Act], unsynced: Unsynced) -> Image {
    let mut durable = Durable::of(start.clone());
    acts.iter().for_each(|act| durable.add(act.clone()));
    let seed = match unsynced {
        Unsynced::Kept => return durable.cut(memory_disk::Unsynced::Kept, &mut || true),
        Unsynced::Lost => return durable.cut(memory_disk::Unsynced::Lost, &mut || false),
        Unsynced::Torn(seed) => seed,
    };
    let mut chance = Chance(seed | 1);
    // Most file systems keep the order of names; nothing says that they must.
    if chance.below(2) == 0 {
        let names = std::mem::take(&mut durable.names);
        let kept = chance.below(names.len() as u64 + 1) as usize;
        names[..kept].iter().for_each(|act| durable.image.apply(act));
    }
    durable.cut(memory_disk::Unsynced::Torn, &mut || chance.below(2) == 0)
}

/// Everything that was written and flushed, in order, with the place in the disk's log.
#[derive(Default)]
struct History {
    steps: u64,
    /// For each page: step, place in the log where writing began, value (0 is zero).
    values: BTreeMap<u64, Vec<(u64, usize, u64)>>,
    /// Flushes: step, place in the log where it had returned.
    flushes: Vec<(u64, usize)>,
}

impl History {
    fn wrote(&mut self, at: usize, page: u64, value: u64) {
        self.steps += 1;
        self.values.entry(page).or_default().push((self.steps, at, value));
    }

    fn flushed(&mut self, done: usize) {
        self.steps += 1;
        self.flushes.push((self.steps, done));
    }

    /// The values that a page may have after a crash at `at`.
    fn allowed(&self, page: u64, at: usize) -> Vec<u64> {
        let flushed = self.flushes.iter().rev().find(|(_, done)| *done <= at);
        let flushed = flushed.map_or(0, |(step, _)| *step);
        let written = self.values.get(&page).map_or(&[][..], |values| values).iter();
        let zero = (0, 0, 0);
        let values: Vec<_> =
            std::iter::once(&zero).chain(written).filter(|(_, began, _)| *began <= at).collect();
        let oldest = values.iter().rposition(|(step, _, _)| *step <= flushed).unwrap_or(0);
        values[oldest..].iter().map(|(_, _, value)| *value).collect()
    }
}

fn value_of(bytes: &[u8], values: &BTreeMap<Vec<u8>, u64>) -> Option<u64> {
    values.get(bytes).copied()
}

/// One scripted life of a volume: the log of its disk and what it was asked to write.
fn life(
    seed: u64,
    store: &Arc<Memory>,
    host: &Host,
    steps: usize,
) -> (Vec<Act>, History, BTreeMap<Vec<u8>, u64>) {
    let disk = MemDisk::recording();
    let volume = host.create(&disk, None, PAGES);
    let mut chance = Chance(seed);
    let mut history = History::default();
    let mut values = BTreeMap::from([(vec![0; PAGE], 0)]);
    let mut next_value = 1;
    // Creating is an act of its own: before it ends, there is no volume yet.
    history.flushed(disk.log().len());
    for _ in 0..steps {
        let at = disk.log().len();
        match chance.below(12) {
            0..=5 => {
                let first = chance.below(PAGES);
                let count = (1 + chance.below(6)).min(PAGES - first);
                let mut bytes = Vec::new();
                for n in 0..count {
                    let content = page(seed << 20 | next_value);
                    values.insert(content.clone(), next_value);
                    history.wrote(at, first + n, next_value);
                    bytes.extend(content);
                    next_value += 1;
                }
                volume.write_at(first * PAGE as u64, &bytes).unwrap();
            }
            6 | 7 => {
                let first = chance.below(PAGES);
                let count = (1 + chance.below(20)).min(PAGES - first);
                (first..first + count).for_each(|page| history.wrote(at, page, 0));
                volume.discard(first * PAGE as u64, count * PAGE as u64).unwrap();
            }
            8 | 9 => {
                volume.flush().unwrap();
                history.flushed(disk.log().len());
            }
            10 => volume.freeze().unwrap(),
            _ => {
                seal(&volume, store);
            }
        }
    }
    (disk.log(), history, values)
}

fn check_image(
    host: &Host,
    image: Image,
    allowed: impl Fn(u64) -> Vec<u64>,
    values: &BTreeMap<Vec<u8>, u64>,
    what: &str,
) {
    let disk = MemDisk::with_image(image);
    let volume = host.open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut seen = Vec::new();
    for n in 0..PAGES {
        let bytes =
            read(&volume, n * PAGE as u64, PAGE).unwrap_or_else(|error| panic!("{what}: {error}"));
        let value = value_of(&bytes, values)
            .unwrap_or_else(|| panic!("{what}: page {n} has bytes nobody wrote"));
        let allowed = allowed(n);
        assert!(allowed.contains(&value), "{what}: page {n} is {value}, not one of {allowed:?}");
        seen.push(bytes);
    }
    // It goes on from here: what is written and flushed now survives the next end.
    let new = page(u64::MAX);
    for n in (0..PAGES).step_by(5) {
        volume.write_at(n * PAGE as u64, &new).unwrap();
        seen[n as usize] = new.clone();
    }
    volume.flush().unwrap();
    drop(volume);
    let volume = host.open(&disk).unwrap_or_else(|error| panic!("{what}, reopened: {error}"));
    assert!(read(&volume, 0, PAGES as usize * PAGE).unwrap() == seen.concat(), "{what}, reopened");
}

#[test]
fn every_prefix_recovers() {
    for seed in 1..=6 {
        let store = Arc::new(Memory::new());
        let host = Host::new(store.clone());
        let (ops, history, values) = life(seed, &store, &host, 60);
        let created = history.flushes[0].1;
        for at in created..=ops.len() {
            let modes = [
                Unsynced::Kept,
                Unsynced::Lost,
                Unsynced::Torn(at as u64 * 77 + seed),
                Unsynced::Torn(at as u64 * 131 + seed),
            ];
            for unsynced in modes {
                let image = crashed(&Image::default(), &ops[..at], unsynced);
                let what =
                    format!("seed {seed}, after {at} of {} operations, {unsynced:?}", ops.len());
                check_image(&host, image, |page| history.allowed(page, at), &values, &what);
            }
        }
    }
}

#[test]
fn a_crash_while_creating_leaves_a_volume_or_none() {
    let store = Arc::new(Memory::new());
    let host = Host::new(store.clone());
    let (ops, history, _) = life(1, &store, &host, 0);
    for at in 0..history.flushes[0].1 {
        for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn(at as u64 + 5)] {
            let disk = MemDisk::with_image(crashed(&Image::default(), &ops[..at], unsynced));
            match host.open(&disk) {
                Ok(volume) => {
                    assert!(
                        read(&volume, 0, PAGES as usize * PAGE).unwrap().iter().all(|b| *b == 0)
                    );
                }
                Err(volume::VolumeError::NotFound { .. }) => {
                    host.create(&disk, None, PAGES);
                }
                Err(error) => panic!("after {at}, {unsynced:?}: {error}"),
            }
        }
    }
}

/// Writes and flushes until the journal is about to be compacted, then records that flush.
#[test]
fn compaction_is_atomic() {
    let store = Arc::new(Memory::new());
    let host = Host::new(store.clone());
    let disk = MemDisk::new();
    let volume = host.create(&disk, None, PAGES);
    let write_all = |volume: &Volume, round: u64| {
        // Every other page, so that each needs a record of its own.
        for n in (0..PAGES).step_by(2) {
            volume.write_at(n * PAGE as u64, &page(round << 8 | n)).unwrap();
        }
    };
    let mut round = 1;
    while volume.stats().active.journal_bytes <= 1 << 20 {
        write_all(&volume, round);
        volume.flush().unwrap();
        round += 1;
    }
    let start = disk.image();
    disk.record();
    write_all(&volume, round);
    volume.flush().unwrap();
    assert!(volume.stats().active.journal_bytes < 1 << 16, "it was compacted");
    write_all(&volume, round + 1);
    volume.flush().unwrap();
    let ops = disk.log();
    let mut values = BTreeMap::from([(vec![0; PAGE], 0)]);
    for round in round - 1..=round + 1 {
        for n in 0..PAGES {
            values.insert(page(round << 8 | n), round << 8 | n);
        }
    }
    for at in 0..=ops.len() {
        for unsynced in [
            Unsynced::Kept,
            Unsynced::Lost,
            Unsynced::Torn(at as u64 * 3 + 1),
            Unsynced::Torn(at as u64 * 7 + 1),
        ] {
            let allowed = |n: u64| match n % 2 {
                0 => (round - 1..=round + 1).map(|round| round << 8 | n).collect(),
                _ => vec![0],
            };
            let image = crashed(&start, &ops[..at], unsynced);
            check_image(&host, image, allowed, &values, &format!("after {at}, {unsynced:?}"));
        }
    }
}

/// The slots of flushed pages stay untouched however often pages are rewritten without a flush.
#[test]
fn what_was_flushed_survives_any_number_of_rewrites() {
    let host = Host::new(Arc::new(Memory::new()));
    let disk = MemDisk::recording();
    let volume = host.create(&disk, None, PAGES);
    let flushed: Vec<u8> = (0..PAGES).flat_map(|n| page(n + 1)).collect();
    volume.write_at(0, &flushed).unwrap();
    volume.flush().unwrap();
    let before = volume.stats().active.file_bytes;
    for round in 0..20 {
        let bytes: Vec<u8> = (0..PAGES).flat_map(|n| page(1000 + round * 100 + n)).collect();
        volume.write_at(0, &bytes).unwrap();
    }
    assert_eq!(volume.stats().active.file_bytes, before * 2, "fresh pages are rewritten in place");
    let image = crashed(&Image::default(), &disk.log(), Unsynced::Torn(99));
    let volume = host.open(&MemDisk::with_image(image)).unwrap();
    assert!(read(&volume, 0, flushed.len()).unwrap() == flushed);
}
