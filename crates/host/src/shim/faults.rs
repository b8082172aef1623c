//! What the guest waited for: reads of its memory, its disks and what it booted from that this host could
//! not answer by itself, by how long they took.
//!
//! **Invariant:** each number only grows. Read while it is counted, a count may lack what has just ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{FAULT_BOUNDS_MS, FaultsPrint, ReadsPrint};

/// All of one instance.
#[derive(Debug, Default)]
pub struct Faults {
    pub ram: Waits,
    pub disk: Waits,
    pub boot: Waits,
}

impl Faults {
    /// What is written down of them.
    pub fn print(&self, cached_bytes: u64) -> ReadsPrint {
        ReadsPrint {
            cached_bytes,
            ram: self.ram.print(),
            disk: self.disk.print(),
            boot: self.boot.print(),
        }
    }
}

/// Those of one kind.
#[derive(Debug, Default)]
pub struct Waits {
    /// The last one is of those that took longer than all bounds.
    within: [AtomicU64; FAULT_BOUNDS_MS.len() + 1],
    micros: AtomicU64,
}

impl Waits {
    /// One has its bytes after so long.
    pub fn add(&self, took: Duration) {
        let at = FAULT_BOUNDS_MS.iter().position(|most| took <= Duration::from_millis(*most));
        self.within[at.unwrap_or(FAULT_BOUNDS_MS.len())].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    fn print(&self) -> FaultsPrint {
        FaultsPrint {
            within: self.within.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_under_the_first_bound_that_holds_it() {
        let waits = Waits::default();
        for micros in [0, 1000, 1001, 4000, 16_000_000, 16_000_001] {
            waits.add(Duration::from_micros(micros));
        }
        let print = waits.print();
        assert_eq!(print.within, [2, 2, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(print.micros, 32_006_002);
    }
}
