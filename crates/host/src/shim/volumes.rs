//! The instance's volumes: opened, exported as files, frozen together, sealed together.
//!
//! *Invariant.* RAM and disks are frozen inside the same pause, always; a volume's overlay is
//! given up only after the manifest that replaces it is durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::VolumePrint;
use model::{DiskBus, DiskSpec, ManifestId, PAGE_BYTES};
use volume::{Fetcher, Sealed, StallObserver, Volume, VolumeError, VolumeOptions};

use super::exports::{Mounted, Mounting};
use super::faults::Faults;
use crate::boot_file::BootFile;
use crate::doors::Doors;
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::store::Session;
use crate::tpm::{self, Tpm};

/// Where a volume starts from.
pub enum Origin {
    /// A manifest, or nothing (all zeros).
    Base(Option<ManifestId>),
    /// The folder that a crashed shim left. When it died before there was a volume in it, nothing
    /// was written yet, and it starts from this manifest.
    Leftover(ManifestId),
}

/// Every volume of one instance.
pub struct Volumes {
    pub ram: Arc<Volume>,
    pub disks: Vec<Arc<Volume>>,
    /// What QEMU maps to boot from, when the guest goes on from memory.
    pub boot: Vec<(&'static str, Arc<BootFile>)>,
    /// What the guest waited for.
    pub faults: Arc<Faults>,
    mounted: Box<dyn Mounted>,
    /// The virtual TPM: one of `disks`, which is no file of the mount.
    pub tpm: Option<Tpm>,
    observer: Arc<dyn StallObserver>,
}

/// How much is read ahead of a sequential reader of a disk, bytes.
const DISK_READAHEAD_BYTES: u64 = 1 << 20;
/// The file of the memory in its mount.
pub const RAM: &str = "ram";

/// Opens one volume in its folder.
pub fn open_volume(
    doors: &dyn Doors,
    folder: &Path,
    name: &str,
    size_bytes: u64,
    origin: &Origin,
    fetcher: &Arc<Fetcher>,
    observer: Option<Arc<dyn StallObserver>>,
) -> Result<Arc<Volume>> {
    let readahead_bytes = if name == RAM { 0 } else { DISK_READAHEAD_BYTES };
    let options =
        || VolumeOptions { name: name.to_owned(), readahead_bytes, observer: observer.clone() };
    let create = |base| -> Result<Volume> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        let disk = doors.disk(folder, name)?;
        Ok(Volume::create_on(disk, base, size_bytes, fetcher.clone(), options())?)
    };
    let volume = match origin {
        Origin::Leftover(base) => {
            let left = doors.disk(folder, name)?;
            match Volume::open_on(left, fetcher.clone(), options()) {
                Err(VolumeError::NotFound { .. }) => create(Some(*base))?,
                opened => opened?,
            }
        }
        Origin::Base(base) => create(*base)?,
    };
    if volume.size_bytes() != size_bytes {
        return Err(Failure::new(
            "damaged",
            format!("volume {name} has {} bytes, not {size_bytes}", volume.size_bytes()),
            "it belongs to another hardware description; `collective undo NAME` goes back",
        ));
    }
    Ok(Arc::new(volume))
}

/// Where a disk's volume is kept.
pub fn disk_folder(local: &LocalDir, disk: &DiskSpec) -> PathBuf {
    local.volumes().join(format!("disk-{}", disk.name))
}

