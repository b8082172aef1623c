//! What the guests wrote, what they were told, and therefore what must be found.
//!
//! A page holds one number, over and over: which write it is from. Numbers are never used twice, so
//! that a page tells exactly what it is, and a page that is not one number is garbage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::PAGE_BYTES;

/// Pages that are not zero.
pub type Pages = BTreeMap<u64, u64>;

/// Memory, then the disks.
pub const VOLUMES: usize = 3;
/// Pages of each volume that a guest writes to.
pub const PAGES: [u64; VOLUMES] = [12, 10, 10];

/// All volumes at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(pub [Pages; VOLUMES]);

/// What a crash may have left of a host's disks.
#[derive(Debug, Clone)]
pub struct Left {
    pub instance: String,
    pub host: usize,
    /// Where it lies there; none: it was gone already.
    pub disk: Option<String>,
    pub generation: u64,
    /// For each disk and page, what it may hold; a page that is not listed is zero.
    pub may: [BTreeMap<u64, BTreeSet<u64>>; VOLUMES],
    /// Something that only this host had was acknowledged to the guest.
    pub precious: bool,
    /// A guest went on from it.
    pub used: bool,
}

impl Left {
    /// Whether the disks (memory does not matter) are what this may have left.
    pub fn admits(&self, disks: &[Pages]) -> bool {
        self.admit_from(1, disks)
    }

    /// The same for the data disk alone.
    pub fn admits_data(&self, disks: &[Pages]) -> bool {
        self.admit_from(2, &disks[1..])
    }

    fn admit_from(&self, first: usize, disks: &[Pages]) -> bool {
        disks.iter().zip(&self.may[first..]).zip(&PAGES[first..]).all(|((found, may), count)| {
            (0..*count).all(|page| {
                let value = found.get(&page).copied().unwrap_or(0);
                may.get(&page).map_or(value == 0, |may| may.contains(&value))
            })
        })
    }
}

#[derive(Default)]
pub struct Known {
    next_value: u64,
    /// By the number in the device state.
    pub snapshots: Vec<(String, Snapshot)>,
    /// Disks of guests that were powered off, by instance.
    pub offs: Vec<(String, Snapshot)>,
    pub left: Vec<Left>,
    /// Checkpoints that a verb has named to somebody: the first digits of their ids.
    pub told: Vec<(String, String)>,
    /// Instances that were removed.
    pub removed: BTreeSet<String>,
    /// Which host started a guest with which generation of an instance.
    pub ran: BTreeMap<(String, u64), usize>,
    /// Which host runs which generation of which instance: host, generation.
    pub running: BTreeMap<(String, usize), u64>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Truth(Mutex<Known>);

impl Truth {
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that was never written before.
    pub fn fresh(&self) -> u64 {
        let mut known = self.known();
        known.next_value += 1;
        known.next_value
    }
}

/// The bytes of a page.
pub fn page(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(PAGE_BYTES / 8)
}

/// Which number a page holds; none: garbage.
pub fn value(bytes: &[u8]) -> Option<u64> {
    let first = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let words = bytes.chunks_exact(8);
    words.into_iter().all(|word| word == first.to_le_bytes()).then_some(first)
}
