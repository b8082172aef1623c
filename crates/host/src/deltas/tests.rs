//! Deltas that ask for more than they give.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunk::{Memory, Verified};
use delta::{DiskLayout, Group, Layout, OLD_BYTES_MAX, Part, Run, Stretch, What};
use manifest::{Manifest, NodeCache};
use model::ChunkId;
use volume::{Cache, Fetcher};

use super::{Budget, PAGE, Sources, apply, give};

const GROUPS: u64 = 40;
const OLD_PAGES: usize = OLD_BYTES_MAX / PAGE;

fn page(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(PAGE / 8)
}

struct World {
    _folder: tempfile::TempDir,
    fetcher: Arc<Fetcher>,
    chunks: Arc<Memory>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(folder.path(), 64 << 20).unwrap());
        let chunks = Arc::new(Memory::default());
        let fetcher = Arc::new(Fetcher::new(cache, chunks.clone(), 1));
        Self { _folder: folder, fetcher, chunks }
    }

    /// A disk with these pages.
    fn disk(&self, numbers: &[u64]) -> Sources {
        let empty = Manifest::empty((numbers.len() * PAGE) as u64).unwrap();
        let ids: Vec<(u64, Option<ChunkId>)> = numbers
            .iter()
            .map(|number| {
                let chunk = Verified::of(&page(*number)[..]);
                self.chunks.insert(chunk.id(), chunk.bytes());
                chunk.id()
            })
            .zip(0..)
            .map(|(id, at)| (at, Some(id)))
            .collect();
        let nodes = NodeCache::new(self.fetcher.clone(), 16);
        let mut chunks = self.chunks.clone();
        let made = empty.update(&nodes, &mut ids.into_iter(), None, &mut chunks).unwrap();
        Sources { disks: vec![Some(made)], nodes }
    }

    /// So much was read of what is here.
    fn pages_read(&self) -> u64 {
        self.fetcher.cache().stats().hits
    }
}

/// Each group is right, and names all the old pages that it may for one new page.
fn greedy() -> Part {
    let again = Run { source: 0, first: 1, count: 1 };
    let groups = (0..GROUPS).map(|number| Group {
        old: vec![again; OLD_PAGES],
        new: vec![Run { source: 0, first: number, count: 1 }],
        old_opened: Vec::new(),
        new_opened: Vec::new(),
        packed: delta::pack(&[], &page(1000 + number)).unwrap(),
    });
    Part { from: [1; 32], to: [2; 32], steps: true, groups: groups.collect() }
}

#[test]
fn a_delta_makes_nobody_read_more_than_comes_of_it() {
    let world = World::new();
    let numbers: Vec<u64> = (1..=GROUPS).collect();
    let old = world.disk(&numbers);
    let here: Vec<Verified> = numbers.iter().map(|n| Verified::of(&page(*n)[..])).collect();
    world.fetcher.cache().keep(&here.iter().collect::<Vec<_>>());
    let fits = (4 * OLD_PAGES as u64 + 16 * GROUPS) / (OLD_PAGES as u64 + 1);

    let (mut given, mut budget) = (BTreeMap::new(), Budget::new(GROUPS, GROUPS));
    let read = world.pages_read();
    give(&greedy(), &old, &world.fetcher, &mut budget, &mut given).unwrap();
    assert_eq!(given.len() as u64, fits, "of {GROUPS} groups");
    assert!(world.pages_read() - read < (fits + 1) * OLD_PAGES as u64);
    // Nor with the next part, and what gives nothing is not looked at.
    let mut idle = greedy();
    idle.groups.iter_mut().for_each(|group| group.new.clear());
    let read = world.pages_read();
    for part in [greedy(), idle.clone()] {
        give(&part, &old, &world.fetcher, &mut budget, &mut given).unwrap();
    }
    let mut budget = Budget::new(GROUPS, GROUPS);
    give(&idle, &old, &world.fetcher, &mut budget, &mut given).unwrap();
    assert_eq!((given.len() as u64, world.pages_read()), (fits, read));

    // Where the new version's names are known, too.
    let new: Vec<u64> = (0..GROUPS).map(|number| 1000 + number).collect();
    let sources = world.disk(&new);
    let mut missing: BTreeSet<ChunkId> =
        new.iter().map(|number| Verified::of(&page(*number)[..]).id()).collect();
    // As if nothing had been given yet.
    let empty = World::new();
    empty.fetcher.cache().keep(&here.iter().collect::<Vec<_>>());
    let mut budget = Budget::new(GROUPS, GROUPS);
    apply(&greedy(), &old, &sources, &empty.fetcher, &mut budget, &mut missing).unwrap();
    assert_eq!(missing.len() as u64, GROUPS - fits);
}

