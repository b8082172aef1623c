//! The manifest against the simplest thing that could be one: an ordered map of pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use chunk::{ChunkId, Memory, PAGE_BYTES, id_of, zero_page_id};
use manifest::{Manifest, ManifestError, NodeCache, Visit};
use proptest::prelude::*;

type Model = BTreeMap<u64, ChunkId>;

fn page_id(n: u8) -> ChunkId {
    id_of(&[n])
}

fn bytes_of(pages: u64) -> u64 {
    pages * PAGE_BYTES as u64
}

/// Sizes on both sides of every change of depth that a test can afford, and beyond.
fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..300,
        Just(128),
        Just(129),
        16_000_u64..17_000,
        Just(1 << 21),
        Just((1 << 21) + 1),
        Just(1 << 34),
        1_u64..(1 << 34),
    ]
}

/// Pages close together, at the edges of nodes, and anywhere; cut to the size where used.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..300,
        16_300_u64..16_500,
        0_u64..(1 << 34),
        Just((1 << 21) - 1),
        Just(1 << 21)
    ]
}

type Step = (u64, Vec<(u64, Option<u8>)>);

/// Each step: a size, then changes (0 stands for the id of a page of zeros).
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (page(), proptest::option::weighted(0.7, 0_u8..20));
    proptest::collection::vec((pages(), proptest::collection::vec(change, 0..40)), 1..6)
}

fn fresh() -> (Arc<Memory>, NodeCache) {
    let memory = Arc::new(Memory::new());
    let cache = NodeCache::new(memory.clone(), 64);
    (memory, cache)
}

fn update(
    manifest: &Manifest,
    memory: &Arc<Memory>,
    nodes: &NodeCache,
    changes: &BTreeMap<u64, Option<ChunkId>>,
    pages: u64,
) -> Manifest {
    let mut changes = changes.iter().map(|(page, id)| (*page, *id));
    manifest.update(nodes, &mut changes, Some(bytes_of(pages)), &mut memory.clone()).unwrap()
}

/// The changes of a step that lie within its size, each page once.
fn within(pages: u64, changes: &[(u64, Option<u8>)]) -> BTreeMap<u64, Option<ChunkId>> {
    let id = |n: u8| if n == 0 { *zero_page_id() } else { page_id(n) };
    let inside = changes.iter().filter(|(page, _)| *page < pages);
    inside.map(|(page, change)| (*page, change.map(id))).collect()
}

fn apply(model: &mut Model, changes: &BTreeMap<u64, Option<ChunkId>>, pages: u64) {
    model.retain(|page, _| *page < pages);
    for (page, change) in changes {
        match change {
            Some(id) if id != zero_page_id() => model.insert(*page, *id),
            _ => model.remove(page),
        };
    }
}

fn walked(manifest: &Manifest, nodes: &NodeCache) -> Model {
    let mut found = Model::new();
    let mut last = None;
    let mut on_page = |page, id: &ChunkId| {
        assert!(last < Some(page), "ascending");
        last = Some(page);
        found.insert(page, *id);
    };
    manifest.walk(nodes, &mut |_, _| Visit::Descend, &mut on_page).unwrap();
    found
}

