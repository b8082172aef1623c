//! A disk in memory that records, crashes and fails; and what a volume needs around it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use chunk::{ChunkSource, Memory};
pub use volume::memory_disk::{Act, Image};
use volume::memory_disk::{Bytes, Gate, MemoryDisk};
use volume::{Cache, Fetcher, Volume, VolumeOptions};

pub const PAGE: usize = 4096;

/// What may go wrong.
#[derive(Default)]
pub struct Faults {
    /// Writes fail with "no space".
    pub full: AtomicBool,
    /// Writes that end beyond this offset fail with "no space"; none: no such limit.
    pub ends_at: OnceLock<u64>,
    /// Syncs fail with an I/O error, and what was not synced is lost as far as the disk goes.
    pub sync_fails: AtomicBool,
    /// Creations fail with "no space".
    pub create_full: AtomicBool,
    recording: AtomicBool,
    log: Mutex<Vec<Act>>,
}

impl Gate for Faults {
    fn pass(&self, act: &Act) -> io::Result<()> {
        if let (Act::Write { offset, bytes, .. }, Some(end)) = (act, self.ends_at.get())
            && offset + bytes.len() as u64 > *end
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (fault, kind) = match act {
            Act::Create { .. } => (&self.create_full, io::ErrorKind::StorageFull),
            Act::Write { .. } => (&self.full, io::ErrorKind::StorageFull),
            Act::Sync { .. } => (&self.sync_fails, io::ErrorKind::Other),
            _ => return Ok(()),
        };
        if fault.load(Ordering::Relaxed) { Err(kind.into()) } else { Ok(()) }
    }

    fn done(&self, act: Act) {
        if self.recording.load(Ordering::Relaxed) {
            self.log.lock().unwrap().push(act);
        }
    }
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct MemDisk {
    pub disk: MemoryDisk<Faults>,
    pub faults: Arc<Faults>,
}

impl MemDisk {
    pub fn new() -> Self {
        Self::with_image(Image::default())
    }

    pub fn recording() -> Self {
        let disk = Self::new();
        disk.record();
        disk
    }

    pub fn with_image(image: Image) -> Self {
        let faults = Arc::new(Faults::default());
        Self { disk: MemoryDisk { bytes: Bytes::of(image), gate: faults.clone() }, faults }
    }

    pub fn image(&self) -> Image {
        self.disk.bytes.image()
    }

    pub fn log(&self) -> Vec<Act> {
        self.faults.log.lock().unwrap().clone()
    }

    /// Records from here on.
    pub fn record(&self) {
        self.faults.recording.store(true, Ordering::Relaxed);
    }

    /// Changes a file's bytes behind the volume's back.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.disk.bytes.change(|image| {
            let inode = image.names[name];
            change(image.files.get_mut(&inode).unwrap());
        });
    }

    pub fn names(&self) -> Vec<String> {
        self.image().names.keys().cloned().collect()
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
        let disk = Arc::new(disk.disk.clone());
        let size = pages * PAGE as u64;
        Volume::create_on(disk, base, size, self.fetcher.clone(), options()).unwrap()
    }

    pub fn open(&self, disk: &MemDisk) -> volume::Result<Volume> {
        Volume::open_on(Arc::new(disk.disk.clone()), self.fetcher.clone(), options())
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
