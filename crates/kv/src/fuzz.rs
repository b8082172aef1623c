//! A door for the fuzzers (crate `fuzz`): what reads etcd's answers, as a function of bytes. Nothing else
//! goes through it.

use crate::etcd::wire::{self, Found, Granted, Kept, Line, Ranged, Refusal, Transacted};

const PREFIX: &str = "c/";

/// What etcd's gateway may say: to each request, and in a line of a watch.
pub fn etcd(bytes: &[u8]) {
    let found = |found: &Found| {
        let (key, entry) = (wire::key(found, PREFIX), wire::entry(found, PREFIX));
        // Who has an entry has its key, whole.
        if let Some(entry) = entry {
            assert_eq!(Some(&entry.key), key.as_ref());
            assert_eq!(found.key, format!("{PREFIX}{}", entry.key).into_bytes());
        }
    };
    if let Ok(ranged) = serde_json::from_slice::<Ranged>(bytes) {
        ranged.kvs.iter().for_each(found);
    }
    if let Ok(done) = serde_json::from_slice::<Transacted>(bytes) {
        let ranges = done.responses.iter().filter_map(|one| one.response_range.as_ref());
        ranges.flat_map(|ranged| &ranged.kvs).for_each(found);
    }
    if let Ok(Line { result: Some(watched) }) = serde_json::from_slice::<Line>(bytes) {
        watched.events.iter().for_each(|event| found(&event.kv));
    }
    let _ = serde_json::from_slice::<Granted>(bytes);
    let _ = serde_json::from_slice::<Kept>(bytes);
    let _ = serde_json::from_slice::<Refusal>(bytes);
}
