//! Files over FUSE: the door through which a stock QEMU maps memory and opens disks.
//!
//! One [`Export`] is one mount: a flat directory of files of fixed size, each backed by an
//! [`ExportFile`]. This crate does not know what an appliance, an instance or a manifest is.
//!
//! ```text
//!   QEMU ── page fault, read, write ──► kernel page cache ──► /dev/fuse
//!                                                                 │
//!        loop threads (one fd each) ◄─────────────────────────────┘
//!          │ local? answered here
//!          ├── not local ─► fetch pool: the reply is *held* until the bytes are there
//!          ├── fsync, punch ─► local pool: slow disks do not stop faults
//!          └── a write-back that failed ─► held and tried again
//!        outside thread: opens, syncs, prefetches and unmounts the mount from this process
//! ```
//!
//! # Invariants
//!
//! * **Never a garbage page.** A read is answered with the file's bytes or not at all: until
//!   [`ExportFile::read_at`] returns, the reply is held. An error becomes `EIO`, so the file
//!   returns one only when the page is lost for good or the export is being closed.
//! * **A page that was accepted is never dropped.** When the kernel writes a dirty page back and
//!   the file refuses it (disk full), an error would make the kernel forget the page and read the
//!   old one later. So the write is held and tried again ([`Trouble`] tells the owner); only
//!   direct I/O, whose caller still has the bytes, gets the error.
//! * `fsync` returns only after [`ExportFile::flush`] returned.
//! * [`Export::store`] never overwrites what a client may have written: FUSE_NOTIFY_STORE replaces
//!   even dirty pages, so it is allowed only until somebody else has opened the file.
//! * **No thread that shares this process's file table touches the mount.** See `outside`.
//! * Nothing here logs, or blocks on the network, on a loop thread.
//!
//! # Crash
//!
//! A killed process takes its `/dev/fuse` descriptors with it; the kernel then aborts the
//! connection and every client gets an error, none hangs. The dead mount stays in the mount table
//! until [`cleanup_stale`] removes it. Dirty pages in the kernel's cache that were not synced are
//! lost with it: what must survive goes through [`Export::sync`] or the client's own `fsync`.

mod bdi;
mod bounds;
mod error;
mod export;
mod fdtable;
mod held;
mod mount;
mod options;
mod outside;
mod pool;
mod serve;
mod stale;
mod volume;

use std::io;

pub use error::ExportError;
pub use export::{Export, Stats};
pub use options::{Options, Trouble};
pub use stale::{Stale, cleanup_stale};
pub use volume::VolumeFile;

/// Bytes in a page: reads and writes by the kernel are whole pages except at the end of a file.
pub(crate) const PAGE: u64 = 4096;

/// One file of an export. Any method may be called by several threads at once.
pub trait ExportFile: Send + Sync {
    /// Size in bytes; asked once, when the file is mounted.
    fn size_bytes(&self) -> u64;

    /// Fills all of `buf` from `offset`; never called past the end.
    ///
    /// May block for as long as it takes to get the bytes. An error means that they are lost or
    /// that the caller is being shut down: the client gets `EIO`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`. Not durable until [`flush`](Self::flush).
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written before this call durable.
    fn flush(&self) -> io::Result<()>;

    /// Makes a range read as zeros. Page-aligned, except that it may end at the end of the file.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Whether [`read_at`](Self::read_at) of this range needs no network. A hint: it may be wrong,
    /// at the price of a loop thread that waits.
    fn is_local(&self, offset: u64, len: u64) -> bool;

    /// [`read_at`](Self::read_at) when that needs no network, else `Ok(false)` and `buf` is
    /// unspecified. Worth overriding where looking and reading are one step.
    fn try_read_local(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        if !self.is_local(offset, buf.len() as u64) {
            return Ok(false);
        }
        self.read_at(offset, buf).map(|()| true)
    }
}
