//! Dates in metadata.

use jiff::Timestamp;

/// This instant, to the second: metadata has no fractions.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(i64::try_from(ambient::unix_ms() / 1000).unwrap_or(i64::MAX))
        .unwrap_or(Timestamp::MAX)
}

/// This instant, to the millisecond: what a host remembers of its clock.
pub(crate) fn instant() -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(ambient::unix_ms()).unwrap_or(i64::MAX))
        .unwrap_or(Timestamp::MAX)
}

/// So many days from now.
pub(crate) fn in_days(days: u32) -> Timestamp {
    let seconds = i64::from(days) * 86_400;
    now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms(timestamp: Timestamp) -> u64 {
    u64::try_from(timestamp.as_millisecond()).unwrap_or(0)
}
