//! How a mount is set up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Something the owner of the export should tell its user, or pause the guest for.
#[derive(Debug)]
pub enum Trouble<'a> {
    /// A dirty page could not be stored; it is kept and tried again.
    WriteHeld { file: &'a str, error: &'a io::Error },
    /// All held writes of all files went through.
    WritesResumed,
    /// A read failed for good: the client got `EIO`.
    ReadLost { file: &'a str, offset: u64, len: u64, error: &'a io::Error },
}

type OnTrouble = Arc<dyn Fn(&Trouble<'_>) + Send + Sync>;
/// Told of which file, and how long it took.
type OnFault = Arc<dyn Fn(&str, Duration) + Send + Sync>;

/// Start from [`Options::ram`] or [`Options::disk`]: they differ in read-ahead, which the kernel
/// keeps per mount, so memory and disks belong on mounts of their own.
#[derive(Clone)]
pub struct Options {
    /// Owner of the files (uid, gid), mode 0600; by default this process.
    pub owner: Option<(u32, u32)>,
    /// Let other users than the mounting one in (mode and owner still hold). By default only when
    /// mounted by root; a normal user needs `user_allow_other` in `/etc/fuse.conf` for it.
    pub allow_other: Option<bool>,
    /// Threads that read requests, 1 to 64.
    pub loop_threads: usize,
    /// Threads that wait for reads which are not local, started when needed, 1 to 1024.
    pub fetch_threads_max: usize,
    /// How far the kernel reads ahead, in bytes; one page means page-granular faults.
    pub read_ahead_bytes: u32,
    /// Requests the kernel may have under way at once for read-ahead, write-back and async I/O.
    pub max_background: u16,
    /// Told about held writes and lost reads. Called on serving threads: must not block or touch
    /// the mount.
    pub on_trouble: Option<OnTrouble>,
    /// Told of each read by a client that was not local and has its bytes now. Called on serving threads,
    /// as above.
    pub on_fault: Option<OnFault>,
}

impl Options {
    /// Memory: each fault fetches its own page, since neighbours in memory are rarely related.
    pub fn ram() -> Options {
        Options { read_ahead_bytes: 4096, ..Options::disk() }
    }

    /// Disks: sequential reads are worth reading ahead.
    pub fn disk() -> Options {
        Options {
            owner: None,
            allow_other: None,
            // More cost wake-ups on other cores: measured, see the crate's doc.
            loop_threads: std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 4),
            fetch_threads_max: 32,
            read_ahead_bytes: 512 * 1024,
            max_background: 512,
            on_trouble: None,
            on_fault: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("owner", &self.owner)
            .field("allow_other", &self.allow_other)
            .field("loop_threads", &self.loop_threads)
            .field("fetch_threads_max", &self.fetch_threads_max)
            .field("read_ahead_bytes", &self.read_ahead_bytes)
            .field("max_background", &self.max_background)
            .finish_non_exhaustive()
    }
}
