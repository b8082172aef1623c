//! Golden bytes: what was once written must be read for ever, and written the same.
//!
//! `COLLECTIVE_BLESS=1 cargo test -p repository golden` makes files that are not there yet. It
//! never overwrites one: a format that changes gets a new version, a new feature or a new file.

use std::fs;
use std::path::Path;

use chunk::crypt::{Cipher, CipherKind, FrameKind, MasterKey, PackId, RepositoryId};
use chunk::frame::{Effort, FrameBuilder, decode};
use chunk::header::Intent;
use chunk::id_of;
use model::{ChunkId, Generation};

use crate::config::Config;
use crate::log::{IndexObject, Snapshot, SnapshotPack, decode_table, encode_table};
use crate::pack::{FrameEntry, PACK_HEAD_BYTES, PackBuilder, PackEntry, read_pack};
use crate::record::{Child, Target, parse_record, write_record};
use crate::refs::{self, RefPayload};
use crate::{export_key, import_key};

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == bytes, "{name} is no longer written as it was");
    golden
}

fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first.wrapping_add(i as u8))
}

fn ciphers() -> [(&'static str, Cipher); 2] {
    let repository = RepositoryId(counting(0));
    let master = MasterKey::from_bytes(counting(0x80));
    [("none", Cipher::none(repository)), ("aes256gcm", Cipher::aes256gcm(&master, repository))]
}

/// Bytes that do not compress, so that no version of zstd matters.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"golden").finalize_xof().fill(&mut bytes);
    bytes
}

fn entry(first: u8) -> PackEntry {
    let frames = vec![
        FrameEntry { stored_bytes: 5000, names: vec![counting(first), counting(first + 1)] },
        FrameEntry { stored_bytes: 70, names: vec![counting(first + 2)] },
    ];
    PackEntry { id: PackId(counting(first)), bytes: 6000, frames }
}

#[test]
fn config() {
    for (name, cipher) in ciphers() {
        let config = Config {
            repository: cipher.repository(),
            cipher: cipher.kind(),
            key_check: cipher.key_check(),
            grace_ms: 3_600_000,
        };
        let bytes = golden(&format!("config-{name}.bin"), &config.encode());
        assert_eq!(Config::decode(&bytes, Intent::Write).unwrap(), config);
        assert_eq!(config.cipher == CipherKind::None, name == "none");
    }
}

#[test]
fn key() {
    let key = MasterKey::from_bytes(counting(0x80));
    let text = golden("key.txt", export_key(&key).as_bytes());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(import_key(&text).unwrap().expose(), key.expose());
}

/// The writers of the day that the files were made.
const EFFORT: Effort = Effort { pages: 32, level: 3 };

#[test]
fn pack() {
    for (name, cipher) in ciphers() {
        let (page, node) = (noise(4096), noise(100));
        let mut builder = PackBuilder::new(&cipher, PackId(counting(0x40)));
        for chunks in [vec![page.as_slice()], vec![&node, &node[..50]]] {
            let mut frame = FrameBuilder::new(EFFORT);
            chunks.iter().for_each(|chunk| frame.push(id_of(chunk), chunk));
            builder.push(&cipher, frame.finish());
        }
        let (entry, bytes) = builder.finish();
        let bytes = golden(&format!("pack-{name}.bin"), &bytes);
        let read = read_pack(&cipher, PackId(counting(0x40)), &bytes).unwrap();
        assert_eq!(entry.bytes, bytes.len() as u64);
        for (listed, frame) in entry.frames.iter().zip(&read) {
            assert_eq!(frame.stored_bytes, listed.stored_bytes);
            assert_eq!(frame.chunks as usize, listed.names.len());
        }
        let names = [node.as_slice(), &node[..50]].map(|chunk| cipher.stored_name(&id_of(chunk)));
        assert_eq!((entry.frames[1].names.as_slice(), read.len()), (names.as_slice(), 2));
        let start = PACK_HEAD_BYTES as usize;
        let mut frame = bytes[start..start + read[0].stored_bytes as usize].to_vec();
        cipher.pack(entry.id).open(FrameKind::Chunks, 0, &mut frame).unwrap();
        assert_eq!(decode(&frame, 4096).unwrap().get(0).unwrap(), page);
    }
}

