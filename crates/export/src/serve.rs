//! The requests of the kernel, checked and answered.
//!
//! Nothing here may wait for the network on a loop thread: see the drawing in the crate's doc.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use crate::held::{HeldWrite, errno};
use crate::options::Trouble;
use crate::shared::{ROOT, Shared, add};
use crate::{PAGE, bounds};

/// Names and attributes never change while the mount lives, so the kernel need never ask again.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Largest read or write request: what the kernel allows by default (fs.fuse.max_pages_limit).
pub(crate) const REQUEST_BYTES_MAX: u32 = 1 << 20;

// linux/falloc.h
const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;

thread_local! {
    /// Where reads are assembled: one buffer a thread, as large as its largest read so far.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives a buffer of `len` bytes, whose content is whatever was there before.
fn with_buffer<T>(len: usize, act: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        act(&mut buffer[..len])
    })
}

/// The file system as `fuser` sees it.
pub(crate) struct Server(pub Arc<Shared>);

impl Server {
    fn read_later(&self, at: (usize, u64, usize), prefetched: bool, reply: ReplyData) {
        let (entry, offset, len) = at;
        let began = ambient::now();
        let Some(id) = self.0.held_reads.hold(reply) else { return };
        add(&self.0.counters.handed_over, 1);
        let shared = Arc::clone(&self.0);
        let job = move || {
            with_buffer(len, |buffer| {
                let result = shared.call(entry, |file| file.read_at(offset, buffer));
                let Some(reply) = shared.held_reads.take(id) else { return };
                match result {
                    Ok(()) => {
                        reply.data(buffer);
                        if !prefetched {
                            shared.faulted(entry, began.elapsed());
                        }
                    }
                    Err(error) => reply.error(shared.read_lost(entry, offset, len, &error)),
                }
            });
        };
        if prefetched { self.0.fetch.run_in_background(job) } else { self.0.fetch.run(job) }
    }
}

