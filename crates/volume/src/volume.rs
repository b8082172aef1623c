//! The volume: an immutable base under what this instance wrote. Memory or disk, it does not know.
//!
//! ```text
//!            write_at, discard            freeze             seal + adopt
//! (nothing) ------------------> active ----------> frozen ------------------> base
//!                                         active': empty                  (a new manifest)
//! ```
//! Reading goes through the layers from the newest to the base, whose pages come from the host's
//! cache or, when nobody on this host had them yet, from the repository.
//!
//! Invariants
//! * A read gives what was last written, or what the base says, or an error that names volume and
//!   page. Never anything else: every byte that comes from a file or from afar is checked.
//! * Freezing does no I/O: the next overlay was made, and made durable, ahead of time.
//! * The base changes only by [`Volume::adopt`], after the caller said that the new one is
//!   durable. Until then nothing that was written is given up.
//! * No lock is held while the network is waited for, so one missing page stops nobody else.
//!
//! Crash: the state file says which overlays lie on which base. What was flushed is there. What was
//! frozen and not adopted is merged by the next seal. Files that the state does not name are
//! removed when the volume is opened.
//!
//! Errors: a page that cannot be had now is an error of that read alone; [`Volume::read_at_until`]
//! waits until it can be had or the volume is cancelled.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use chunk::ChunkSource;
use manifest::{Manifest, NodeCache};
use model::{ManifestId, PAGE_BYTES};

use crate::disk::{Disk, Folder, Keeps};
use crate::error::{Result, VolumeError};
use crate::fetch::{Cancel, Fetcher};
use crate::keeper::Keeper;
use crate::layers::Layers;
use crate::local::CacheOnly;
use crate::lock::{exclusive, shared};
use crate::overlay::Patched;
use crate::readahead::Readahead;
use crate::recorder::Recorder;
use crate::stall::StallObserver;
use crate::stats::Counters;

pub(crate) const PAGE: u64 = PAGE_BYTES as u64;
/// Decoded nodes kept for reading: 4 KiB each, enough for 2 GiB of pages.
const NODES_MAX: usize = 4096;
/// Decoded nodes kept to answer whether something is local.
const LOCAL_NODES_MAX: usize = 1024;

/// How a volume behaves; nothing of this is kept on disk.
#[derive(Clone)]
pub struct VolumeOptions {
    /// The name that errors use, for example `t1/ram`.
    pub name: String,
    /// How much is fetched ahead of a sequential reader, bytes; 0 for memory.
    pub readahead_bytes: u64,
    /// Who is told when a read has to wait for the repository.
    pub observer: Option<Arc<dyn StallObserver>>,
}

impl VolumeOptions {
    /// No read-ahead, no observer.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), readahead_bytes: 0, observer: None }
    }
}

/// A volume, open. All methods may be called from many threads; writers of the same page are
/// ordered, readers see each page as some writer left it.
pub struct Volume {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) nodes: Arc<NodeCache>,
    /// Like `nodes`, but knows only what the host's cache has.
    pub(crate) local_nodes: NodeCache,
    /// Shared while something is written into the active overlay; exclusive to replace the layers.
    pub(crate) layers: RwLock<Arc<Layers>>,
    pub(crate) keeper: Keeper,
    pub(crate) sealing: Mutex<()>,
    pub(crate) cancel: Cancel,
    pub(crate) observer: Option<Arc<dyn StallObserver>>,
    pub(crate) readahead: Readahead,
    /// Who wants to know what is touched, and under which number.
    pub(crate) recorder: OnceLock<(Arc<Recorder>, u8)>,
    pub(crate) counters: Arc<Counters>,
}

impl Volume {
    /// Makes a volume in the directory `dir`, on `base` or empty. The directory is this volume's
    /// alone and must not have one yet. Durable when this returns.
    pub fn create(
        dir: &Path,
        base: Option<ManifestId>,
        size_bytes: u64,
        fetcher: Arc<Fetcher>,
        options: VolumeOptions,
    ) -> Result<Self> {
        let disk = open_folder(dir, &options.name, Keeps::Always)?;
        Self::create_on(disk, base, size_bytes, fetcher, options)
    }

