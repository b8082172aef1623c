//! What the repository and its local copy of the index read.

use crate::{golden, scratch};

fn goldens(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| golden(&format!("repository/tests/golden/{name}"))).collect()
}

/// Golden objects of a public repository, and what is inside their seals: after header and salt,
/// before the tag.
fn sealed(names: &[&str]) -> Vec<Vec<u8>> {
    let mut seeds = goldens(names);
    let inner =
        seeds.iter().filter_map(|bytes| Some(bytes.get(40 + 32..bytes.len() - 16)?.to_vec()));
    seeds.extend(inner.collect::<Vec<_>>());
    seeds
}

pub fn configs() -> Vec<Vec<u8>> {
    goldens(&["config-none.bin", "config-aes256gcm.bin"])
}

pub fn indexes() -> Vec<Vec<u8>> {
    sealed(&["index-delta-none.bin", "index-snapshot-none.bin"])
}

pub fn tables() -> Vec<Vec<u8>> {
    sealed(&["table-none.bin"])
}

pub fn packs() -> Vec<Vec<u8>> {
    let mut seeds = goldens(&["pack-none.bin"]);
    seeds.push([1_u32, 200, 3].iter().flat_map(|n| n.to_le_bytes()).collect());
    seeds
}

pub fn records() -> Vec<Vec<u8>> {
    let whole = golden("repository/tests/golden/record.bin");
    let body = whole[40..].to_vec();
    vec![whole, body]
}

pub fn references() -> Vec<Vec<u8>> {
    sealed(&["ref-set-none.bin", "ref-removed-none.bin"])
}

pub fn keys() -> Vec<Vec<u8>> {
    goldens(&["key.txt"])
}

pub fn local_index(bytes: &[u8]) {
    scratch::with(|dir| ::repository::fuzz::local_index(bytes, dir));
}

/// An empty state, one that names a segment, and a file with one block of entries.
pub fn local_indexes() -> Vec<Vec<u8>> {
    let numbers = |numbers: &[u32]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    let empty = [b"cltvlst1".to_vec(), numbers(&[1, 0, 0, 0, 0, 0, 0, 0])].concat();
    let named = [b"cltvlst1".to_vec(), numbers(&[1, 0, 0, 0, 0, 0, 0, 1]), vec![0; 16]].concat();
    let mut file = vec![0; 4096];
    file[..16].fill(3);
    file.extend([5; 32]); // one pack
    file.extend([3; 8]); // one fence
    file.extend(b"cltvlidx");
    file.extend(numbers(&[1, 0, 1, 0, 40, 0]));
    file.extend([0; 8]);
    vec![empty, named, file]
}
