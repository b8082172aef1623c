//! What the kernel passes on from whoever uses a mount.

pub fn range(bytes: &[u8]) {
    if let Some((numbers, _)) = bytes.split_first_chunk::<24>() {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| numbers[at + i]));
        ::export::fuzz::range(number(0), number(8), number(16));
    }
}

pub fn ranges() -> Vec<Vec<u8>> {
    [[0, 4096, 10_000], [4095, 2, 8192], [8192, 4096, 10_000], [u64::MAX, 1, u64::MAX]]
        .map(|numbers: [u64; 3]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
        .into()
}

pub fn names() -> Vec<Vec<u8>> {
    vec![b"\0etc\0\x02passwd\0\x03x\0\x04..\0\0/".to_vec(), b"\0a\0\0a\0\x03aa".to_vec()]
}
