//! What the tests of real mounts share: a file in memory with hooks, and a mapping.
#![allow(dead_code, unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use export::{Export, ExportFile, Options};
use rustix::mm::{MapFlags, ProtFlags};
use tempfile::TempDir;

pub const PAGE: usize = 4096;

/// What reached the file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Read(u64, u64),
    Write(u64, u64),
    FlushStart,
    FlushEnd,
    Discard(u64, u64),
}

/// A gate that threads wait at until it is opened.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    wake: Condvar,
    pub waiting: AtomicU64,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.wake.notify_all();
    }

    pub fn shut(&self) {
        *self.open.lock().unwrap() = false;
    }

    pub fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.wake.wait(open).unwrap();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A file in memory.
#[derive(Default)]
pub struct MemFile {
    pub bytes: RwLock<Vec<u8>>,
    pub events: Mutex<Vec<Event>>,
    /// Reads at or beyond this offset are not local and wait at the gate.
    pub remote_from: AtomicU64,
    pub gate: Gate,
    pub full: AtomicBool,
    pub flush_fails: AtomicBool,
    pub read_fails: AtomicBool,
    pub flush_gate: Option<Gate>,
}

impl MemFile {
    pub fn new(size: usize) -> MemFile {
        MemFile {
            bytes: RwLock::new(vec![0; size]),
            remote_from: AtomicU64::new(u64::MAX),
            ..MemFile::default()
        }
    }

    pub fn patterned(size: usize) -> MemFile {
        let file = MemFile::new(size);
        *file.bytes.write().unwrap() = pattern(size);
        file
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub fn clear_events(&self) {
        self.events.lock().unwrap().clear();
    }

    fn log(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// Bytes that differ from page to page.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / PAGE * 7 + at % 251) as u8).collect()
}

impl ExportFile for MemFile {
    fn size_bytes(&self) -> u64 {
        self.bytes.read().unwrap().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.log(Event::Read(offset, buf.len() as u64));
        if self.read_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("lost"));
        }
        if !self.is_local(offset, buf.len() as u64) {
            self.gate.pass();
        }
        let offset = offset as usize;
        buf.copy_from_slice(&self.bytes.read().unwrap()[offset..offset + buf.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let at = offset as usize;
        self.bytes.write().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        self.log(Event::Write(offset, bytes.len() as u64));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.log(Event::FlushStart);
        if let Some(gate) = &self.flush_gate {
            gate.pass();
        }
        if self.flush_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("cannot flush"));
        }
        self.log(Event::FlushEnd);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.bytes.write().unwrap()[offset as usize..(offset + len) as usize].fill(0);
        self.log(Event::Discard(offset, len));
        Ok(())
    }

    fn is_local(&self, offset: u64, len: u64) -> bool {
        offset + len <= self.remote_from.load(Ordering::SeqCst)
    }
}

/// A mount in a directory of its own; both go away with it. The order of the fields matters.
pub struct Mounted {
    pub export: Export,
    pub file: Arc<MemFile>,
    pub dir: TempDir,
}

impl Mounted {
    pub fn new(file: MemFile) -> Mounted {
        Mounted::with(file, Options::disk())
    }

    pub fn with(file: MemFile, options: Options) -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(file);
        let files = vec![("disk0".to_owned(), Arc::clone(&file) as Arc<dyn ExportFile>)];
        let export = Export::mount(dir.path(), files, options).unwrap();
        Mounted { export, file, dir }
    }

    pub fn open(&self) -> File {
        let path = self.export.path("disk0").unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }
}

/// A shared, writable mapping of a whole file.
pub struct Mapping {
    at: *mut std::ffi::c_void,
    len: usize,
}

impl Mapping {
    pub fn new(file: &File, len: usize) -> Mapping {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choosing; unmapped in drop.
        let at = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0).unwrap()
        };
        Mapping { at, len }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as self, and tests touch the range from one thread.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by new and is not used again.
        let _ = unsafe { rustix::mm::munmap(self.at, self.len) };
    }
}

// SAFETY: a mapping is plain memory; tests hand it from one thread to another.
unsafe impl Send for Mapping {}

/// Whether something is mounted on exactly this path.
pub fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// A small generator, so that a failure can be repeated from its seed.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
