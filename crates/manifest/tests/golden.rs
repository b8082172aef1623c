//! Golden bytes: what was once written must be read for ever, and written the same.
//!
//! `COLLECTIVE_BLESS=1 cargo test -p manifest --test golden` makes files that are not there yet.
//! It never overwrites one: a format that changes gets a new version, a new feature or a new
//! file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chunk::{Memory, id_of};
use manifest::{Manifest, NodeCache, Visit};

fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == bytes, "{name} is no longer written as it was");
}

/// Compares the header and, in the order of a walk, every node of a manifest.
fn check(name: &str, size_bytes: u64, pages: &[u64]) {
    let memory = Arc::new(Memory::new());
    let nodes = NodeCache::new(memory.clone(), 16);
    let mut changes = pages.iter().map(|page| (*page, Some(id_of(&page.to_le_bytes()))));
    let empty = Manifest::empty(size_bytes).unwrap();
    let manifest = empty.update(&nodes, &mut changes, None, &mut memory.clone()).unwrap();

    let mut chunks = vec![manifest.id().into()];
    let mut on_node = |id: &chunk::ChunkId, _| {
        chunks.push(*id);
        Visit::Descend
    };
    manifest.walk(&nodes, &mut on_node, &mut |_, _| ()).unwrap();
    for (number, id) in chunks.iter().enumerate() {
        let bytes = &chunk::ChunkSource::fetch(&memory, id, chunk::Urgency::Urgent).unwrap()[0];
        golden(&format!("{name}-{number}.bin"), bytes);
    }
}

#[test]
fn an_empty_volume() {
    check("empty", 64 << 40, &[]);
}

#[test]
fn one_leaf() {
    check("leaf", 128 * 4096, &[0, 1, 5, 126, 127]);
}

#[test]
fn two_levels() {
    check("tree", 1000 * 4096, &[0, 130, 999]);
}
