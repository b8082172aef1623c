//! A disk in memory that records, crashes and fails; and what a volume needs around it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chunk::{ChunkSource, Memory};
use volume::{Cache, Disk, DiskFile, Fetcher, Volume, VolumeOptions};

pub const PAGE: usize = 4096;

/// One thing that was done to the disk.
#[derive(Debug, Clone)]
pub enum Op {
    Create { name: String, inode: u64 },
    Rename { name: String, new_name: String },
    Remove { name: String },
    Write { inode: u64, offset: u64, bytes: Vec<u8> },
    SetLen { inode: u64, len: u64 },
    Punch { inode: u64, offset: u64, len: u64 },
    Sync { inode: u64 },
    SyncDir,
}

/// Names and files.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub names: BTreeMap<String, u64>,
    pub files: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { name, inode } => {
                self.names.insert(name.clone(), *inode);
                self.files.entry(*inode).or_default();
            }
            Op::Rename { name, new_name } => {
                if let Some(inode) = self.names.remove(name) {
                    self.names.insert(new_name.clone(), inode);
                }
            }
            Op::Remove { name } => {
                self.names.remove(name);
            }
            Op::Write { inode, offset, bytes } => {
                let file = self.files.entry(*inode).or_default();
                let end = *offset as usize + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset as usize..end].copy_from_slice(bytes);
            }
            Op::SetLen { inode, len } => {
                self.files.entry(*inode).or_default().resize(*len as usize, 0);
            }
            Op::Punch { inode, offset, len } => {
                let file = self.files.entry(*inode).or_default();
                let end = ((offset + len) as usize).min(file.len());
                let start = (*offset as usize).min(end);
                file[start..end].fill(0);
            }
            Op::Sync { .. } | Op::SyncDir => {}
        }
    }
}

/// What may go wrong, and how many more acts until it does.
#[derive(Debug, Default)]
pub struct Faults {
    /// Writes fail with "no space".
    pub full: AtomicBool,
    /// Syncs fail with an I/O error, and what was not synced is lost as far as the disk goes.
    pub sync_fails: AtomicBool,
    /// Creations fail with "no space".
    pub create_full: AtomicBool,
}

#[derive(Default)]
struct Inner {
    image: Image,
    log: Vec<Op>,
    inodes: u64,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk {
    inner: Arc<Mutex<Inner>>,
    pub faults: Arc<Faults>,
    recording: Arc<AtomicBool>,
    pub writes: Arc<AtomicU64>,
}

impl MemDisk {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn recording() -> Self {
        let disk = Self::new();
        disk.recording.store(true, Ordering::Relaxed);
        disk
    }

    pub fn with_image(image: Image) -> Self {
        let disk = Self::new();
        disk.lock().inodes = image.files.keys().max().map_or(0, |n| n + 1);
        disk.lock().image = image;
        disk
    }

    pub fn image(&self) -> Image {
        self.lock().image.clone()
    }

    pub fn log(&self) -> Vec<Op> {
        self.lock().log.clone()
    }

    /// Records from here on.
    pub fn record(&self) {
        self.recording.store(true, Ordering::Relaxed);
    }

    /// Changes a file's bytes behind the volume's back.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let inode = inner.image.names[name];
        change(inner.image.files.get_mut(&inode).unwrap());
    }

    pub fn names(&self) -> Vec<String> {
        self.lock().image.names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn act(&self, op: Op) {
        let recording = self.recording.load(Ordering::Relaxed);
        let mut inner = self.lock();
        inner.image.apply(&op);
        if recording {
            inner.log.push(op);
        }
    }
}

struct MemFile {
    disk: MemDisk,
    inode: u64,
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Disk for MemDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if self.faults.create_full.load(Ordering::Relaxed) {
            return Err(full());
        }
        let inode = {
            let mut inner = self.lock();
            inner.inodes += 1;
            inner.inodes
        };
        self.act(Op::Create { name: name.to_owned(), inode });
        Ok(Arc::new(MemFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.lock().image.names.get(name).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemFile { disk: self.clone(), inode }))
    }

    fn rename(&self, name: &str, new_name: &str) -> io::Result<()> {
        self.act(Op::Rename { name: name.to_owned(), new_name: new_name.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.act(Op::Remove { name: name.to_owned() });
        Ok(())
    }

    fn give(&self, name: &str, path: &Path) -> io::Result<()> {
        let inode = self.lock().image.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        std::fs::write(path, &self.lock().image.files[&inode])?;
        self.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.act(Op::SyncDir);
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.lock();
        let file = &inner.image.files[&self.inode];
        let offset = offset as usize;
        let bytes = file.get(offset..offset + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.disk.faults.full.load(Ordering::Relaxed) {
            return Err(full());
        }
        self.disk.writes.fetch_add(1, Ordering::Relaxed);
        self.disk.act(Op::Write { inode: self.inode, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.faults.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected"));
        }
        self.disk.act(Op::Sync { inode: self.inode });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().image.files[&self.inode].len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.act(Op::SetLen { inode: self.inode, len });
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.act(Op::Punch { inode: self.inode, offset, len });
        Ok(())
    }
}

/// A host: a cache in a directory that goes when it is dropped, and a fetcher over `source`.
pub struct Host {
    pub fetcher: Arc<Fetcher>,
    pub dir: tempfile::TempDir,
}

impl Host {
    pub fn new(source: Arc<dyn ChunkSource>) -> Self {
        Self::with_cache(source, 64 << 20)
    }

    pub fn with_cache(source: Arc<dyn ChunkSource>, bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(dir.path(), bytes_max).unwrap());
        let fetcher = Arc::new(Fetcher::new(cache, source, 3));
        Self { fetcher, dir }
    }

    pub fn create(&self, disk: &MemDisk, base: Option<model::ManifestId>, pages: u64) -> Volume {
        let disk = Arc::new(disk.clone());
        let size = pages * PAGE as u64;
        Volume::create_on(disk, base, size, self.fetcher.clone(), options()).unwrap()
    }

    pub fn open(&self, disk: &MemDisk) -> volume::Result<Volume> {
        Volume::open_on(Arc::new(disk.clone()), self.fetcher.clone(), options())
    }
}

/// A host whose repository has nothing.
pub fn offline() -> Host {
    Host::new(Arc::new(Memory::new()))
}

pub fn options() -> VolumeOptions {
    VolumeOptions::named("t/disk")
}

/// Freezes, seals into `store` and adopts.
pub fn seal(volume: &Volume, store: &Arc<Memory>) -> volume::Sealed {
    volume.freeze().unwrap();
    let sealed = volume.seal(&mut store.clone()).unwrap();
    volume.adopt(&sealed).unwrap();
    sealed
}

/// A page that says which it is; never zero.
pub fn page(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..PAGE)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8 | 1
        })
        .collect()
}

pub fn read(volume: &Volume, offset: u64, len: usize) -> volume::Result<Vec<u8>> {
    let mut bytes = vec![0xa5; len];
    volume.read_at(offset, &mut bytes).map(|()| bytes)
}