/// Answers a write, or holds it when the kernel would drop the page on an error.
fn finish_write(
    shared: &Arc<Shared>,
    write: (usize, u64, &[u8]),
    from_cache: bool,
    result: io::Result<()>,
    reply: ReplyWrite,
) {
    let (entry, offset, bytes) = write;
    match result {
        Ok(()) => reply.written(bytes.len() as u32),
        Err(error) if from_cache => {
            let held = HeldWrite { entry, offset, bytes: bytes.to_vec(), reply };
            if shared.held_writes.hold(held, &Arc::downgrade(shared)) {
                let file = &shared.entries[entry].name;
                shared.tell(&Trouble::WriteHeld { file, error: &error });
            }
        }
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            // Dirty pages stay in the kernel and come as large writes.
            InitFlags::FUSE_WRITEBACK_CACHE,
            // Direct I/O of a deep queue is not done one by one.
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // Only we change the files, so a changed attribute means nothing to the cache.
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        ];
        for flag in wanted {
            // An older kernel without one of them is slower, not wrong.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        // Only a bound on what the mount's own knob says, which root sets afterwards (`bdi`).
        if !rustix::process::geteuid().is_root() {
            let read_ahead = self.0.options.read_ahead_bytes.max(PAGE as u32);
            if let Err(most) = config.set_max_readahead(read_ahead) {
                let _ = config.set_max_readahead(most);
            }
        }
        let background = self.0.options.max_background.max(16);
        let _ = config.set_max_background(background);
        let _ = config.set_congestion_threshold(background / 4 * 3);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.entries.iter().position(|entry| entry.os_name == name);
        match found {
            Some(index) if parent == ROOT => {
                reply.entry(&FOREVER, &self.0.attr(Some(index)), Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.index(ino) {
            None if ino != ROOT => reply.error(Errno::ENOENT),
            index => reply.attr(&FOREVER, &self.0.attr(index)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let index = self.0.index(ino);
        if index.is_none() && ino != ROOT {
            return reply.error(Errno::ENOENT);
        }
        // Times may be set and are forgotten; everything else may only be set to what it is.
        let attr = self.0.attr(index);
        let same = mode.is_none_or(|mode| mode & 0o7777 == u32::from(attr.perm))
            && uid.is_none_or(|uid| uid == attr.uid)
            && gid.is_none_or(|gid| gid == attr.gid)
            && size.is_none_or(|size| size == attr.size);
        if same { reply.attr(&FOREVER, &attr) } else { reply.error(Errno::EPERM) }
    }

    fn open(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let Some(index) = self.0.index(ino) else { return reply.error(Errno::ENOENT) };
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        if self.0.is_outside(req) {
            return reply.opened(FileHandle(0), flags);
        }
        match self.0.entries[index].opened.try_lock() {
            Ok(mut opened) => *opened = true,
            Err(TryLockError::Poisoned(mut opened)) => **opened.get_mut() = true,
            // A store is under way, and may wait for a loop thread: do not wait for it on one.
            Err(TryLockError::WouldBlock) => {
                let shared = Arc::clone(&self.0);
                return self.0.local.run(move || {
                    let opened = shared.entries[index].opened.lock();
                    *opened.unwrap_or_else(PoisonError::into_inner) = true;
                    reply.opened(FileHandle(0), flags);
                });
            }
        }
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(index) = self.0.index(ino) else { return reply.error(Errno::ENOENT) };
        let len = bounds::read_len(offset, size.min(REQUEST_BYTES_MAX), self.0.entries[index].size);
        add(&self.0.counters.reads, 1);
        add(&self.0.counters.read_bytes, len as u64);
        if len == 0 {
            return reply.data(&[]);
        }
        with_buffer(len, |buffer| {
            match self.0.call(index, |file| file.try_read_local(offset, buffer)) {
                Ok(true) => reply.data(buffer),
                Ok(false) => {
                    self.read_later((index, offset, len), self.0.is_outside(req), reply);
                }
                Err(error) => reply.error(self.0.read_lost(index, offset, len, &error)),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(index) = self.0.index(ino) else { return reply.error(Errno::ENOENT) };
        let (size, len) = (self.0.entries[index].size, data.len() as u64);
        if !bounds::inside(offset, len, size) {
            return reply.error(Errno::EFBIG);
        }
        add(&self.0.counters.writes, 1);
        add(&self.0.counters.write_bytes, len);
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        // Part of a page needs the rest of it, which may have to come over the network first.
        let cut = bounds::cut(offset, len, size);
        let local = (cut.head.1 == 0 && cut.tail.1 == 0)
            || self
                .0
                .call(index, |file| {
                    let edge = |(start, len): (u64, u64)| len == 0 || file.is_local(start, len);
                    Ok(edge(cut.head) && edge(cut.tail))
                })
                .unwrap_or(false);
        if local {
            let result = self.0.write(index, offset, data);
            return finish_write(&self.0, (index, offset, data), from_cache, result, reply);
        }
        let (shared, data) = (Arc::clone(&self.0), data.to_vec());
        self.0.fetch.run(move || {
            let result = shared.write(index, offset, &data);
            finish_write(&shared, (index, offset, &data), from_cache, result, reply);
        });
    }

    /// Sent at each `close`, which promises nothing: the kernel need not ask again.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, req: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let Some(index) = self.0.index(ino) else { return reply.error(Errno::ENOENT) };
        if self.0.is_outside(req) && self.0.entries[index].only_write_back.load(Ordering::Acquire) {
            return reply.ok();
        }
        add(&self.0.counters.flushes, 1);
        let shared = Arc::clone(&self.0);
        self.0.local.run(move || match shared.call(index, |file| file.flush()) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(index) = self.0.index(ino) else { return reply.error(Errno::ENOENT) };
        let size = self.0.entries[index].size;
        let punches = match mode & !KEEP_SIZE {
            0 => false,
            PUNCH_HOLE | ZERO_RANGE => true,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let length = if mode & KEEP_SIZE != 0 {
            // What lies beyond the end is not there to be punched or preallocated.
            length.min(size.saturating_sub(offset))
        } else if bounds::inside(offset, length, size) {
            length
        } else {
            return reply.error(Errno::EFBIG);
        };
        if !punches || length == 0 {
            return reply.ok();
        }
        add(&self.0.counters.discards, 1);
        let shared = Arc::clone(&self.0);
        let cut = bounds::cut(offset, length, size);
        let whole = cut.head.1 == 0 && cut.tail.1 == 0;
        let pool = if whole { &self.0.local } else { &self.0.fetch };
        pool.run(move || match shared.zero(index, offset, length) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        });
    }

    /// The kernel would tell us of no page that is dirty in its cache, so we cannot know where
    /// the holes are; without an answer it says that there are none.
    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if ino != ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let dots = [(ROOT, FileType::Directory, "."), (ROOT, FileType::Directory, "..")];
        let files = self.0.entries.iter().enumerate().map(|(index, entry)| {
            (INodeNo(index as u64 + 2), FileType::RegularFile, entry.name.as_str())
        });
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (ino, kind, name)) in dots.into_iter().chain(files).enumerate().skip(skip) {
            if reply.add(ino, at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let pages = self.0.entries.iter().map(|entry| entry.size.div_ceil(PAGE)).sum();
        let files = self.0.entries.len() as u64;
        reply.statfs(pages, 0, 0, files, 0, PAGE as u32, 255, PAGE as u32);
    }

    /// The kernel checks modes itself (default_permissions).
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // With FUSE_NO_OPENDIR_SUPPORT: a directory needs no handle, never ask again.
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        // Else the kernel asks for security.capability before every write.
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }
}
