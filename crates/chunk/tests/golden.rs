//! Golden bytes: what was once written must be read for ever, and written the same.
//!
//! `COLLECTIVE_BLESS=1 cargo test -p chunk --test golden` makes files that are not there yet. It
//! never overwrites one: a format that changes gets a new version, a new feature or a new file.

use std::fs;
use std::path::Path;

use chunk::crypt::{Cipher, FrameKind, MasterKey, PackId, RepositoryId};
use chunk::frame::{Effort, Frame, FrameBuilder, decode};
use chunk::header::{Format, Intent};
use chunk::{PAGE_BYTES, id_of};

/// Compares with the golden file, byte for byte; gives the golden bytes.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let golden = load(name, bytes);
    assert!(golden == bytes, "{name} is no longer written as it was");
    golden
}

fn load(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Text that compresses, and noise that does not.
fn page(noise: bool) -> Vec<u8> {
    let mut bytes = vec![0; PAGE_BYTES];
    if noise {
        blake3::Hasher::new().update(b"golden").finalize_xof().fill(&mut bytes);
    } else {
        let text = b"A computer is data. ".iter().cycle();
        bytes.iter_mut().zip(text).for_each(|(byte, letter)| *byte = *letter);
    }
    bytes
}

/// The writers of the day that the files were made.
const EFFORT: Effort = Effort { pages: 32, level: 3 };

fn frame(chunks: &[&[u8]]) -> Frame {
    let mut builder = FrameBuilder::new(EFFORT);
    chunks.iter().for_each(|chunk| builder.push(id_of(chunk), chunk));
    builder.finish()
}

fn ciphers() -> [(&'static str, Cipher); 2] {
    let repository = RepositoryId(std::array::from_fn(|i| i as u8));
    let master = MasterKey::from_bytes(std::array::from_fn(|i| 0x80 + i as u8));
    [("none", Cipher::none(repository)), ("aes256gcm", Cipher::aes256gcm(&master, repository))]
}

#[test]
fn header() {
    let format = Format {
        name: "golden",
        magic: *b"cltvgold",
        version: 0x0102,
        read_only_compatible: u64::MAX,
        incompatible: u64::MAX,
    };
    let mut header = format.header();
    header.compatible = 0x0807_0605_0403_0201;
    header.read_only_compatible = 0x1817_1615_1413_1211;
    header.incompatible = 0x2827_2625_2423_2221;
    let bytes = golden("header.bin", &header.encode());
    assert_eq!(format.read(&bytes, Intent::Write).unwrap().0, header);
}

#[test]
fn stored_frame() {
    let page = page(true);
    let bytes = golden("frame-stored.bin", &frame(&[&page, b"", b"end"]).bytes);
    let chunks = decode(&bytes, PAGE_BYTES + 3).unwrap();
    assert!(chunks.iter().eq([page.as_slice(), b"", b"end"]));
}

#[test]
fn compressed_frame() {
    // Another version of zstd may write other bytes, which is no change of our format: the golden
    // ones must be read, and what is written now must be of the same kind.
    let page = page(false);
    let now = frame(&[&page, &page, b"end"]).bytes;
    let bytes = load("frame-zstd.bin", &now);
    assert_eq!(bytes[..8], now[..8]);
    for bytes in [bytes, now] {
        let chunks = decode(&bytes, 2 * PAGE_BYTES + 3).unwrap();
        assert!(chunks.iter().eq([page.as_slice(), &page, b"end"]));
    }
}

#[test]
fn sealed_frames() {
    for (name, cipher) in ciphers() {
        let pack = cipher.pack(PackId([0x55; 32]));
        for (kind, word) in [(FrameKind::Chunks, "chunks"), (FrameKind::Table, "table")] {
            let mut sealed = b"a frame".to_vec();
            pack.seal(kind, 0x0102_0304, &mut sealed);
            let mut bytes = golden(&format!("sealed-{word}-{name}.bin"), &sealed);
            pack.open(kind, 0x0102_0304, &mut bytes).unwrap();
            assert_eq!(bytes, b"a frame");
        }
    }
}

#[test]
fn records() {
    for (name, cipher) in ciphers() {
        let sealed = cipher.seal_record("index/00000000000000000007", [0x77; 32], b"a record");
        let bytes = golden(&format!("record-{name}.bin"), &sealed);
        let opened = cipher.open_record("index/00000000000000000007", &bytes);
        assert_eq!(opened.as_deref(), Ok(b"a record".as_slice()));

        let sealed = cipher.seal_ref("instance", "t1", 7, [0x77; 32], b"a payload");
        let bytes = golden(&format!("ref-{name}.bin"), &sealed);
        assert_eq!(
            cipher.open_ref("instance", "t1", 7, &bytes).as_deref(),
            Ok(b"a payload".as_slice())
        );
    }
}

/// Everything that is derived from a key and stored or compared: check value, a chunk's stored
/// name, a ref's stored name.
#[test]
fn derived_values() {
    for (name, cipher) in ciphers() {
        let stored = cipher.stored_name(&id_of(b"a page"));
        let stored_ref = cipher.stored_ref_name("instance", "t1");
        let all = [cipher.key_check().as_slice(), &stored, &stored_ref].concat();
        golden(&format!("derived-{name}.bin"), &all);
    }
}
