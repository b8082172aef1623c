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
//! # What was measured
//!
//! `cargo run -p export --example export_bench`, unoptimised build, on two cores that other work
//! kept busy: so the ranges over runs, and processor times, which are steadier. Raw is a file with
//! direct I/O, which goes to the disk each time; ours comes from memory or the page cache behind
//! the door. The table says what the door costs, not that it is faster than a disk.
//!
//! | | raw | memory behind the door | written volume | cached base |
//! | --- | --- | --- | --- | --- |
//! | random read 4 KiB, depth 1, IOPS | 11,000-15,000 | 38,000-73,000 | 48,000 | 29,000 |
//! | random read 4 KiB, depth 16, IOPS | 27,000-73,000 | 29,000-111,000 | 86,000 | 51,000 |
//! | processor time of a read, server side | | 5-10 us | 8-9 us | 11-12 us |
//!
//! * **Depth**: with FUSE_ASYNC_DIO a read at depth 16 takes a fifth less processor time, and a
//!   third more writes go through; 16 or 512 requests under way made no clear difference.
//! * **Loop threads**: with one, two, four: 4.8, 5.6, 8.1 us of processor time for a read at depth
//!   16, since the kernel wakes them in turn; 103,000, 111,000, 121,000 IOPS. At depth 1 one was
//!   best, for page faults no order repeated itself. One thread alone would stand still whenever a
//!   "local" read has to go to the disk: so two, and up to four where there are cores.
//! * **Reads through the page cache** of what was read before never come here: 0.7 to 1.0 of raw.
//!   Cold sequential ones are the weak side: 0.3 to 0.6 of raw.
//! * **Two mounts**, one for memory and one for disks: the kernel keeps read-ahead per mount. With
//!   a disk's read-ahead a fault of memory reads 512 KiB (a test shows it); with memory's, small
//!   sequential reads of a disk go page by page. And what is dirty in one does not throttle the
//!   other.
//! * **A page of read-ahead, not none**, for memory: a client that waits for a page was gone at
//!   once after SIGKILL with a page, and not before the page came with none. (The kernel gives up
//!   reading around a mapping that misses much, so an owner that ends a client still calls
//!   [`Export::give_up_reads`].)
//! * **Prefetch** before anyone has the file open is one `store` per run; later it is a request of
//!   the kernel per run, up to 1 MiB (128 KiB for a normal user).
//! * Not tried: FUSE over io_uring (`fuser` has none, and the kernel's switch is off by default).
//!   Passthrough to a backing file does not fit: what is read and written passes an overlay.
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
#[doc(hidden)]
pub mod fuzz;
mod held;
mod mount;
mod options;
mod outside;
mod pool;
mod serve;
mod shared;
mod stale;
mod tree;
mod volume;

use std::io;

pub use error::ExportError;
pub use export::{Export, Stats};
pub use options::{Options, Trouble};
pub use stale::{Stale, cleanup_stale};
pub use tree::{Node, NodeKind, Tree, TreeMount};
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