#[test]
fn index() {
    for (name, cipher) in ciphers() {
        let delta = IndexObject {
            latest_snapshot: 3,
            added: vec![entry(1), entry(50)],
            condemned: vec![PackId(counting(90))],
            revived: vec![PackId(counting(91)), PackId(counting(92))],
            removed: vec![PackId(counting(93))],
            snapshot: None,
        };
        let bytes = delta.encode(&cipher, 7, counting(5));
        let bytes = golden(&format!("index-delta-{name}.bin"), &bytes);
        assert_eq!(IndexObject::decode(&cipher, 7, &bytes).unwrap(), delta);
        assert!(IndexObject::decode(&cipher, 8, &bytes).is_err(), "it has a number");
        let pack = |first, condemned_at| SnapshotPack {
            id: PackId(counting(first)),
            bytes: 6000,
            chunks: 3,
            condemned_at,
        };
        let packs = vec![pack(1, 0), pack(50, 5)];
        let tables = vec![counting(11), counting(12)];
        let snapshot = IndexObject {
            latest_snapshot: 3,
            snapshot: Some(Snapshot { packs, tables }),
            ..IndexObject::default()
        };
        let bytes = snapshot.encode(&cipher, 8, counting(6));
        let bytes = golden(&format!("index-snapshot-{name}.bin"), &bytes);
        assert_eq!(IndexObject::decode(&cipher, 8, &bytes).unwrap(), snapshot);
    }
}

#[test]
fn table() {
    for (name, cipher) in ciphers() {
        let packs = vec![entry(1), entry(50)];
        let bytes = encode_table(&cipher, &counting(11), counting(7), &packs);
        let bytes = golden(&format!("table-{name}.bin"), &bytes);
        assert_eq!(decode_table(&cipher, &counting(11), &bytes).unwrap(), packs);
        assert!(decode_table(&cipher, &counting(12), &bytes).is_err(), "it has a name");
    }
}

#[test]
fn reference() {
    for (name, cipher) in ciphers() {
        let roots = vec![
            Target::Manifest(ChunkId::from_bytes(counting(1)).into()),
            Target::Record(ChunkId::from_bytes(counting(2))),
            Target::Chunk(ChunkId::from_bytes(counting(3))),
        ];
        let payload = RefPayload { roots, body: b"body".to_vec() };
        for (flags, state) in [(0, "set"), (1, "removed")] {
            let plain = refs::encode("instance", "t1", Generation(9), &payload, flags);
            let stored = cipher.stored_ref_name("instance", "t1");
            let bytes = refs::seal(&cipher, &stored, Generation(9), counting(8), &plain, false);
            let bytes = golden(&format!("ref-{state}-{name}.bin"), &bytes);
            let opened = refs::open(&cipher, &stored, Generation(9), &bytes).unwrap();
            assert_eq!((opened.kind.as_str(), opened.name.as_str()), ("instance", "t1"));
            assert_eq!(
                (opened.value.roots, opened.value.body),
                (payload.roots.clone(), payload.body.clone())
            );
            assert_eq!(opened.removed, flags == 1);
            assert!(refs::open(&cipher, &stored, Generation(10), &bytes).is_err(), "a number");
        }
    }
}

#[test]
fn reference_to_what_is_gone() {
    for (name, cipher) in ciphers() {
        let id = |number| ChunkId::from_bytes(counting(number));
        let roots = vec![Target::Record(id(2)), Target::Gone(id(3))];
        let payload = RefPayload { roots: roots.clone(), body: b"body".to_vec() };
        let plain = refs::encode("instance", "t1", Generation(9), &payload, 0);
        let stored = cipher.stored_ref_name("instance", "t1");
        let bytes = refs::seal(&cipher, &stored, Generation(9), counting(8), &plain, true);
        let bytes = golden(&format!("ref-gone-{name}.bin"), &bytes);
        let opened = refs::open(&cipher, &stored, Generation(9), &bytes).unwrap();
        assert_eq!(opened.value.roots, roots);
        // Who does not know of it is told that this is newer, and collects nothing.
        let old = chunk::header::Format { incompatible: 0, ..crate::layout::REF_FORMAT };
        assert!(old.read(&bytes, chunk::header::Intent::Read).is_err());
    }
    let gone = [Child::new("parent", Target::Gone(ChunkId::from_bytes(counting(1))))];
    assert!(write_record(&mut chunk::Memory::default(), &gone, b"").is_err(), "only refs say so");
}

#[test]
fn record() {
    let mut memory = chunk::Memory::new();
    let children = [
        Child::new("disk0", Target::Manifest(ChunkId::from_bytes(counting(1)).into())),
        Child::new("parent", Target::Record(ChunkId::from_bytes(counting(2)))),
        Child::new("", Target::Chunk(ChunkId::from_bytes(counting(3)))),
    ];
    let id = write_record(&mut memory, &children, b"{}").unwrap();
    let chunk = chunk::ChunkSource::fetch(&memory, &id, chunk::Urgency::Urgent).unwrap();
    let bytes = golden("record.bin", &chunk[0]);
    let record = parse_record(&id, &bytes).unwrap();
    assert_eq!((record.children.as_slice(), record.body.as_slice()), (&children[..], &b"{}"[..]));
}
