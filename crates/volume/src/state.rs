//! The state file of a volume: which overlays lie on which base, in which order.
//!
//! It is small and replaced as a whole: written under another name, synced, renamed, and the
//! directory synced. So after a crash it is the old one or the new one.

use model::{ManifestId, PAGE_BYTES};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::error::{Result, VolumeError};
use crate::header::{self, u32_at, u64_at};

/// Name of the file.
pub const STATE_NAME: &str = "state";
/// Name under which the next state is written.
pub const STATE_NEW_NAME: &str = "state.new";
/// Most overlays that a volume may have.
pub const OVERLAYS_MAX: usize = 256;

const FIXED_BYTES: usize = 128;
const STATE_BYTES_MAX: usize = FIXED_BYTES + OVERLAYS_MAX * 8 + 8;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Random; mixed into the checksums of the volume's journals.
    pub volume: [u8; 16],
    /// Size of the volume, bytes.
    pub size_bytes: u64,
    /// The manifest below all overlays.
    pub base: Option<ManifestId>,
    /// The number that the next overlay gets.
    pub next_overlay: u64,
    /// The overlays, from the lowest to the highest. The last ones may be empty: they were made
    /// ahead of time for the next freeze.
    pub overlays: Vec<u64>,
}

impl State {
    /// The bytes of the file: see docs/format/overlay.md.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        header::write(&header::STATE, &mut bytes);
        bytes[40..56].copy_from_slice(&self.volume);
        bytes[56..64].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.next_overlay.to_le_bytes());
        bytes[72..76].copy_from_slice(&(self.overlays.len() as u32).to_le_bytes());
        if let Some(base) = &self.base {
            bytes[76..80].copy_from_slice(&1u32.to_le_bytes());
            bytes[80..112].copy_from_slice(base.as_bytes());
        }
        for number in &self.overlays {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the bytes of the file.
    pub fn decode(bytes: &[u8], volume: &str) -> Result<Self> {
        let damaged = |detail: &str| VolumeError::DamagedFile {
            volume: volume.to_owned(),
            file: STATE_NAME.to_owned(),
            offset: 0,
            detail: detail.to_owned(),
        };
        header::check(&header::STATE, bytes, volume, STATE_NAME)?;
        if bytes.len() < FIXED_BYTES + 8 || bytes.len() > STATE_BYTES_MAX {
            return Err(damaged("its length is wrong"));
        }
        let (said, sum) = bytes.split_at(bytes.len() - 8);
        if xxh3_64(said) != u64_at(sum, 0) {
            return Err(damaged("its checksum is wrong"));
        }
        let count = u32_at(said, 72) as usize;
        if said.len() != FIXED_BYTES + count * 8 {
            return Err(damaged("its length is wrong"));
        }
        let base = match u32_at(said, 76) {
            0 => None,
            1 => Some(ManifestId::from_bytes(std::array::from_fn(|i| said[80 + i]))),
            _ => return Err(damaged("it names a base of an unknown kind")),
        };
        let state = Self {
            volume: std::array::from_fn(|i| said[40 + i]),
            size_bytes: u64_at(said, 56),
            base,
            next_overlay: u64_at(said, 64),
            overlays: (0..count).map(|i| u64_at(said, FIXED_BYTES + i * 8)).collect(),
        };
        let ascending = state.overlays.is_sorted_by(|a, b| a < b);
        let below_next = state.overlays.iter().all(|&number| number < state.next_overlay);
        if !ascending || !below_next || state.overlays.is_empty() {
            return Err(damaged("its overlays are not in order"));
        }
        if state.size_bytes == 0 || !state.size_bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(damaged("its size is not a number of pages"));
        }
        Ok(state)
    }

    /// Reads the state of the volume on `disk`.
    pub fn read(disk: &dyn Disk, volume: &str) -> Result<Self> {
        let fail = |error| VolumeError::io(volume, "reading its state", error);
        let file = disk.open(STATE_NAME).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(disk, volume),
            _ => fail(error),
        })?;
        // One byte more than can be right, so that a longer file is noticed.
        let len = file.len().map_err(fail)?.min(STATE_BYTES_MAX as u64 + 1);
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0).map_err(fail)?;
        Self::decode(&bytes, volume)
    }

    /// Replaces the state of the volume on `disk`. Before this returns without an error, either
    /// may be found there after a crash.
    pub fn write(&self, disk: &dyn Disk, volume: &str) -> Result<()> {
        let write = || {
            let file = disk.create(STATE_NEW_NAME)?;
            file.write_at(&self.encode(), 0)?;
            file.sync()?;
            disk.rename(STATE_NEW_NAME, STATE_NAME)?;
            disk.sync_dir()
        };
        write().map_err(|error| VolumeError::io(volume, "writing its state", error))
    }
}

/// What it means that there is no state: a volume whose making was cut short has nothing in its
/// overlays. Anything else was lost, and is not to be taken for that.
fn missing(disk: &dyn Disk, volume: &str) -> VolumeError {
    let fail = |error| VolumeError::io(volume, "looking for its state", error);
    let has_data = || -> std::io::Result<bool> {
        for name in disk.list()?.iter().filter(|name| name.ends_with(".data")) {
            if disk.open(name)?.len()? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match has_data() {
        Ok(false) => VolumeError::NotFound { dir: disk.location() },
        Ok(true) => VolumeError::DamagedFile {
            volume: volume.to_owned(),
            file: STATE_NAME.to_owned(),
            offset: 0,
            detail: "it is missing, and there are overlays with data".to_owned(),
        },
        Err(error) => fail(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_are_written_and_read() {
        let state = State {
            volume: std::array::from_fn(|i| i as u8),
            size_bytes: 512 << 20,
            base: Some(ManifestId::from_bytes(std::array::from_fn(|i| 0x80 + i as u8))),
            next_overlay: 9,
            overlays: vec![3, 7, 8],
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state-v1.bin");
        if !std::path::Path::new(path).exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
            std::fs::write(path, state.encode()).unwrap();
        }
        let golden = std::fs::read(path).unwrap();
        assert_eq!(State::decode(&golden, "t").unwrap(), state);
        assert_eq!(state.encode(), golden);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = State {
            volume: [1; 16],
            size_bytes: 4096,
            base: None,
            next_overlay: 3,
            overlays: vec![1, 2],
        };
        assert_eq!(State::decode(&good.encode(), "t").unwrap(), good);
        for bad in [
            State { size_bytes: 0, ..good.clone() },
            State { size_bytes: 4097, ..good.clone() },
            State { overlays: vec![], ..good.clone() },
            State { overlays: vec![2, 1], ..good.clone() },
            State { overlays: vec![1, 1], ..good.clone() },
            State { overlays: vec![1, 3], ..good.clone() },
        ] {
            assert!(State::decode(&bad.encode(), "t").is_err(), "{bad:?}");
        }
        let mut newer = good.encode();
        newer[8] = 2;
        assert!(matches!(State::decode(&newer, "t"), Err(VolumeError::Newer { .. })));
    }
}
