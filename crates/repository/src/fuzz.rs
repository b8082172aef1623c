//! A door for the fuzzers (crate `fuzz`): what reads this crate's objects and local files, as
//! functions of bytes. Nothing else goes through it.
//!
//! What is sealed is tried twice: as it came, and as the body of a seal that is right, because in
//! a public repository anybody can make one.

use std::path::Path;

use chunk::crypt::{Cipher, FrameKind, PackId, RepositoryId};
use chunk::header::Intent;
use model::{ChunkId, Generation};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Config;
use crate::index::{LocalDir, Segment};
use crate::layout::{
    INDEX_FORMAT, PACK_FORMAT, RECORD_FORMAT, REF_FORMAT, TABLE_FORMAT, index_key, table_key,
};
use crate::log::{IndexObject, decode_table, encode_table, seal};
use crate::pack::{check_head, read_pack};
use crate::record::parse_record;
use crate::{import_key, refs};

const REPOSITORY: RepositoryId = RepositoryId([7; 16]);
const SALT: [u8; 32] = [1; 32];

fn cipher() -> Cipher {
    Cipher::none(REPOSITORY)
}

/// The configuration, with a right checksum too.
pub fn config(bytes: &[u8]) {
    let _ = Config::decode(bytes, Intent::Write);
    let Some(body) = bytes.len().checked_sub(16).map(|end| &bytes[..end]) else { return };
    let sum = blake3::hash(body);
    let summed = [body, &sum.as_bytes()[..16]].concat();
    if let Ok(config) = Config::decode(&summed, Intent::Read) {
        assert_eq!(Config::decode(&config.encode(), Intent::Read).ok(), Some(config));
    }
}

/// An index object: delta or snapshot.
pub fn index(bytes: &[u8]) {
    let cipher = cipher();
    let _ = IndexObject::decode(&cipher, 1, bytes);
    let sealed = seal(&cipher, &INDEX_FORMAT, &index_key(1), SALT, bytes);
    if let Ok(object) = IndexObject::decode(&cipher, 1, &sealed) {
        assert_eq!(object.encode(&cipher, 1, SALT), sealed, "two objects say the same");
    }
}

/// A table of packs.
pub fn table(bytes: &[u8]) {
    let (cipher, id) = (cipher(), [2; 16]);
    let _ = decode_table(&cipher, &id, bytes);
    let sealed = seal(&cipher, &TABLE_FORMAT, &table_key(&id), SALT, bytes);
    if let Ok(packs) = decode_table(&cipher, &id, &sealed) {
        assert_eq!(encode_table(&cipher, &id, SALT, &packs), sealed, "two tables say the same");
    }
}

/// A pack: as it is; after a right head; with a right table.
pub fn pack(bytes: &[u8]) {
    let (cipher, id) = (cipher(), PackId([3; 32]));
    let _ = read_pack(&cipher, id, bytes);
    let mut head = PACK_FORMAT.header().encode().to_vec();
    head.extend_from_slice(&REPOSITORY.0);
    head.extend_from_slice(&id.0);
    assert!(check_head(REPOSITORY, id, &head).is_ok());
    let _ = read_pack(&cipher, id, &[&head, bytes].concat());
    let mut table = bytes.to_vec();
    cipher.pack(id).seal(FrameKind::Table, 0, &mut table);
    let length = (table.len() as u32).to_le_bytes();
    let whole = [&head[..], &table, &length, &[0; 4], b"cltvpend"].concat();
    let _ = read_pack(&cipher, id, &whole);
}

/// A record: children and a body.
pub fn record(bytes: &[u8]) {
    let id = ChunkId::from_bytes([1; 32]);
    let _ = parse_record(&id, bytes);
    let header = RECORD_FORMAT.header().encode();
    let _ = parse_record(&id, &[&header[..], bytes].concat());
}

/// A generation of a ref.
pub fn reference(bytes: &[u8]) {
    let cipher = cipher();
    let stored = cipher.stored_ref_name("k", "n");
    let _ = refs::open(&cipher, &stored, Generation(1), bytes);
    let header = REF_FORMAT.header().encode();
    let _ = refs::open(&cipher, &stored, Generation(1), &[&header[..], bytes].concat());
    let sealed = refs::seal(&cipher, &stored, Generation(1), SALT, bytes, false);
    let _ = refs::open(&cipher, &stored, Generation(1), &sealed);
}

/// A key as text.
pub fn key(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = import_key(&text) {
        assert_eq!(*crate::export_key(&key), text.trim(), "two texts are one key");
    }
}

/// This host's copy of the index, in the folder `dir`: a state, then a file of entries; each also
/// with right checksums.
pub fn local_index(bytes: &[u8], dir: &Path) {
    let Ok(local) = LocalDir::open(dir, REPOSITORY) else { return };
    let folder = dir.join(crate::wire::hex(&REPOSITORY.0));
    let summed = [bytes, &xxh3_64(bytes).to_le_bytes()].concat();
    // A state says under which number it was written.
    let number = bytes.get(8..16).map_or(0, |n| u64::from_le_bytes(std::array::from_fn(|i| n[i])));
    for content in [bytes, &summed] {
        let state = folder.join(format!("state-{number:020}"));
        if std::fs::write(&state, content).is_ok() {
            let _ = local.load();
            let _ = std::fs::remove_file(&state);
        }
        let file = folder.join("seg-00000000000000000000000000000000");
        if std::fs::write(&file, content).is_ok() {
            read_segment(&file);
        }
    }
    // Its own sums: of every block, and of the footer with the trailer.
    let file = folder.join("seg-00000000000000000000000000000000");
    if std::fs::write(&file, with_sums(bytes)).is_ok() {
        read_segment(&file);
    }
}

fn read_segment(path: &Path) {
    let Ok(segment) = Segment::open(path) else { return };
    let mut found = 0;
    let _ = segment.for_each(|_, _, _| found += 1);
    assert!(found <= segment.len());
    let _ = segment.find(&[0; 16], |_, _| ());
}

fn with_sums(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let mut bytes = bytes.to_vec();
    let Some(end) = bytes.len().checked_sub(8) else { return bytes };
    let blocks = end / BLOCK;
    for block in bytes.chunks_exact_mut(BLOCK).take(blocks) {
        let sum = xxh3_64(&block[..BLOCK - 8]);
        block[BLOCK - 8..].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = xxh3_64(&bytes[blocks * BLOCK..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}
