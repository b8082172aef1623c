//! The one door through which time and chance enter.
//!
//! Everything else takes them as values, so that a simulation or a test can supply its own.
//! `cargo xtask tidy` and clippy refuse the banned calls elsewhere.
//!
//! **Invariant:** nothing here decides anything: no policy, no formatting, no state.

// The door itself is the one place that may make the banned calls.
#![allow(clippy::disallowed_methods)]

use std::time::{SystemTime, UNIX_EPOCH};

pub use std::time::{Duration, Instant};

/// Milliseconds since the Unix epoch by this machine's clock: for people and for ages, never to
/// order two hosts' acts.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A point of the monotonic clock, for durations and deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// What this process has used of processors so far, all its threads together.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// Bytes from the operating system's cryptographic generator.
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can go on without it.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_differs_and_time_goes_on() {
        assert_ne!(random::<16>(), random::<16>());
        assert!(unix_ms() > 1_700_000_000_000);
        assert!(now() <= now());
        assert!(!processor_time().is_zero() && processor_time() <= processor_time());
    }
}