    /// [`Volume::create`] on any disk.
    pub fn create_on(
        disk: Arc<dyn Disk>,
        base: Option<ManifestId>,
        size_bytes: u64,
        fetcher: Arc<Fetcher>,
        options: VolumeOptions,
    ) -> Result<Self> {
        let bad_size = |detail: &str| VolumeError::BadSize {
            volume: options.name.clone(),
            size_bytes,
            detail: detail.to_owned(),
        };
        if size_bytes == 0 || !size_bytes.is_multiple_of(PAGE) {
            return Err(bad_size("it must be a positive number of 4096-byte pages"));
        }
        let manifest = open_base(base, size_bytes, &fetcher, &options.name)?;
        if manifest.size_bytes() > size_bytes {
            return Err(bad_size("its base is larger"));
        }
        let (keeper, overlays) = Keeper::create(disk, &options.name, base, size_bytes)?;
        Ok(Self::new(keeper, overlays, manifest, size_bytes, fetcher, options))
    }

    /// Opens the volume in the directory `dir` as it was last flushed. [`VolumeError::NotFound`] when
    /// there is none, or when its making was cut short, so that nothing was ever written to it.
    pub fn open(dir: &Path, fetcher: Arc<Fetcher>, options: VolumeOptions) -> Result<Self> {
        if !dir.exists() {
            return Err(VolumeError::NotFound { dir: dir.display().to_string() });
        }
        Self::open_on(open_folder(dir, &options.name, Keeps::Always)?, fetcher, options)
    }

