//! How a chunk gets its id.

use std::sync::OnceLock;

use model::{ChunkId, PAGE_BYTES};

/// The largest chunk, bytes. A page is 4 KiB, a manifest node 4.1 KiB; only records come near.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The id of a chunk: BLAKE3 of its plaintext, 32 bytes, unkeyed.
///
/// Of the plaintext and not of what is stored, so that a change of codec, level or key renames
/// nothing.
pub fn id_of(bytes: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// Whether these bytes are all zero, so that they are a hole and not a chunk.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Folding 64 bytes at a time without an early exit inside lets the compiler use vector
    // registers; the exit between blocks makes ordinary pages cost one block.
    let blocks = bytes.chunks_exact(64);
    let rest = blocks.remainder();
    blocks.into_iter().all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// The id that a page of zeros would have; no store holds it, and no manifest may name it.
pub fn zero_page_id() -> &'static ChunkId {
    static ID: OnceLock<ChunkId> = OnceLock::new();
    ID.get_or_init(|| id_of(&[0; PAGE_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_blake3() {
        // The empty input's digest from the BLAKE3 specification's test vectors.
        assert_eq!(
            id_of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        for len in [0, 1, 63, 64, 65, 4096, 4097] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len}");
            for at in [0, len / 2, len.saturating_sub(1)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 1;
                    assert!(!is_zero(&bytes), "{len} {at}");
                    bytes[at] = 0;
                }
            }
        }
    }
}