/// Whoever makes one keeps to what whoever uses it is ready to do.
#[test]
fn a_delta_that_would_ask_for_more_is_written_without() {
    let world = World::new();
    let old = world.disk(&[1, 2, 3]);
    let here: Vec<Verified> = [1, 2, 3].iter().map(|n| Verified::of(&page(*n)[..])).collect();
    world.fetcher.cache().keep(&here.iter().collect::<Vec<_>>());
    let numbers: Vec<u64> = (0..GROUPS).map(|number| 1000 + number).collect();
    let new = world.disk(&numbers);
    let mut part = greedy();
    assert!(super::make::keep_within(&mut part.groups, GROUPS, &new, &world.fetcher).unwrap());
    assert!(!part.groups[0].old.is_empty() && part.groups.last().unwrap().old.is_empty());
    let (mut given, mut budget) = (BTreeMap::new(), Budget::new(GROUPS, GROUPS));
    give(&part, &old, &world.fetcher, &mut budget, &mut given).unwrap();
    assert_eq!(given.len() as u64, GROUPS);
}

#[test]
fn what_a_delta_gives_again_and_again_is_taken_twice() {
    let world = World::new();
    let old = world.disk(&[1]);
    let fresh = delta::pack(&[], &page(7).repeat(4096)).unwrap();
    let run = Run { source: 0, first: 0, count: 4096 };
    let none = Vec::new;
    let group = Group {
        old: Vec::new(),
        new: vec![run],
        old_opened: none(),
        new_opened: none(),
        packed: fresh,
    };
    let mut budget = Budget::new(4096, 4096);
    let taken = (0..100).filter(|_| budget.name(&group).is_some()).count();
    assert_eq!(taken, 3);
    let part = Part { from: [1; 32], to: [2; 32], steps: true, groups: vec![group] };
    let mut given = BTreeMap::new();
    give(&part, &old, &world.fetcher, &mut budget, &mut given).unwrap();
    assert!(given.is_empty(), "its budget is used up");
    let mut budget = Budget::new(4096, 4096);
    give(&part, &old, &world.fetcher, &mut budget, &mut given).unwrap();
    assert_eq!(given.len(), 4096);
}

/// A layout is of a version's system disks, each once and whole, or of no use.
#[test]
fn a_layout_that_is_not_of_a_versions_disks_is_not_used() {
    let version = include_bytes!("../../tests/golden/version.json");
    let version = crate::record::decode_version(version).unwrap();
    let system = version.hardware.disks.iter().zip(0_u16..);
    let system: Vec<(u64, u16)> = system
        .filter(|(disk, _)| disk.role == model::DiskRole::System)
        .map(|(disk, number)| (disk.size_bytes / PAGE as u64, number))
        .collect();
    let disk = |(pages, source): &(u64, u16), new: u32| {
        let stretch = |what, count| Stretch { what, count };
        let mut stretches = vec![stretch(What::New, new)];
        let mut left = pages - u64::from(new);
        while left > 0 {
            let count = left.min(u64::from(delta::RUN_MAX)) as u32;
            stretches.push(stretch(What::Hole, count));
            left -= u64::from(count);
        }
        DiskLayout { source: *source, stretches }
    };
    let layout = |disks| Layout { from: [1; 32], to: [2; 32], records: Vec::new(), disks };
    let whole: Vec<DiskLayout> = system.iter().map(|one| disk(one, 3)).collect();
    let expected = 3 * system.len() as u64;
    assert!(expected > 0);
    assert_eq!(super::says_pages(&layout(whole.clone()), &version), Some(expected));
    let twice = [whole.clone(), whole.clone()].concat();
    let mut short = whole.clone();
    short[0].stretches.pop();
    let mut other = whole.clone();
    other[0].source += 1;
    for disks in [Vec::new(), twice, short, other] {
        assert_eq!(super::says_pages(&layout(disks), &version), None);
    }
}
