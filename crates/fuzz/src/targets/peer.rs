//! What other hosts say.

use chunk::Verified;
use peer::wire::{
    HEADER_BYTES, IDS_MAX, decode_header, decode_ids, decode_reply, encode_reply, encode_request,
};

fn two() -> [Verified; 2] {
    [Verified::of(vec![1; 4096]), Verified::of(vec![2; 100])]
}

/// A request, and a reply to a request for two chunks.
pub fn peer(bytes: &[u8]) {
    if let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
        && let Some(len) = decode_header(header)
    {
        assert!(len <= IDS_MAX * 32);
        if let Some(ids) = rest.get(..len) {
            assert_eq!(encode_request(&decode_ids(ids)), bytes[..HEADER_BYTES + len]);
        }
    }
    let ids = two().map(|chunk| chunk.id());
    for chunk in decode_reply(bytes, &ids).into_iter().flatten() {
        assert!(ids.contains(&chunk.id()));
    }
}

pub fn peers() -> Vec<Vec<u8>> {
    let reply = |chunks: [Option<Verified>; 2]| {
        encode_reply(chunks.into_iter()).map(|reply| reply[4..].to_vec()).unwrap_or_default()
    };
    let [a, b] = two();
    vec![
        encode_request(&[a.id(), b.id()]),
        reply([Some(a.clone()), Some(b)]),
        reply([Some(a), None]),
        reply([None, None]),
    ]
}
