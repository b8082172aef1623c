//! The last number of a row of objects in a store that cannot list, by asking for one after the other.
//!
//! *Bounds.* What is said to be there is read now and then, so that a server which has an answer to
//! everything is found out; and a row ends for us after a million.

use crate::RepositoryError;

/// So many are believed before one is read.
const BELIEVED: u64 = 256;
/// The longest row that is followed.
const ROW_MAX: u64 = 1 << 20;

/// The last number that is there from `last` on, which is.
pub(crate) fn last_in_row(
    mut last: u64,
    is_there: impl Fn(u64) -> Result<bool, RepositoryError>,
    read: impl Fn(u64) -> Result<(), RepositoryError>,
) -> Result<u64, RepositoryError> {
    let first = last;
    while last - first < ROW_MAX && last < u64::MAX && is_there(last + 1)? {
        last += 1;
        if (last - first).is_multiple_of(BELIEVED) {
            read(last)?;
        }
    }
    Ok(last)
}
