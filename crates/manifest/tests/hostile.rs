//! Bytes from an adversary: refused with a reason, never a panic, never without bound.

use std::sync::Arc;

use chunk::{ChunkId, Memory, id_of};
use manifest::{Manifest, ManifestError, NODE_BYTES_MAX, NodeCache, Visit};
use proptest::prelude::*;

/// A node by hand: level, slots and ids.
fn node(level: u8, children: &[(u32, ChunkId)]) -> Vec<u8> {
    let bitmap = children.iter().fold(0_u128, |all, (slot, _)| all | 1 << slot);
    let mut bytes = b"cltn".to_vec();
    bytes.extend_from_slice(&[level, 0, 0, 0]);
    bytes.extend_from_slice(&bitmap.to_le_bytes());
    children.iter().for_each(|(_, id)| bytes.extend_from_slice(id.as_bytes()));
    bytes
}

/// A header by hand around a root.
fn header(pages: u64, depth: u8, root: &ChunkId) -> Vec<u8> {
    let mut bytes = b"cltvmani".to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.resize(40, 0);
    bytes.extend_from_slice(&(pages * 4096).to_le_bytes());
    bytes.extend_from_slice(&4096_u32.to_le_bytes());
    bytes.extend_from_slice(&[depth, 0, 0, 0]);
    bytes.extend_from_slice(root.as_bytes());
    bytes
}

fn put(memory: &Memory, bytes: &[u8]) -> ChunkId {
    let id = id_of(bytes);
    memory.insert(id, bytes);
    id
}

/// Everything that reads, on one manifest; the first error, or `ok`.
fn read_all(memory: &Arc<Memory>, id: ChunkId) -> String {
    let nodes = NodeCache::new(memory.clone(), 16);
    let run = || -> Result<(), ManifestError> {
        let manifest = Manifest::open(id.into(), &**memory)?;
        let last = manifest.pages().saturating_sub(1);
        if manifest.pages() > 0 {
            manifest.lookup(&nodes, 0)?;
            manifest.lookup(&nodes, last)?;
            manifest.lookup_range(&nodes, 0, manifest.pages().min(300), &mut vec![])?;
        }
        let empty = Manifest::empty(4096)?;
        Manifest::diff(&manifest, &empty, &nodes, &mut |_, _, _| ())?;
        let sink = &mut &Memory::new();
        manifest.update(&nodes, &mut [(0, None)].into_iter(), Some(4096), sink)?;
        manifest.update(&nodes, &mut std::iter::empty(), Some(1 << 40), sink)?;
        manifest.walk(&nodes, &mut |_, _| Visit::Descend, &mut |_, _| ())
    };
    match run() {
        Ok(()) => "ok".to_owned(),
        Err(ManifestError::Invalid { detail, .. }) => detail.to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn wrong_trees_are_refused() {
    let memory = Arc::new(Memory::new());
    let page = id_of(b"page");
    let leaf = put(&memory, &node(0, &[(0, page)]));
    let check = |pages, depth, root: &ChunkId, expected: &str| {
        let id = put(&memory, &header(pages, depth, root));
        assert_eq!(read_all(&memory, id), expected);
    };
    check(128, 1, &leaf, "ok");
    let inner = put(&memory, &node(1, &[(0, leaf), (1, leaf)]));
    check(256, 2, &inner, "ok");
    check(129, 1, &leaf, "its depth does not fit its size, or a reserved byte is set");
    check(256, 2, &leaf, "a node of another level");
    check(128, 1, &inner, "a node of another level");
    let beyond = "a node with children beyond the end of the volume";
    check(128 + 1, 2, &put(&memory, &node(1, &[(0, leaf), (2, leaf)])), beyond);
    check(7, 1, &put(&memory, &node(0, &[(7, page)])), beyond);
    let tail = put(&memory, &node(0, &[(1, page)]));
    check(129, 2, &put(&memory, &node(1, &[(1, tail)])), beyond);
    let nested = put(&memory, &node(2, &[(0, leaf)]));
    check(1 << 15, 3, &nested, "a node of another level");
    check(128, 1, &put(&memory, b"cltn"), "too short to be a node");
    check(128, 1, &put(&memory, &[0; 4096]), "not a node");
    check(128, 1, &id_of(b"nowhere"), &format!("chunk {} is not there", id_of(b"nowhere").short()));
}

#[test]
fn one_node_shared_everywhere_is_walked_once() {
    // 2^44 pages out of seven nodes: what it costs is bounded by the visitor's set.
    let memory = Arc::new(Memory::new());
    let mut child = id_of(b"page");
    for level in 0..7 {
        let children: Vec<_> =
            (0..if level == 6 { 4 } else { 128 }).map(|slot| (slot, child)).collect();
        let bytes = node(level, &children);
        assert!(bytes.len() <= NODE_BYTES_MAX);
        child = put(&memory, &bytes);
    }
    let id = put(&memory, &header(1 << 44, 7, &child));
    let manifest = Manifest::open(id.into(), &*memory).unwrap();
    let nodes = NodeCache::new(memory.clone(), 16);
    let mut seen = std::collections::HashSet::new();
    let mut on_node = |id: &ChunkId, _| {
        if seen.insert(*id) { Visit::Descend } else { Visit::Skip }
    };
    let mut pages = 0;
    manifest.walk(&nodes, &mut on_node, &mut |_, _| pages += 1).unwrap();
    assert_eq!((seen.len(), pages), (7, 128));
    assert_eq!(manifest.lookup(&nodes, (1 << 44) - 1), Ok(Some(id_of(b"page"))));
}

#[test]
fn a_source_that_answers_with_something_else_is_caught() {
    struct Liar;
    impl chunk::ChunkSource for Liar {
        fn fetch(
            &self,
            _: &ChunkId,
            _: chunk::Urgency,
        ) -> Result<Vec<chunk::Verified>, chunk::FetchError> {
            Ok(vec![chunk::Verified::of(header(1, 1, &id_of(b"")))])
        }
    }
    let error = Manifest::open(id_of(b"wanted").into(), &Liar).unwrap_err();
    assert!(matches!(error, ManifestError::Fetch(chunk::FetchError::Damaged { .. })), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(
        header_bytes in proptest::collection::vec(any::<u8>(), 0..120),
        node_bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let memory = Arc::new(Memory::new());
        read_all(&memory, put(&memory, &header_bytes));
        let root = put(&memory, &node_bytes);
        read_all(&memory, put(&memory, &header(100, 1, &root)));
    }

    #[test]
    fn flipped_bits_never_panic(flips in proptest::collection::vec((0_usize..3, any::<u16>()), 1..6)) {
        let leaf_id = |memory: &Memory, bytes: &[u8]| put(memory, bytes);
        let memory = Arc::new(Memory::new());
        let flip = |which: usize, mut bytes: Vec<u8>| {
            for (_, bit) in flips.iter().filter(|(target, _)| *target == which) {
                let bit = usize::from(*bit) % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            bytes
        };
        let leaf = leaf_id(&memory, &flip(0, node(0, &[(0, id_of(b"a")), (9, id_of(b"b"))])));
        let inner = leaf_id(&memory, &flip(1, node(1, &[(0, leaf), (1, leaf)])));
        let head = leaf_id(&memory, &flip(2, header(256, 2, &inner)));
        read_all(&memory, head);
    }
}