    /// [`Volume::open`] on any disk.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        fetcher: Arc<Fetcher>,
        options: VolumeOptions,
    ) -> Result<Self> {
        let (keeper, overlays, state) = Keeper::open(disk, &options.name)?;
        let manifest = open_base(state.base, state.size_bytes, &fetcher, &options.name)?;
        Ok(Self::new(keeper, overlays, manifest, state.size_bytes, fetcher, options))
    }

    fn new(
        keeper: Keeper,
        overlays: crate::keeper::Overlays,
        base: Manifest,
        size_bytes: u64,
        fetcher: Arc<Fetcher>,
        options: VolumeOptions,
    ) -> Self {
        let layers =
            Layers { active: overlays.active, frozen: overlays.frozen, base: Arc::new(base) };
        let source: Arc<dyn ChunkSource> = fetcher.clone();
        let local: Arc<dyn ChunkSource> = Arc::new(CacheOnly(fetcher.cache().clone()));
        Self {
            name: options.name,
            size_bytes,
            nodes: Arc::new(NodeCache::new(source, NODES_MAX)),
            local_nodes: NodeCache::new(local, LOCAL_NODES_MAX),
            fetcher,
            layers: RwLock::new(Arc::new(layers)),
            keeper,
            sealing: Mutex::new(()),
            cancel: Cancel::default(),
            observer: options.observer,
            readahead: Readahead::new(options.readahead_bytes),
            recorder: OnceLock::new(),
            counters: Arc::default(),
        }
    }

    /// The name that errors use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size, bytes; fixed.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The manifest below what was written; `None` when it was created empty and nothing has been
    /// adopted yet.
    pub fn base(&self) -> Option<ManifestId> {
        self.keeper.base()
    }

    /// Reads `buf.len()` bytes at `offset`, any alignment.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        if offset.is_multiple_of(PAGE) && buf.len().is_multiple_of(PAGE_BYTES) {
            self.read_pages(offset / PAGE, buf)?;
        } else {
            let start = offset / PAGE * PAGE;
            let end = (offset + buf.len() as u64).next_multiple_of(PAGE);
            let mut pages = vec![0; (end - start) as usize];
            self.read_pages(start / PAGE, &mut pages)?;
            buf.copy_from_slice(&pages[(offset - start) as usize..][..buf.len()]);
        }
        self.read_ahead(offset, buf.len() as u64);
        Ok(())
    }

    /// Writes `bytes` at `offset`, any alignment. Not durable before the next flush. Only a part of
    /// a page that nothing was written to yet needs that page's old bytes, and may have to fetch.
    ///
    /// After an error, some of the bytes may be written; writing them again is right.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.in_pages(offset, bytes.len() as u64, |part| {
            let bytes = &bytes[(part.offset - offset) as usize..][..part.len as usize];
            if part.is_whole() {
                shared(&self.layers).active.write(part.offset / PAGE, bytes)
            } else {
                self.write_part(part.offset, bytes)
            }
        })
    }

    /// Makes a range zero, and gives back the space of whole pages. Any alignment.
    pub fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.check_range(offset, len)?;
        self.in_pages(offset, len, |part| {
            if part.is_whole() {
                shared(&self.layers).active.discard(part.offset / PAGE, part.len / PAGE);
                Ok(())
            } else {
                self.write_part(part.offset, &[0; PAGE_BYTES][..part.len as usize])
            }
        })
    }

    /// Makes everything that was written before the call durable.
    pub fn flush(&self) -> Result<()> {
        let layers = self.layers();
        // Oldest first: what is newer must not be there without what it was written over.
        let oldest_first = layers.frozen.iter().rev().chain([&layers.active]);
        oldest_first.into_iter().try_for_each(|overlay| overlay.flush())
    }

    /// Sets what was written so far apart, to be sealed while writing goes on. In constant time,
    /// without I/O: it waits only for writes that are going on at this moment.
    ///
    /// What is frozen need not have been flushed. Nothing happens when nothing was written.
    pub fn freeze(&self) -> Result<()> {
        if self.layers().active.is_unused() {
            return Ok(());
        }
        let spare = self.keeper.take_spare()?;
        let mut layers = exclusive(&self.layers);
        let mut frozen = vec![layers.active.clone()];
        frozen.extend_from_slice(&layers.frozen);
        *layers = Arc::new(Layers { active: spare, frozen, base: layers.base.clone() });
        Ok(())
    }

    /// Ends all waiting on this volume, now and later: reads that need the repository fail with
    /// [`VolumeError::Cancelled`]. What is local can still be read, written and flushed.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// The layers as they are now.
    pub(crate) fn layers(&self) -> Arc<Layers> {
        shared(&self.layers).clone()
    }

    pub(crate) fn pages(&self) -> u64 {
        self.size_bytes / PAGE
    }

    /// Changes a part of one page.
    fn write_part(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (page, at) = (offset / PAGE, (offset % PAGE) as usize);
        let mut below: Option<(Arc<Layers>, Vec<u8>)> = None;
        loop {
            // The page's old bytes are of use only while the layers are those they came from.
            let layers = shared(&self.layers);
            let old = below.as_ref().filter(|(from, _)| Arc::ptr_eq(from, &layers));
            let old = old.map(|(_, page)| page.as_slice());
            match layers.active.patch(page, at, bytes, old)? {
                Patched::Done => return Ok(()),
                Patched::NeedsBelow => {}
            }
            let now = layers.clone();
            drop(layers);
            let mut old = vec![0; PAGE_BYTES];
            self.read_layers(&now, page, &mut old)?;
            below = Some((now, old));
        }
    }

    pub(crate) fn check_range(&self, offset: u64, len: u64) -> Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.size_bytes) {
            let (volume, size_bytes) = (self.name.clone(), self.size_bytes);
            return Err(VolumeError::OutOfRange { volume, offset, len, size_bytes });
        }
        Ok(())
    }

    /// Cuts a range into at most three parts: a partial first page, whole pages, a partial last.
    fn in_pages(
        &self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(Part) -> Result<()>,
    ) -> Result<()> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let whole_end = end / PAGE * PAGE;
            let stop = if at.is_multiple_of(PAGE) && whole_end > at {
                whole_end
            } else {
                end.min((at / PAGE + 1) * PAGE)
            };
            each(Part { offset: at, len: stop - at })?;
            at = stop;
        }
        Ok(())
    }
}

/// A part of a range: whole pages, or a piece of one page.
struct Part {
    offset: u64,
    len: u64,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.offset.is_multiple_of(PAGE) && self.len.is_multiple_of(PAGE)
    }
}

/// Opens (or makes) the folder of one volume, for this process alone.
pub fn open_folder(dir: &Path, volume: &str, keeps: Keeps) -> Result<Arc<dyn Disk>> {
    match Folder::open(dir, keeps) {
        Ok(folder) => Ok(Arc::new(folder)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(VolumeError::InUse { dir: dir.display().to_string() })
        }
        Err(error) => Err(VolumeError::io(volume, format!("opening {}", dir.display()), error)),
    }
}

fn open_base(
    base: Option<ManifestId>,
    size_bytes: u64,
    fetcher: &Fetcher,
    volume: &str,
) -> Result<Manifest> {
    let manifest = match base {
        None => Manifest::empty(size_bytes),
        Some(id) => Manifest::open(id, fetcher),
    };
    manifest.map_err(|error| VolumeError::Index { volume: volume.to_owned(), page: 0, error })
}
