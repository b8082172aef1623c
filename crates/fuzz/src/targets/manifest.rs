//! A manifest whose nodes the bytes describe.
//!
//! Ids are hashes, which no mutation finds: so the input says which earlier node a child is, and
//! the true ids are put in their places. Everything else in a node is as the input has it.

use std::sync::Arc;

use ::chunk::{ChunkId, Memory, id_of};
use ::manifest::{Manifest, NodeCache, Visit};

use crate::golden;

/// Steps of a walk or a difference, at most: trees here are small, what they describe is not.
const VISITS_MAX: u32 = 2_000;

pub fn manifest(bytes: &[u8]) {
    let memory = Arc::new(Memory::new());
    let mut nodes: Vec<ChunkId> = vec![id_of(b"page"), *::chunk::zero_page_id()];
    let mut rest = bytes;
    // Nodes: a byte for the level, one for the count of children, and two for each: slot, which.
    for _ in 0..8 {
        let Some((&[level, count], after)) = rest.split_first_chunk::<2>() else { break };
        let count = usize::from(count % 6);
        let Some((children, after)) = after.split_at_checked(count * 2) else { break };
        rest = after;
        let mut children: Vec<(u8, ChunkId)> = children
            .chunks_exact(2)
            .map(|child| (child[0] % 128, nodes[usize::from(child[1]) % nodes.len()]))
            .collect();
        children.sort_unstable_by_key(|child| child.0);
        children.dedup_by_key(|child| child.0);
        let bitmap = children.iter().fold(0_u128, |all, (slot, _)| all | 1 << slot);
        let mut node = b"cltn".to_vec();
        node.extend_from_slice(&[level, 0, 0, 0]);
        node.extend_from_slice(&bitmap.to_le_bytes());
        children.iter().for_each(|(_, id)| node.extend_from_slice(id.as_bytes()));
        nodes.push(put(&memory, &node));
    }
    // The header: the size in pages, its depth, and whatever else follows.
    let Some((size, rest)) = rest.split_first_chunk::<8>() else {
        let _ = Manifest::open(put(&memory, bytes).into(), &*memory);
        return;
    };
    let mut header = b"cltvmani\x01\0".to_vec();
    header.resize(40, 0);
    header.extend_from_slice(&u64::from_le_bytes(*size).wrapping_mul(4096).to_le_bytes());
    header.extend_from_slice(&4096_u32.to_le_bytes());
    header.extend_from_slice(&[rest.first().copied().unwrap_or(1), 0, 0, 0]);
    header.extend_from_slice(nodes[nodes.len() - 1].as_bytes());
    read_all(&memory, put(&memory, &header));
    let _ = Manifest::open(put(&memory, bytes).into(), &*memory);
}

fn put(memory: &Memory, bytes: &[u8]) -> ChunkId {
    let id = id_of(bytes);
    memory.insert(id, bytes);
    id
}

fn read_all(memory: &Arc<Memory>, id: ChunkId) {
    let nodes = NodeCache::new(memory.clone(), 16);
    let Ok(manifest) = Manifest::open(id.into(), &**memory) else { return };
    let pages = manifest.pages();
    for page in [0, 127, 128, pages / 2, pages.saturating_sub(1), pages, u64::MAX] {
        let _ = manifest.lookup(&nodes, page);
    }
    let _ = manifest.lookup_range(&nodes, 0, pages.min(300), &mut vec![]);
    let mut visits = 0;
    let mut bounded = |_: &ChunkId, _: u8| {
        visits += 1;
        if visits > VISITS_MAX { Visit::Skip } else { Visit::Descend }
    };
    let _ = manifest.walk(&nodes, &mut bounded, &mut |_, _| ());
}

pub fn manifests() -> Vec<Vec<u8>> {
    let one_leaf = vec![0, 2, 0, 0, 5, 0, 128, 0, 0, 0, 0, 0, 0, 0, 1];
    // Eight times nothing more than the same leaf, below an inner node.
    let tree = vec![0, 1, 0, 0, 1, 2, 0, 2, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 2];
    let mut seeds = vec![one_leaf, tree];
    seeds.extend(
        ["empty-0", "leaf-0", "leaf-1", "tree-0", "tree-1", "tree-4"]
            .map(|name| golden(&format!("manifest/tests/golden/{name}.bin"))),
    );
    seeds
}
