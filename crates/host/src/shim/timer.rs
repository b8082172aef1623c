//! When the next automatic checkpoint is due: a function of what was said, of what was written, and
//! of how the last ones went.
//!
//! *Invariants.* Taking them needs at most a tenth of the guest's time, however slow the store and
//! however fast the guest writes. One that failed is tried again, less and less often.

use std::time::Duration;

use ambient::Instant;

use crate::auto::Policy;

/// What a checkpoint took, so many times, lies between its begin and the next.
const SPACING: u32 = 10;
/// At least so long lies between the begins of two.
const APART_MIN: Duration = Duration::from_secs(1);
/// After a failure: first so soon (or when the next would have been due, if that is sooner), then
/// twice as long each time.
const AGAIN_FIRST: Duration = Duration::from_secs(30);
/// At most so long, unless they are further apart anyway.
const AGAIN_MAX: Duration = Duration::from_secs(3600);

/// One instance's timer.
#[derive(Debug, Clone)]
pub struct Timer {
    every: Option<Duration>,
    dirtied_bytes: Option<u64>,
    due: Instant,
    /// Not sooner, however much was written.
    not_before: Instant,
    failures: u32,
}

impl Timer {
    /// Begins at `now`.
    pub fn new(policy: Option<Policy>, now: Instant) -> Self {
        let mut timer =
            Self { every: None, dirtied_bytes: None, due: now, not_before: now, failures: 0 };
        timer.set(policy, now);
        timer
    }

    /// Another policy: it begins at `now`.
    pub fn set(&mut self, policy: Option<Policy>, now: Instant) {
        self.every = policy.map(|policy| Duration::from_secs(policy.every_s));
        self.dirtied_bytes = policy.and_then(|policy| policy.dirtied_bytes);
        self.failures = 0;
        self.due = now + self.every.unwrap_or_default();
    }

    /// A checkpoint was taken, automatic or not.
    pub fn taken(&mut self, began: Instant, cost: Duration) {
        self.failures = 0;
        self.not_before = began + (cost * SPACING).max(APART_MIN);
        self.due = self.not_before.max(began + self.every.unwrap_or_default());
    }

    /// An automatic one failed; says whether it is the first.
    pub fn failed(&mut self, began: Instant, cost: Duration) -> bool {
        let every = self.every.unwrap_or_default();
        let again = every.min(AGAIN_FIRST) * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.due = began + again.min(every.max(AGAIN_MAX)).max(cost * SPACING);
        self.not_before = self.due;
        self.failures == 1
    }

    /// Whether one is due: it is time, or so much is written that it is.
    pub fn is_due(&self, now: Instant, dirtied_bytes: impl FnOnce() -> u64) -> bool {
        let by_time = self.due().is_some_and(|due| due <= now);
        let enough = |most: u64| self.not_before <= now && most <= dirtied_bytes();
        by_time || self.dirtied_bytes.is_some_and(enough)
    }

    /// When the next is due, unless so much is written before; none: never.
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auto::Keep;

    const POLICY: Policy = Policy {
        every_s: 300,
        dirtied_bytes: Some(64 << 20),
        keep: Keep { last: 1, hourly: 0, daily: 0, weekly: 0 },
    };

    fn seconds(timer: &Timer, since: Instant) -> u64 {
        timer.due().unwrap().duration_since(since).as_secs()
    }

    #[test]
    fn a_slow_store_makes_them_rarer() {
        let now = ambient::now();
        let mut timer = Timer::new(Some(POLICY), now);
        assert_eq!(seconds(&timer, now), 300);
        timer.taken(now, Duration::from_secs(2));
        assert_eq!(seconds(&timer, now), 300);
        timer.taken(now, Duration::from_secs(60));
        assert_eq!(seconds(&timer, now), 600);
        assert_eq!(Timer::new(None, now).due(), None);
    }

    #[test]
    fn what_is_written_makes_them_sooner_and_not_more_than_the_store_bears() {
        let now = ambient::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut timer = Timer::new(Some(POLICY), now);
        let is_due = |timer: &Timer, seconds, mib: u64| timer.is_due(after(seconds), || mib << 20);
        assert!(!is_due(&timer, 0, 63) && is_due(&timer, 0, 64));
        assert!(!is_due(&timer, 299, 63) && is_due(&timer, 300, 0));
        // As with time: ten times what the last one took lies between two.
        timer.taken(now, Duration::from_secs(2));
        assert!(!is_due(&timer, 19, 1000) && is_due(&timer, 20, 64));
        assert!(!is_due(&timer, 299, 63) && is_due(&timer, 300, 0));
        timer.taken(now, Duration::ZERO);
        assert!(!is_due(&timer, 0, 1000) && is_due(&timer, 1, 1000));
        // After a failure it is tried when that says so.
        timer.failed(now, Duration::ZERO);
        assert!(!is_due(&timer, 29, 1000) && is_due(&timer, 30, 0));
        timer.set(Some(Policy { dirtied_bytes: None, ..POLICY }), now);
        assert!(!is_due(&timer, 299, 1000) && is_due(&timer, 300, 0));
        timer.set(None, now);
        assert!(!is_due(&timer, 1000, 1000));
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let now = ambient::now();
        let mut timer = Timer::new(Some(POLICY), now);
        let cost = Duration::from_millis(100);
        let mut waits = Vec::new();
        for number in 0..9 {
            assert_eq!(timer.failed(now, cost), number == 0);
            waits.push(seconds(&timer, now));
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        // Nor does a try that takes long come often.
        timer.failed(now, Duration::from_secs(1000));
        assert_eq!(seconds(&timer, now), 10_000);
        timer.taken(now, cost);
        assert!(timer.failed(now, cost));
        assert_eq!(seconds(&timer, now), 30);
    }
}
