//! The instance's volumes as files: two mounts, memory and disks apart, because they want
//! different read-ahead.

use std::path::PathBuf;
use std::sync::Arc;

use export::{Export, ExportFile};
use model::DiskSpec;
use volume::Volume;

use super::faults::{Faults, Waits};
use super::volumes::RAM;
use crate::boot_file::BootFile;
use crate::failure::{Failure, Result};
use crate::local::LocalDir;

/// What is to be mounted.
pub struct Mounting<'a> {
    pub local: &'a LocalDir,
    pub ram: &'a Arc<Volume>,
    /// Each disk and its name.
    pub disks: Vec<(&'a DiskSpec, &'a Arc<Volume>)>,
    /// What QEMU maps to boot from, with the names of their files.
    pub boot: &'a [(&'static str, Arc<BootFile>)],
    /// Who may open the files, when it is not us.
    pub owner: Option<(u32, u32)>,
    pub on_trouble: Arc<dyn Fn(&export::Trouble<'_>) + Send + Sync>,
    /// Where what the guest waits for is counted.
    pub faults: &'a Arc<Faults>,
}

/// Volumes that are files now, and what lies between the files and the volumes.
pub trait Mounted: Send + Sync {
    /// The file of the memory (`ram`), of a disk, or of what it boots from.
    fn path(&self, name: &str) -> Result<PathBuf>;
    /// Puts bytes into the kernel's cache; `false` when that was not possible any more.
    fn place(&self, name: &str, offset: u64, bytes: &[u8]) -> bool;
    /// Brings what the kernel holds of memory into its volume, without making it durable here: it
    /// is frozen next, and stored in the repository.
    fn write_back_ram(&self) -> Result<()>;
    /// Brings what the kernel holds of a disk into its volume, and makes it durable.
    fn sync(&self, disk: &str) -> Result<()>;
    /// Lets reads that wait for the repository fail.
    fn give_up(&self);
    /// Unmounts.
    fn close(self: Box<Self>) -> Result<()>;
}

/// The real ones: FUSE.
pub struct Exports {
    ram: Export,
    /// What lies in the mount of the memory too.
    boot: Vec<&'static str>,
    disks: Option<Export>,
}

impl Exports {
    pub fn mount(mounting: Mounting<'_>) -> Result<Self> {
        let Mounting { local, ram, disks, boot, owner, on_trouble, faults } = mounting;
        let file = |volume: &Arc<Volume>| -> Arc<dyn ExportFile> {
            Arc::new(export::VolumeFile::new(volume.clone()))
        };
        type Kind = for<'f> fn(&'f Faults, &str) -> &'f Waits;
        let options = |options: export::Options, kind: Kind| {
            let faults = faults.clone();
            export::Options {
                owner,
                on_trouble: Some(on_trouble.clone()),
                on_fault: Some(Arc::new(move |file, took| kind(&faults, file).add(took))),
                ..options
            }
        };
        // Both are mapped, and touched here and there.
        let mut mapped = vec![(RAM.to_owned(), file(ram))];
        mapped.extend(boot.iter().map(|(name, file)| {
            let file: Arc<dyn ExportFile> = file.clone();
            ((*name).to_owned(), file)
        }));
        let mapped_options = options(export::Options::ram(), |faults, file| match file {
            RAM => &faults.ram,
            _ => &faults.boot,
        });
        let ram = Export::mount(&local.ram_mount(), mapped, mapped_options)?;
        let disks = if disks.is_empty() {
            None
        } else {
            let files =
                disks.iter().map(|(spec, volume)| (spec.name.clone(), file(volume))).collect();
            let options = options(export::Options::disk(), |faults, _| &faults.disk);
            Some(Export::mount(&local.disk_mount(), files, options)?)
        };
        Ok(Self { ram, boot: boot.iter().map(|(name, _)| *name).collect(), disks })
    }

    fn of(&self, name: &str) -> Option<&Export> {
        if name == RAM || self.boot.contains(&name) { Some(&self.ram) } else { self.disks.as_ref() }
    }
}

impl Mounted for Exports {
    fn path(&self, name: &str) -> Result<PathBuf> {
        match self.of(name) {
            Some(export) => Ok(export.path(name)?),
            None => Err(Failure::new("internal", format!("no disk {name}"), "")),
        }
    }

    fn place(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        self.of(name).is_some_and(|export| export.store(name, offset, bytes).unwrap_or(false))
    }

    fn write_back_ram(&self) -> Result<()> {
        Ok(self.ram.write_back(RAM)?)
    }

    fn sync(&self, disk: &str) -> Result<()> {
        Ok(self.disks.as_ref().map_or(Ok(()), |export| export.sync(disk))?)
    }

    fn give_up(&self) {
        self.ram.give_up_reads();
        if let Some(export) = &self.disks {
            export.give_up_reads();
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        let ram = self.ram.unmount();
        if let Some(export) = self.disks {
            export.unmount()?;
        }
        Ok(ram?)
    }
}
