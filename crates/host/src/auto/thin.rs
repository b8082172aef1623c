//! Which automatic checkpoints stay: a function of their times in the order in which they were taken.
//!
//! *Invariants.* The newest `last` ones stay whatever their times say. No clock is asked, and age
//! alone drops nothing: a clock that jumps in either direction makes an hour or a day look like
//! another one, and no more.

use std::collections::BTreeSet;

use super::Keep;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The first day of 1970 was a Thursday; weeks begin on Mondays.
const MONDAY_MS: u64 = 3 * DAY_MS;

/// The hour, day or week in which a time lies.
type Bucket = fn(u64) -> u64;

/// For each of `times` (milliseconds since the Unix epoch, the oldest checkpoint first), whether it
/// stays.
pub fn thin(times: &[u64], keep: &Keep) -> Vec<bool> {
    let mut stays = vec![false; times.len()];
    for stay in stays.iter_mut().rev().take(keep.last as usize) {
        *stay = true;
    }
    let rules: [(u32, Bucket); 3] = [
        (keep.hourly, |ms| ms / HOUR_MS),
        (keep.daily, |ms| ms / DAY_MS),
        (keep.weekly, |ms| ms.saturating_add(MONDAY_MS) / (7 * DAY_MS)),
    ];
    for (count, bucket) in rules {
        let mut seen = BTreeSet::new();
        for (stay, time) in stays.iter_mut().zip(times).rev() {
            if seen.len() == count as usize {
                break;
            }
            *stay |= seen.insert(bucket(*time));
        }
    }
    stays
}
