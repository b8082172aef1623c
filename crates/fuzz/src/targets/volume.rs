//! What a volume and the host's cache read.

use ::chunk::{ChunkId, id_of};
use ::volume::{Cache, Trace};

use crate::{golden, scratch};

pub fn states() -> Vec<Vec<u8>> {
    vec![golden("volume/tests/golden/state-v1.bin")]
}

/// Noise is refused or means one thing.
pub fn trace(bytes: &[u8]) {
    if let Ok(trace) = Trace::decode(bytes) {
        let encoded = trace.encode();
        assert_eq!(Trace::decode(&encoded).ok().as_ref(), Some(&trace));
        let _ = trace.merged(&trace, ::volume::Recorded::Whole);
    }
}

pub fn traces() -> Vec<Vec<u8>> {
    vec![golden("volume/tests/golden/trace-v1.bin")]
}

/// An index and one segment that say anything: what is read is what was asked for, or nothing.
/// The first byte cuts the input in two.
pub fn cache(bytes: &[u8]) {
    const SEGMENT: u64 = 7;
    let Some((cut, rest)) = bytes.split_first() else { return };
    let (index, segment) = rest.split_at(rest.len() * usize::from(*cut) / 255);
    scratch::with(|dir| {
        let dir = dir.join("cache");
        let _ = std::fs::remove_dir_all(&dir);
        if std::fs::create_dir_all(&dir).is_err()
            || std::fs::write(dir.join("index"), index).is_err()
            || std::fs::write(dir.join(format!("{SEGMENT:016x}.chunks")), segment).is_err()
        {
            return;
        }
        let Ok(cache) = Cache::open(&dir, 1 << 20) else { return };
        let page = id_of(segment.get(..4096).unwrap_or(segment));
        for id in [page, ChunkId::from_bytes([0; 32]), id_of(b"x")] {
            if let Some(chunk) = cache.read(&id) {
                assert_eq!(id_of(&chunk), id);
            }
            let _ = cache.has(&id);
            let mut buf = vec![0; 4096];
            if cache.read_pages(&[(0, id)], &mut buf).is_empty() {
                assert_eq!(id_of(&buf), id);
            }
        }
    });
}

pub fn caches() -> Vec<Vec<u8>> {
    let index = golden("volume/tests/golden/cache-index-v1.bin");
    let mut seeds = vec![[&[255][..], &index].concat()];
    let mut both = [&[128][..], &index].concat();
    both.extend(std::iter::repeat_n(7, index.len()));
    seeds.push(both);
    seeds
}
