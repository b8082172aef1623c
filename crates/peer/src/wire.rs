//! What peers say to each other, within TLS. All numbers are little-endian.
//!
//! ```text
//! request: "CLPR" version:u8=1 0:u8 count:u16 id[count]:32
//! reply:   bytes:u32 zstd( (len:u32 chunk:len)[count] ), a len of 0: not here
//! ```
//!
//! *Bounds:* [`IDS_MAX`] ids, [`REPLY_BYTES_MAX`] in a reply, packed or not. A reply that would be larger
//! says of the rest that it is not here.

use chunk::Verified;
use model::ChunkId;

const MAGIC: [u8; 4] = *b"CLPR";
const VERSION: u8 = 1;
/// The bytes of a request before its ids.
pub const HEADER_BYTES: usize = 8;
const ID_BYTES: usize = 32;
/// Most ids in a request.
pub const IDS_MAX: usize = 1024;
/// The largest reply, bytes.
pub const REPLY_BYTES_MAX: usize = 8 << 20;
/// Quick: what is packed here is sent once.
const LEVEL: i32 = 1;

/// A request for chunks; at most [`IDS_MAX`].
pub fn encode_request(ids: &[ChunkId]) -> Vec<u8> {
    let ids = &ids[..ids.len().min(IDS_MAX)];
    let mut bytes = Vec::with_capacity(HEADER_BYTES + ids.len() * ID_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, 0]);
    bytes.extend_from_slice(&(ids.len() as u16).to_le_bytes());
    ids.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
    bytes
}

/// How many bytes follow a request's header; none: it is no request that can be answered.
pub fn decode_header(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let count = usize::from(u16::from_le_bytes([header[6], header[7]]));
    let known = header[..4] == MAGIC && header[4] == VERSION && header[5] == 0;
    (known && (1..=IDS_MAX).contains(&count)).then_some(count * ID_BYTES)
}

/// The ids of a request.
pub fn decode_ids(bytes: &[u8]) -> Vec<ChunkId> {
    let ids = bytes.chunks_exact(ID_BYTES);
    ids.map(|id| ChunkId::from_bytes(id.try_into().expect("so many bytes"))).collect()
}

/// A reply, with its length before it: what is here of what was asked for, in that order.
pub fn encode_reply(chunks: impl Iterator<Item = Option<Verified>>) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    for chunk in chunks {
        let bytes = chunk.as_ref().map_or(&[][..], |chunk| &chunk[..]);
        // A place is left for the lengths of all the others.
        let fits = plain.len() + bytes.len() + IDS_MAX * 4 + 4 <= REPLY_BYTES_MAX;
        let bytes = if fits { bytes } else { &[] };
        plain.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        plain.extend_from_slice(bytes);
    }
    let packed = zstd::bulk::compress(&plain, LEVEL)?;
    let mut reply = (packed.len() as u32).to_le_bytes().to_vec();
    reply.extend_from_slice(&packed);
    Ok(reply)
}

/// What came of what was asked for, without the length before it: only chunks that are what their ids
/// say. None: it is no reply.
pub fn decode_reply(packed: &[u8], ids: &[ChunkId]) -> Option<Vec<Verified>> {
    let plain = zstd::bulk::decompress(packed, REPLY_BYTES_MAX).ok()?;
    let mut rest = &plain[..];
    let mut chunks = Vec::new();
    for id in ids {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = after;
        if !bytes.is_empty() {
            chunks.push(Verified::check(*id, bytes).ok()?);
        }
    }
    rest.is_empty().then_some(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(byte: u8, len: usize) -> Verified {
        Verified::of(vec![byte; len])
    }

    #[test]
    fn what_is_here_comes_and_what_is_not_does_not() {
        let (a, b) = (chunk(1, 4096), chunk(2, 70_000));
        let ids = [a.id(), ChunkId::from_bytes([9; 32]), b.id()];
        let request = encode_request(&ids);
        let header = request[..HEADER_BYTES].try_into().unwrap();
        assert_eq!(decode_header(&header), Some(96));
        assert_eq!(decode_ids(&request[HEADER_BYTES..]), ids);
        let here = [Some(a.clone()), None, Some(b.clone())];
        let reply = encode_reply(here.into_iter()).unwrap();
        let came = decode_reply(&reply[4..], &ids).unwrap();
        assert_eq!(came.iter().map(Verified::id).collect::<Vec<_>>(), [a.id(), b.id()]);
        // The same for another question is a lie.
        assert!(decode_reply(&reply[4..], &[b.id(), ids[1], a.id()]).is_none());
        assert!(decode_reply(&reply[4..], &ids[..2]).is_none());
        assert!(decode_reply(&reply[4..reply.len() - 1], &ids).is_none());
    }

    #[test]
    fn the_bytes_are_these() {
        let request = encode_request(&[ChunkId::from_bytes([7; 32])]);
        assert_eq!(request[..8], *b"CLPR\x01\x00\x01\x00");
        assert_eq!(request[8..], [7; 32]);
        for wrong in [*b"CLPX\x01\x00\x01\x00", *b"CLPR\x02\x00\x01\x00", *b"CLPR\x01\x00\x00\x00"]
        {
            assert_eq!(decode_header(&wrong), None);
        }
        assert_eq!(decode_header(b"CLPR\x01\x00\x01\x05"), None, "more ids than may be asked for");
    }

    #[test]
    fn a_reply_has_an_end() {
        let big: Vec<_> = (0..40).map(|n| chunk(n, 1 << 20)).collect();
        let ids: Vec<_> = big.iter().map(Verified::id).collect();
        let reply = encode_reply(big.into_iter().map(Some)).unwrap();
        let came = decode_reply(&reply[4..], &ids).unwrap();
        assert_eq!(came.len(), 7, "of eight MiB");
        let bomb = zstd::bulk::compress(&vec![0; REPLY_BYTES_MAX + 1], 1).unwrap();
        assert!(decode_reply(&bomb, &ids).is_none());
    }
}
