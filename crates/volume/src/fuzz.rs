//! A door for the fuzzers (crate `fuzz`): what reads this crate's private files, as functions of
//! bytes. Nothing else goes through it.

use xxhash_rust::xxh3::xxh3_64;

use crate::state::State;

/// The state of a volume, with a right checksum too.
pub fn state(bytes: &[u8]) {
    let _ = State::decode(bytes, "fuzz");
    let Some(said) = bytes.len().checked_sub(8).map(|end| &bytes[..end]) else { return };
    let summed = [said, &xxh3_64(said).to_le_bytes()].concat();
    if let Ok(state) = State::decode(&summed, "fuzz") {
        assert_eq!(State::decode(&state.encode(), "fuzz").ok(), Some(state));
    }
}
