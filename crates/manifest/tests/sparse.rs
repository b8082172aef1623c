//! A 64 TiB volume costs what is in it: node reads are counted, and they are few.

use std::sync::Arc;

use chunk::{ChunkId, Memory, id_of};
use manifest::{Manifest, NodeCache, Visit};

const SIZE_BYTES: u64 = 64 << 40;
const PAGES: u64 = SIZE_BYTES / 4096;
const DEPTH: u64 = 5;

/// Pages strewn over the whole volume, no two under one leaf.
fn strewn() -> impl Iterator<Item = (u64, Option<ChunkId>)> {
    (0..1000).map(|i| (i * (PAGES / 1000), Some(id_of(&i.to_le_bytes()))))
}

struct Fixture {
    memory: Arc<Memory>,
    manifest: Manifest,
}

impl Fixture {
    fn new() -> Self {
        let memory = Arc::new(Memory::new());
        let nodes = NodeCache::new(memory.clone(), 16);
        let empty = Manifest::empty(SIZE_BYTES).unwrap();
        let manifest = empty.update(&nodes, &mut strewn(), None, &mut memory.clone()).unwrap();
        Self { memory, manifest }
    }

    /// A cache that has nothing yet: what it fetches is what an act costs.
    fn cold(&self) -> NodeCache {
        NodeCache::new(self.memory.clone(), 16)
    }

    fn change(&self, page: u64, id: Option<ChunkId>) -> Manifest {
        let mut changes = std::iter::once((page, id));
        self.manifest.update(&self.cold(), &mut changes, None, &mut self.memory.clone()).unwrap()
    }
}

#[test]
fn holes_cost_nothing() {
    let fixture = Fixture::new();
    assert_eq!(u64::from(fixture.manifest.depth()), DEPTH);
    // 1000 pages: at most one node a level for each, and the header.
    assert!(fixture.memory.len() as u64 <= 1000 * DEPTH + 1, "{}", fixture.memory.len());
    let empty = Manifest::empty(SIZE_BYTES).unwrap();
    assert_eq!((empty.root(), empty.lookup(&fixture.cold(), PAGES - 1)), (None, Ok(None)));
}

#[test]
fn a_lookup_reads_at_most_one_node_a_level() {
    let fixture = Fixture::new();
    for (page, id) in strewn().step_by(97) {
        let nodes = fixture.cold();
        assert_eq!(fixture.manifest.lookup(&nodes, page), Ok(id));
        assert_eq!(nodes.fetches(), DEPTH);
        // Warm, it reads nothing.
        assert_eq!(fixture.manifest.lookup(&nodes, page), Ok(id));
        assert_eq!(nodes.fetches(), DEPTH);
    }
    let nodes = fixture.cold();
    assert_eq!(fixture.manifest.lookup(&nodes, PAGES - 1), Ok(None));
    assert!(nodes.fetches() <= DEPTH);
}

#[test]
fn a_range_reads_each_node_on_the_way_once() {
    let fixture = Fixture::new();
    let nodes = fixture.cold();
    let mut out = vec![];
    fixture.manifest.lookup_range(&nodes, 0, 128 * 128, &mut out).unwrap();
    assert_eq!(out.iter().flatten().count(), 1);
    assert_eq!(nodes.fetches(), DEPTH);
}

#[test]
fn one_change_writes_one_node_a_level() {
    let fixture = Fixture::new();
    let before = fixture.memory.len() as u64;
    let nodes = fixture.cold();
    let mut change = std::iter::once((12_345_678, Some(id_of(b"new"))));
    let changed =
        fixture.manifest.update(&nodes, &mut change, None, &mut fixture.memory.clone()).unwrap();
    assert!(nodes.fetches() <= DEPTH, "{}", nodes.fetches());
    assert!(fixture.memory.len() as u64 - before <= DEPTH + 1);
    assert_ne!(changed.id(), fixture.manifest.id());
    // And undoing it leads back to the very same manifest.
    let mut undo = std::iter::once((12_345_678, None));
    let undone = changed.update(&nodes, &mut undo, None, &mut fixture.memory.clone()).unwrap();
    assert_eq!(undone.id(), fixture.manifest.id());
}

#[test]
fn a_diff_of_one_page_reads_at_most_two_nodes_a_level() {
    let fixture = Fixture::new();
    for page in [0, 17, 3 * (PAGES / 1000), PAGES - 1] {
        let changed = fixture.change(page, Some(id_of(b"new")));
        let nodes = fixture.cold();
        let mut found = vec![];
        Manifest::diff(&fixture.manifest, &changed, &nodes, &mut |page, _, _| found.push(page))
            .unwrap();
        assert_eq!(found, [page]);
        assert!(nodes.fetches() <= 2 * DEPTH, "{}", nodes.fetches());
    }
    let nodes = fixture.cold();
    Manifest::diff(&fixture.manifest, &fixture.manifest, &nodes, &mut |_, _, _| panic!()).unwrap();
    assert_eq!(nodes.fetches(), 0);
}

#[test]
fn a_diff_across_depths_reads_little_too() {
    let fixture = Fixture::new();
    let small = {
        let nodes = fixture.cold();
        let none = &mut std::iter::empty();
        fixture
            .manifest
            .update(&nodes, none, Some(128 * 4096), &mut fixture.memory.clone())
            .unwrap()
    };
    assert_eq!(small.depth(), 1);
    let grown = {
        let nodes = fixture.cold();
        let none = &mut std::iter::empty();
        small.update(&nodes, none, Some(SIZE_BYTES), &mut fixture.memory.clone()).unwrap()
    };
    let nodes = fixture.cold();
    Manifest::diff(&small, &grown, &nodes, &mut |page, _, _| panic!("{page}")).unwrap();
    assert!(nodes.fetches() < DEPTH, "{}", nodes.fetches());
}

#[test]
fn a_walk_skips_what_was_seen() {
    let fixture = Fixture::new();
    let changed = fixture.change(17, Some(id_of(b"new")));
    let mut seen = std::collections::HashSet::new();
    let mut pages = 0;
    let mut walk = |manifest: &Manifest| {
        let nodes = fixture.cold();
        let mut on_node = |id: &ChunkId, _| {
            if seen.insert(*id) { Visit::Descend } else { Visit::Skip }
        };
        manifest.walk(&nodes, &mut on_node, &mut |_, _| pages += 1).unwrap();
        nodes.fetches()
    };
    walk(&fixture.manifest);
    assert!(walk(&changed) <= DEPTH);
    // The leaf that changed has two pages; everything else was skipped.
    assert_eq!(pages, 1000 + 2);
}
