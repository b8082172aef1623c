//! Bytes from an adversary: refused, never a panic, never more memory than allowed.

use chunk::crypt::{Cipher, FrameKind, PackId, RepositoryId};
use chunk::frame::{Effort, FRAME_BYTES_MAX, FrameBuilder, decode};
use chunk::header::{Format, Intent};
use chunk::{Verified, id_of};
use proptest::prelude::*;

const FORMAT: Format = Format {
    name: "test",
    magic: *b"cltvtest",
    version: 1,
    read_only_compatible: 0,
    incompatible: 0,
};

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let byte = prop_oneof![Just(0_u8), Just(b'a'), any::<u8>()];
    proptest::collection::vec(proptest::collection::vec(byte, 0..200), 1..20)
}

fn frame_of(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = FrameBuilder::new(Effort::QUICK);
    chunks.iter().for_each(|chunk| builder.push(id_of(chunk), chunk));
    builder.finish().bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_framed_comes_back(chunks in chunks()) {
        let frame = frame_of(&chunks);
        let plain_bytes: usize = chunks.iter().map(Vec::len).sum();
        let decoded = decode(&frame, plain_bytes).unwrap();
        prop_assert!(decoded.iter().eq(chunks.iter().map(Vec::as_slice)));
        // One byte less is allowed: refused before it is unpacked.
        prop_assert!(plain_bytes == 0 || decode(&frame, plain_bytes - 1).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = FORMAT.read(&bytes, Intent::Write);
        for codec in [0, 1] {
            let mut bytes = bytes.clone();
            if let Some(first) = bytes.first_mut() {
                *first = codec;
            }
            if let Ok(chunks) = decode(&bytes, 4096) {
                prop_assert!(chunks.iter().map(<[u8]>::len).sum::<usize>() <= 4096);
            }
        }
        let cipher = Cipher::none(RepositoryId([0; 16]));
        prop_assert!(cipher.open_record("place", &bytes).is_err());
        prop_assert!(cipher.pack(PackId([0; 32])).open(FrameKind::Chunks, 0, &mut bytes.clone()).is_err());
    }

    #[test]
    fn a_damaged_frame_is_refused_or_fails_verification(
        chunks in chunks(),
        bit in any::<proptest::sample::Index>(),
    ) {
        let mut frame = frame_of(&chunks);
        let bit = bit.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        // A frame has no checksum of its own (sealing and ids do that): but whatever comes out
        // under an id is what the id says.
        if let Ok(decoded) = decode(&frame, FRAME_BYTES_MAX) {
            for (slot, bytes) in decoded.iter().enumerate() {
                if let Some(wanted) = chunks.get(slot) {
                    let verified = Verified::check(id_of(wanted), bytes);
                    prop_assert_eq!(verified.is_ok(), bytes == wanted.as_slice());
                }
            }
        }
    }
}
