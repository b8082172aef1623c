//! Closes what a parent let slip through.
//!
//! The only unsafe code of this crate. A descriptor that somebody else left open has no owner
//! in Rust's sense, and the standard library offers no safe way to close a bare number. It is
//! sound because the entry point runs first in a fresh process: nothing in it owns a descriptor
//! above 2 yet, so nothing can be closed under anyone's feet.
#![allow(unsafe_code)]

use std::fs;
use std::io;

/// Closes every descriptor from 3 up: for the entry of a process that outlives whoever started it, or
/// is not to be trusted. Call before anything is opened.
pub fn close_inherited() -> io::Result<()> {
    // Collected first: the directory's own descriptor is among them, and closed by its owner.
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        if let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            open.push(fd);
        }
    }
    for fd in open.into_iter().filter(|&fd| fd > 2) {
        // The directory's own number is closed already and free: only what is still open counts.
        if fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok() {
            // SAFETY: see above: no value in this process owns `fd`.
            unsafe { rustix::io::close(fd) };
        }
    }
    Ok(())
}
