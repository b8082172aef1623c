//! Headers, frames and seals.

use ::chunk::crypt::{Cipher, FrameKind, MasterKey, PackId, RepositoryId};
use ::chunk::frame::{FRAME_BYTES_MAX, decode};
use ::chunk::header::{Format, HEADER_BYTES, Header, Intent};

use crate::golden;

const FORMAT: Format = Format {
    name: "test",
    magic: *b"cltvtest",
    version: 1,
    read_only_compatible: 0,
    incompatible: 0,
};

pub fn header(bytes: &[u8]) {
    let _ = FORMAT.read(bytes, Intent::Write);
    if let Ok((header, rest)) = FORMAT.read(bytes, Intent::Read) {
        assert_eq!(header.encode()[..], bytes[..HEADER_BYTES]);
        assert_eq!(rest.len(), bytes.len() - HEADER_BYTES);
    }
    if let Some(head) = bytes.first_chunk() {
        let _ = Header::decode(head);
    }
}

pub fn headers() -> Vec<Vec<u8>> {
    vec![golden("chunk/tests/golden/header.bin"), FORMAT.header().encode().to_vec()]
}

pub fn frame(bytes: &[u8]) {
    for bytes_max in [4096, FRAME_BYTES_MAX] {
        if let Ok(chunks) = decode(bytes, bytes_max) {
            assert!(chunks.iter().map(<[u8]>::len).sum::<usize>() <= bytes_max);
        }
    }
}

pub fn frames() -> Vec<Vec<u8>> {
    ["stored", "zstd"].map(|kind| golden(&format!("chunk/tests/golden/frame-{kind}.bin"))).into()
}

/// Nothing opens that was not sealed: an input that does has met a tag of 128 bits by chance.
pub fn sealed(bytes: &[u8]) {
    let repository = RepositoryId([0x5a; 16]);
    let key = MasterKey::from_bytes([0x3c; 32]);
    let cipher = Cipher::aes256gcm(&key, repository);
    assert!(cipher.open_record("place", bytes).is_err());
    assert!(cipher.open_ref("kind", "name", 1, bytes).is_err());
    let pack = cipher.pack(PackId([9; 32]));
    for kind in [FrameKind::Chunks, FrameKind::Table] {
        assert!(pack.open(kind, 0, &mut bytes.to_vec()).is_err());
    }
    let plain = Cipher::none(repository);
    let _ = plain.open_record("place", bytes);
    let _ = plain.pack(PackId([9; 32])).open(FrameKind::Chunks, 0, &mut bytes.to_vec());
}

pub fn seals() -> Vec<Vec<u8>> {
    ["record-none", "record-aes256gcm", "ref-aes256gcm", "sealed-chunks-none", "sealed-table-none"]
        .map(|name| golden(&format!("chunk/tests/golden/{name}.bin")))
        .into()
}
