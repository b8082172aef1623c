//! The kernel's per-mount knobs under `/sys/class/bdi/MAJOR:MINOR/`, for root.
//!
//! A FUSE mount starts with `strict_limit` 1 and `max_ratio` 1: a guest that dirties memory fast
//! would be throttled to 1 % of the host's. A normal user lives with that.

use std::fs;
use std::io;
use std::path::PathBuf;

/// The knobs of one mount.
pub(crate) struct Bdi {
    dir: PathBuf,
}

impl Bdi {
    /// By the device number of the mount.
    pub fn new(device: u64) -> Bdi {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Bdi { dir: PathBuf::from(format!("/sys/class/bdi/{major}:{minor}")) }
    }

    /// Sets how far the kernel reads ahead, for descriptors opened from now on.
    ///
    /// At least one page: with none at all, the kernel asks for a faulting page in a way that not
    /// even SIGKILL interrupts.
    pub fn set_read_ahead(&self, bytes: u32) -> io::Result<()> {
        fs::write(self.dir.join("read_ahead_kb"), (bytes / 1024).max(4).to_string())
    }

    /// Lets the mount have as many dirty pages as any disk.
    pub fn lift_dirty_limits(&self) -> io::Result<()> {
        fs::write(self.dir.join("strict_limit"), "0")?;
        fs::write(self.dir.join("max_ratio"), "100")
    }
}
