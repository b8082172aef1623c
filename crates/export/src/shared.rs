//! What the loop threads, the pools and the owner of an export share.

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo, Request};

use crate::held::{HeldReads, HeldWrites, errno};
use crate::options::{Options, Trouble};
use crate::pool::Pool;
use crate::{ExportFile, PAGE, bounds};

/// The directory; the files follow.
pub(crate) const ROOT: INodeNo = INodeNo(1);

/// Zeros for the parts of a punched range that are not whole pages.
static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// One file of the mount.
pub(crate) struct Entry {
    pub name: String,
    pub os_name: OsString,
    pub size: u64,
    /// Gone once the export is closed: later requests, of clients that linger, get `EIO`.
    file: RwLock<Option<Arc<dyn ExportFile>>>,
    /// Whether somebody else than this process has opened it: the end of [`crate::Export::store`].
    pub opened: Mutex<bool>,
    /// The outside thread's own `fsync` under way wants pages written back, not made durable.
    pub only_write_back: Arc<AtomicBool>,
}

impl Entry {
    pub fn new(name: String, file: Arc<dyn ExportFile>) -> Entry {
        Entry {
            os_name: OsString::from(&name),
            size: file.size_bytes(),
            file: RwLock::new(Some(file)),
            opened: Mutex::new(false),
            only_write_back: Arc::default(),
            name,
        }
    }

    fn file(&self) -> io::Result<Arc<dyn ExportFile>> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.clone().ok_or_else(|| io::Error::other("the export is closed"))
    }

    pub fn close(&self) {
        self.file.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub reads: AtomicU64,
    pub read_bytes: AtomicU64,
    pub handed_over: AtomicU64,
    pub writes: AtomicU64,
    pub write_bytes: AtomicU64,
    pub flushes: AtomicU64,
    pub discards: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the loop threads, the pools and the [`crate::Export`] share.
pub(crate) struct Shared {
    pub entries: Vec<Entry>,
    pub options: Options,
    owner: (u32, u32),
    pub outside_tid: AtomicU32,
    pub held_reads: HeldReads,
    pub held_writes: HeldWrites,
    pub fetch: Pool,
    pub local: Pool,
    pub counters: Counters,
}

impl Shared {
    pub fn new(entries: Vec<Entry>, options: Options, owner: (u32, u32)) -> Shared {
        Shared {
            fetch: Pool::new("export-fetch", options.fetch_threads_max.clamp(1, 1024)),
            local: Pool::new("export-local", 4),
            entries,
            options,
            owner,
            outside_tid: AtomicU32::new(0),
            held_reads: HeldReads::default(),
            held_writes: HeldWrites::new(),
            counters: Counters::default(),
        }
    }

    /// Nothing that is asked from now on reaches a file.
    pub fn close(&self) {
        self.held_reads.give_up();
        self.held_writes.give_up();
        self.entries.iter().for_each(Entry::close);
        self.fetch.close();
        self.local.close();
    }

    pub fn tell(&self, trouble: &Trouble<'_>) {
        if let Some(on_trouble) = &self.options.on_trouble {
            let _ = catch_unwind(AssertUnwindSafe(|| on_trouble(trouble)));
        }
    }

    /// A client had to wait for a read.
    pub fn faulted(&self, entry: usize, took: Duration) {
        if let Some(on_fault) = &self.options.on_fault {
            let file = &self.entries[entry].name;
            let _ = catch_unwind(AssertUnwindSafe(|| on_fault(file, took)));
        }
    }

    pub fn writes_resumed(&self) {
        self.tell(&Trouble::WritesResumed);
    }

    /// Whether this process itself asks.
    pub fn is_outside(&self, req: &Request) -> bool {
        req.pid() == self.outside_tid.load(Ordering::Relaxed)
    }

    pub fn index(&self, ino: INodeNo) -> Option<usize> {
        let index = usize::try_from(ino.0.checked_sub(2)?).ok()?;
        (index < self.entries.len()).then_some(index)
    }

    pub fn attr(&self, index: Option<usize>) -> FileAttr {
        let size = index.map_or(0, |index| self.entries[index].size);
        let time = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: index.map_or(ROOT, |index| INodeNo(index as u64 + 2)),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if index.is_some() { FileType::RegularFile } else { FileType::Directory },
            // The directory lets everyone look and nobody in who may not open the files anyway.
            perm: if index.is_some() { 0o600 } else { 0o555 },
            nlink: if index.is_some() { 1 } else { 2 },
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        }
    }

    /// Calls into a file; a panic there is an error of this request and of nothing else.
    pub fn call<T>(
        &self,
        entry: usize,
        act: impl FnOnce(&dyn ExportFile) -> io::Result<T>,
    ) -> io::Result<T> {
        let file = self.entries[entry].file()?;
        catch_unwind(AssertUnwindSafe(|| act(&*file)))
            .unwrap_or_else(|_| Err(io::Error::other("a panic while serving the request")))
    }

    pub fn write(&self, entry: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(entry, |file| file.write_at(offset, bytes))
    }

    /// Zeros a range: whole pages by discarding them, the rest by writing.
    pub fn zero(&self, entry: usize, offset: u64, len: u64) -> io::Result<()> {
        let cut = bounds::cut(offset, len, self.entries[entry].size);
        self.call(entry, |file| {
            for (start, len) in [cut.head, cut.tail] {
                if len > 0 {
                    file.write_at(start, &ZEROS[..len as usize])?;
                }
            }
            if cut.pages.1 > 0 {
                file.discard(cut.pages.0, cut.pages.1)?;
            }
            Ok(())
        })
    }

    pub fn read_lost(&self, entry: usize, offset: u64, len: usize, error: &io::Error) -> Errno {
        let file = &self.entries[entry].name;
        self.tell(&Trouble::ReadLost { file, offset, len: len as u64, error });
        errno(error)
    }
}
