//! The kernel's per-mount knobs under `/sys/class/bdi/MAJOR:MINOR/`, for root.
//!
//! A FUSE mount starts with `strict_limit` 1 and `max_ratio` 1: a guest that dirties memory fast
//! would be throttled to 1 % of the host's. A normal user lives with that.

use std::fs;
use std::io;

/// Sets read-ahead and lifts the dirty limits. Best effort: says what could not be set.
pub(crate) fn tune(device: u64, read_ahead_bytes: u32) -> io::Result<()> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let set = |name: &str, value: &str| {
        fs::write(format!("/sys/class/bdi/{major}:{minor}/{name}"), value)
    };
    // At least one page. With none at all, the kernel reads a faulting page with a request that
    // even SIGKILL does not interrupt; a page of read-ahead is as precise and can be killed.
    let results = [
        set("read_ahead_kb", &(read_ahead_bytes / 1024).max(4).to_string()),
        set("strict_limit", "0"),
        set("max_ratio", "100"),
    ];
    results.into_iter().collect()
}