/// The model's manifest, made in one go.
fn built(model: &Model, pages: u64) -> Manifest {
    let (memory, nodes) = fresh();
    let changes = model.iter().map(|(page, id)| (*page, Some(*id))).collect();
    update(&Manifest::empty(0).unwrap(), &memory, &nodes, &changes, pages)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_map_does(steps in steps()) {
        let (memory, nodes) = fresh();
        let mut manifest = Manifest::empty(0).unwrap();
        let mut model = Model::new();
        for (pages, changes) in steps {
            let changes = within(pages, &changes);
            let before = model.clone();
            let next = update(&manifest, &memory, &nodes, &changes, pages);
            apply(&mut model, &changes, pages);

            prop_assert_eq!(next.size_bytes(), bytes_of(pages));
            // Canonical: however it came about, it is the manifest of its content.
            prop_assert_eq!(next.id(), built(&model, pages).id());
            // A cold cache reads back from the store what the update put there.
            let cold = NodeCache::new(memory.clone(), 64);
            let opened = Manifest::open(next.id(), &*memory).unwrap();
            prop_assert_eq!(&opened, &next);
            prop_assert_eq!(&walked(&opened, &cold), &model);

            for page in changes.keys().chain(before.keys()).chain([&0]).filter(|page| **page < pages) {
                prop_assert_eq!(opened.lookup(&cold, *page).unwrap(), model.get(page).copied());
                let count = (pages - page).min(200);
                let mut out = vec![None; 3];
                opened.lookup_range(&cold, *page, count, &mut out).unwrap();
                let expected = (*page..page + count).map(|page| model.get(&page).copied());
                prop_assert!(out[3..].iter().copied().eq(expected));
            }

            let mut found = Vec::new();
            Manifest::diff(&manifest, &next, &cold, &mut |page, a, b| found.push((page, a, b))).unwrap();
            let all: BTreeMap<u64, ()> = before.keys().chain(model.keys()).map(|page| (*page, ())).collect();
            let expected: Vec<_> = all
                .keys()
                .map(|page| (*page, before.get(page).copied(), model.get(page).copied()))
                .filter(|(_, a, b)| a != b)
                .collect();
            prop_assert_eq!(found, expected);
            manifest = next;
        }
    }

    #[test]
    fn a_sink_has_children_before_their_parents(steps in steps()) {
        struct Ordered(Arc<Memory>);
        impl chunk::ChunkSink for Ordered {
            fn put(&mut self, id: ChunkId, bytes: &[u8]) -> Result<chunk::Put, chunk::SinkError> {
                // Inner nodes (level at byte 4) name nodes that must be here by now.
                if bytes.starts_with(b"cltn") && bytes[4] > 0 {
                    for child in bytes[24..].chunks_exact(32) {
                        let child = ChunkId::from_bytes(child.try_into().unwrap());
                        assert!(self.0.contains(&child), "a child after its parent");
                    }
                }
                Ok(self.0.insert(id, bytes))
            }
        }
        let (memory, nodes) = fresh();
        let mut manifest = Manifest::empty(0).unwrap();
        for (pages, changes) in steps {
            let changes = within(pages, &changes);
            let mut changes = changes.into_iter();
            let sink = &mut Ordered(memory.clone());
            manifest = manifest.update(&nodes, &mut changes, Some(bytes_of(pages)), sink).unwrap();
            let root = manifest.root();
            prop_assert!(root.is_none_or(|root| memory.contains(&root)));
        }
    }
}

#[test]
fn changes_out_of_order_or_out_of_bounds_are_refused() {
    let (memory, nodes) = fresh();
    let manifest = Manifest::empty(bytes_of(1000)).unwrap();
    let check = |changes: &[u64], expected| {
        let mut changes = changes.iter().map(|page| (*page, Some(page_id(1))));
        let found = manifest.update(&nodes, &mut changes, None, &mut memory.clone());
        assert_eq!(found.err(), expected);
    };
    check(&[1, 2, 999], None);
    check(&[2, 1], Some(ManifestError::NotAscending { page: 1 }));
    check(&[2, 2], Some(ManifestError::NotAscending { page: 2 }));
    check(&[500, 100], Some(ManifestError::NotAscending { page: 100 }));
    check(&[1000], Some(ManifestError::OutOfRange { page: 1000, pages: 1000 }));
    check(&[1, u64::MAX], Some(ManifestError::OutOfRange { page: u64::MAX, pages: 1000 }));
    let lookup = manifest.lookup(&nodes, 1000);
    assert_eq!(lookup, Err(ManifestError::OutOfRange { page: 1000, pages: 1000 }));
    let range = manifest.lookup_range(&nodes, 999, u64::MAX, &mut vec![]);
    assert!(matches!(range, Err(ManifestError::OutOfRange { .. })));
    let resized = manifest.update(&nodes, &mut std::iter::empty(), Some(4097), &mut memory.clone());
    assert_eq!(resized, Err(ManifestError::Size { size_bytes: 4097 }));
}
