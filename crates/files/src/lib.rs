//! The files on a computer's disks, read from outside while it does not run.
//!
//! ```text
//!   Disk (any bytes that can be read) ──► partitions ──► file system ──► list, read, copy out
//! ```
//! It knows neither volumes nor checkpoints nor mounts: whoever has a disk's bytes implements
//! [`Disk`].
//!
//! # Invariants
//!
//! * **Nothing is written**, not even a journal: what the guest's file system has in its journal is
//!   read as if it had been replayed.
//! * **The disk is a stranger's.** A guest may have written anything on it. So it is not given to
//!   the kernel to mount: it is parsed here, by a library in safe Rust, on a thread of its own. What
//!   is read of it is bounded; a loop or nonsense is [`FilesError::Damaged`], and a panic of the
//!   parser ends its thread and is that too.
//! * [`copy_out`] writes below the folder that it is given and follows no link there or in the
//!   guest.
//!
//! ext2, ext3 and ext4 are read (in the older two, a file with a hole of hundreds of blocks is an
//! error: the library does not know it; and a journal without checksums that was in use is refused, as an
//! ext4 has it for some seconds after it was first mounted); of everything else only where it lies ([`Part`]) is told. The
//! library is `ext4-view`. Partition tables are read by our own code: of the libraries that do it,
//! those that were looked at allocate what the table says, or bring a serializer with them.

mod copy;
mod error;
mod part;
mod system;

use std::io;

pub use copy::{Copied, CopyOptions, copy_out};
pub use error::{FilesError, Result};
pub use part::{Part, parts};
pub use system::{Entry, FileKind, FileStat, FileSystem};

/// The bytes of a disk.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn size_bytes(&self) -> u64;

    /// Fills all of `buf` from `offset`; an error when the disk ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl Disk for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }
}

impl Disk for std::fs::File {
    fn size_bytes(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
    }
}