impl Volumes {
    /// Opens every volume and mounts them.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another noun; a struct would rename them"
    )]
    pub fn open(
        local: &LocalDir,
        memory_bytes: u64,
        ram: Origin,
        disks: &[(DiskSpec, Origin)],
        boot: Vec<(&'static str, Arc<BootFile>)>,
        fetcher: &Arc<Fetcher>,
        observer: Arc<dyn StallObserver>,
        owner: Option<(u32, u32)>,
        on_trouble: Arc<dyn Fn(&export::Trouble<'_>) + Send + Sync>,
    ) -> Result<Self> {
        crate::dir::make_private_dir(&local.volumes())?;
        let doors = local.doors();
        let open = |folder: &Path, name: &str, size, origin: &Origin| {
            open_volume(doors, folder, name, size, origin, fetcher, Some(observer.clone()))
        };
        let ram = open(&local.volumes().join(RAM), RAM, memory_bytes, &ram)?;
        let mut volumes = Vec::with_capacity(disks.len());
        for (spec, origin) in disks {
            volumes.push(open(&disk_folder(local, spec), &spec.name, spec.size_bytes, origin)?);
        }
        let mut tpm = None;
        let mut files = Vec::new();
        for ((spec, origin), volume) in disks.iter().zip(&volumes) {
            if spec.bus == DiskBus::Tpm {
                let left = matches!(origin, Origin::Leftover(_));
                tpm = Some(Tpm::lay_out(local, volume.clone(), left, tpm::user(owner))?);
            } else {
                files.push((spec, volume));
            }
        }
        let faults = Arc::new(Faults::default());
        let mounting = Mounting {
            local,
            ram: &ram,
            disks: files,
            boot: &boot,
            owner,
            on_trouble,
            faults: &faults,
        };
        let mounted = doors.mount(mounting)?;
        Ok(Self { ram, disks: volumes, tpm, boot, faults, mounted, observer })
    }

    /// The file that is the guest's memory.
    pub fn ram_path(&self) -> Result<PathBuf> {
        self.mounted.path(RAM)
    }

    /// The file of a disk.
    pub fn disk_path(&self, name: &str) -> Result<PathBuf> {
        self.mounted.path(name)
    }

    /// The file of one of [`Self::boot`].
    pub fn boot_path(&self, name: &str) -> Result<Option<PathBuf>> {
        let is_there = self.boot.iter().any(|(known, _)| *known == name);
        is_there.then(|| self.mounted.path(name)).transpose()
    }

    /// Puts bytes of a volume into the kernel's cache, before QEMU has opened its file; `false` when
    /// that was not possible any more.
    pub fn place(&self, volume: &Volume, offset: u64, bytes: &[u8]) -> bool {
        self.mounted.place(volume.name(), offset, bytes)
    }

    /// Memory first, then the disks.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Volume>> {
        std::iter::once(&self.ram).chain(&self.disks)
    }

    /// Brings what the kernel holds of memory into its volume, without making it durable here: it
    /// is frozen next, and stored in the repository.
    pub fn write_back_ram(&self) -> Result<()> {
        self.mounted.write_back_ram()
    }

    /// Brings what the kernel holds of the disks into their volumes, and makes it durable.
    pub fn sync_disks(&self) -> Result<()> {
        let mut files = self.disks.iter().filter(|disk| !self.is_tpm(disk));
        files.try_for_each(|disk| self.mounted.sync(disk.name()))
    }

    fn is_tpm(&self, disk: &Volume) -> bool {
        self.tpm.as_ref().is_some_and(|tpm| tpm.is_in(disk))
    }

    /// What the guest has written since the last freeze, as far as it has reached the volumes: the
    /// kernel brings memory there within half a minute.
    pub fn dirtied_bytes(&self) -> u64 {
        let pages: u64 = self.all().map(|volume| volume.stats().active.data_pages).sum();
        pages * PAGE_BYTES as u64
    }

    /// Freezes every volume. The guest stands still, and everything has been synced.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_disks()?;
        Ok(self.ram.freeze()?)
    }

    /// Freezes all but the memory.
    pub fn freeze_disks(&self) -> Result<()> {
        if let Some(tpm) = &self.tpm {
            tpm.take_in()?;
        }
        for disk in &self.disks {
            disk.freeze()?;
        }
        Ok(())
    }

    /// Lets everything that waits for the repository fail: the instance is ending.
    pub fn give_up(&self) {
        self.mounted.give_up();
        self.boot.iter().for_each(|(_, file)| file.give_up());
        for volume in self.all() {
            volume.cancel();
        }
    }

    /// Unmounts.
    pub fn close(self) -> Result<()> {
        self.give_up();
        let closed = self.mounted.close();
        drop(self.observer);
        closed
    }
}

/// Seals one volume into a session; gives the manifest to adopt once the session is durable.
pub fn seal(volume: &Volume, session: &mut Session) -> Result<Sealed> {
    Ok(volume.seal(session.sink())?)
}

/// One volume's line of `inspect`.
pub fn print(volume: &Volume) -> VolumePrint {
    let stats = volume.stats();
    let page = PAGE_BYTES as u64;
    VolumePrint {
        name: volume.name().to_owned(),
        manifest: volume.base().map(|id| id.to_string()),
        size_bytes: volume.size_bytes(),
        dirty_bytes: Some((stats.active.data_pages + stats.frozen.data_pages) * page),
        freed_bytes: Some((stats.active.zero_pages + stats.frozen.zero_pages) * page),
        fetched_bytes: Some(stats.fetched_bytes),
        cached_bytes: Some(stats.cache_hits * page),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostDir;
    use crate::doors::Real;
    use crate::store::{KeyPlace, Store};
    use volume::Cache;

    /// The power may go between the lease and the first durable byte of a volume. The folder that
    /// is then there has nothing in it that anybody wrote.
    #[test]
    fn a_volume_whose_making_a_crash_cut_short_starts_from_its_base() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(&folder.path().join("host")).unwrap();
        let location = folder.path().join("repository").to_string_lossy().into_owned();
        Store::init(&host, &location, KeyPlace::Repository, None).unwrap();
        let store = Store::open(&host, &location).unwrap();
        let page = vec![7; PAGE_BYTES];
        let mut session = store.session().unwrap();
        let id = chunk::id_of(&page);
        session.sink().put(id, &page).unwrap();
        let pages = &mut std::iter::once((3, Some(id)));
        let base = session.put_pages(16 * PAGE_BYTES as u64, pages).unwrap();
        session.finish().unwrap();
        let cache = Arc::new(Cache::open(&host.folder("cache").unwrap(), 1 << 20).unwrap());
        let fetcher = Arc::new(Fetcher::new(cache, store.source(), 1));

        let cut_short: [&[&str]; 4] =
            [&[], &["1.data"], &["1.data", "1.journal"], &["1.data", "1.journal", "state.new"]];
        for files in cut_short {
            let left = tempfile::tempdir().unwrap();
            files.iter().for_each(|file| std::fs::write(left.path().join(file), "").unwrap());
            let origin = Origin::Leftover(base);
            let size = 16 * PAGE_BYTES as u64;
            let volume =
                open_volume(&Real, left.path(), "data", size, &origin, &fetcher, None).unwrap();
            let mut found = vec![0; PAGE_BYTES];
            volume.read_at(3 * PAGE_BYTES as u64, &mut found).unwrap();
            assert_eq!(found, page, "{files:?}");
        }
    }
}
