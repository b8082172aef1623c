//! A file table of one's own for a thread. The one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io;

/// Gives the calling thread a file table that holds only standard input, output and error.
///
/// Must be the first act of a thread that owns no descriptor and is given none: whatever number
/// it knew from before means another file, or none, afterwards.
pub(crate) fn leave_shared_table() -> io::Result<()> {
    // SAFETY: plain integers go in. The descriptors closed are copies that belong to this thread's
    // new table alone (CLOSE_RANGE_UNSHARE copies the table before closing), and the contract
    // above says that nothing in this thread owns or borrows one of them.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
