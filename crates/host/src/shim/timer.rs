//! When the next automatic checkpoint is due: a function of what was said and of how the last ones
//! went.
//!
//! *Invariants.* Taking them needs at most a tenth of the guest's time, however slow the store. One
//! that failed is tried again, less and less often.

use std::time::Duration;

use ambient::Instant;

use crate::auto::Policy;

/// What a checkpoint took, so many times, lies between its begin and the next.
const SPACING: u32 = 10;
/// After a failure: first so soon (or when the next would have been due, if that is sooner), then
/// twice as long each time.
const AGAIN_FIRST: Duration = Duration::from_secs(30);
/// At most so long, unless they are further apart anyway.
const AGAIN_MAX: Duration = Duration::from_secs(3600);

/// One instance's timer.
#[derive(Debug, Clone)]
pub struct Timer {
    every: Option<Duration>,
    due: Instant,
    failures: u32,
}

impl Timer {
    /// Begins at `now`.
    pub fn new(policy: Option<Policy>, now: Instant) -> Self {
        let mut timer = Self { every: None, due: now, failures: 0 };
        timer.set(policy, now);
        timer
    }

    /// Another policy: it begins at `now`.
    pub fn set(&mut self, policy: Option<Policy>, now: Instant) {
        self.every = policy.map(|policy| Duration::from_secs(policy.every_s));
        self.failures = 0;
        self.due = now + self.every.unwrap_or_default();
    }

    /// A checkpoint was taken, automatic or not.
    pub fn taken(&mut self, began: Instant, cost: Duration) {
        self.failures = 0;
        self.due = began + self.every.unwrap_or_default().max(cost * SPACING);
    }

    /// An automatic one failed; says whether it is the first.
    pub fn failed(&mut self, began: Instant, cost: Duration) -> bool {
        let every = self.every.unwrap_or_default();
        let again = every.min(AGAIN_FIRST) * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.due = began + again.min(every.max(AGAIN_MAX)).max(cost * SPACING);
        self.failures == 1
    }

    /// When the next is due; none: never.
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auto::Keep;

    fn seconds(timer: &Timer, since: Instant) -> u64 {
        timer.due().unwrap().duration_since(since).as_secs()
    }

    #[test]
    fn a_slow_store_makes_them_rarer() {
        let now = ambient::now();
        let mut timer = Timer::new(Some(Policy { every_s: 300, keep: Keep::default() }), now);
        assert_eq!(seconds(&timer, now), 300);
        timer.taken(now, Duration::from_secs(2));
        assert_eq!(seconds(&timer, now), 300);
        timer.taken(now, Duration::from_secs(60));
        assert_eq!(seconds(&timer, now), 600);
        assert_eq!(Timer::new(None, now).due(), None);
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let now = ambient::now();
        let mut timer = Timer::new(Some(Policy { every_s: 300, keep: Keep::default() }), now);
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
