//! `import`: a file of another program becomes a version in the repository.

use std::fs::File;
use std::path::{Path, PathBuf};

use api::{ImportPrint, PropertyPrint};
use import::{Format, ovf};
use model::{
    BootKind, ChunkId, DiskBus, DiskRole, DiskSpec, Hardware, Media, Name, NicModel, Ready,
};

use super::{Answer, volume_print};
use crate::failure::{Failure, Result};
use crate::foreign::computer::{Computer, Disk};
use crate::foreign::convert::Converter;
use crate::foreign::disk::Content;
use crate::foreign::{disk, open, package, packages, vagrant};
use crate::record::Version;
use crate::work::Work;
use crate::{Host, firmware, ingest};

/// The disk beside a CD where nobody says how large: 16 GiB of nothing cost nothing.
const DISK_BYTES_DEFAULT: u64 = 16 << 30;

/// What `import` is asked. What is none is as the file says, or as usual.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    pub file: PathBuf,
    pub name: Name,
    /// The version's number.
    pub version: String,
    pub format: Option<Format>,
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub disk_bus: Option<DiskBus>,
    pub nic: Option<NicModel>,
    /// UEFI or BIOS; none: as the file says.
    pub firmware: Option<BootKind>,
    /// UEFI starts only what is signed, also if the file does not say so.
    pub secure_boot: bool,
    /// A virtual TPM, also if the file has none.
    pub tpm: bool,
    /// The empty disk beside a CD.
    pub disk_bytes: Option<u64>,
    /// Disks that are its maker's: an update replaces them. The others are the user's.
    pub system: Vec<String>,
    /// Answers to the form of an OVF package.
    pub properties: Vec<(String, Answer)>,
    /// What is required of the form may come with `run`.
    pub properties_at_run: bool,
    /// The maker's part of what cloud-init configures: a file.
    pub vendor_data: Option<PathBuf>,
}

/// Gives disks to the maker; what their guest writes on them stays until an update replaces them.
fn make_system(hardware: &mut Hardware, names: &[String]) -> Result<()> {
    for name in names {
        let all: Vec<&str> = hardware.disks.iter().map(|disk| disk.name.as_str()).collect();
        let hint = format!("its disks are {}", all.join(", "));
        let disk = hardware.disks.iter_mut().find(|disk| disk.name == *name && disk.is_disk());
        let Some(disk) = disk else {
            return Err(Failure::new("usage", format!("there is no disk {name:?} in it"), hint));
        };
        disk.role = DiskRole::System;
    }
    Ok(())
}

impl Host {
    /// Makes an appliance of a foreign file, and the newest version of its name.
    pub fn import(
        &self,
        options: &ImportOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<ImportPrint> {
        let began = ambient::now();
        let answers = super::answers::read(&options.properties)?;
        let mut file = open::named(&options.file)?;
        let here = |failure: Failure| failure.during(options.file.display());
        let format = match options.format {
            Some(format) => format,
            None => import::detect(&mut file).map_err(|e| here(e.into()))?,
        };
        // Opened first: a repository that is not there is said before the long work.
        let store = self.store()?;
        let work = Work::new(&self.dir.folder("imports")?)?;
        progress(&format!("reading {} as {format}", options.file.display()));
        let mut computer = self.understand(options, file, format, work.path()).map_err(here)?;
        if computer.description.is_empty() {
            computer.description = described(options, format);
        }
        apply(options, &answers, &mut computer)?;
        let mut hardware = computer.hardware();
        make_system(&mut hardware, &options.system)?;
        if hardware.boot.kind == BootKind::Uefi {
            firmware::find(hardware.boot.secure_boot)?;
        }

        let found = packages::find(&computer.disks);
        computer.notes.extend(found.note);

        progress("storing it in the repository");
        let mut session = store.session()?;
        let mut volumes = Vec::new();
        let mut disks = Vec::new();
        for Disk { name, content, .. } in computer.disks {
            let size_bytes = content.size_bytes;
            let manifest = match content.file {
                Some(file) => ingest::content(&mut session, file, size_bytes)?,
                None => ingest::disk(&mut session, None, size_bytes)?,
            };
            volumes.push(volume_print(&name, Some(manifest), size_bytes));
            disks.push(manifest);
        }
        if hardware.has_tpm() {
            let bytes = DiskSpec::TPM_BYTES;
            let manifest = ingest::disk(&mut session, None, bytes)?;
            volumes.push(volume_print(DiskSpec::TPM, Some(manifest), bytes));
            disks.push(manifest);
        }
        let vendor_data = match &options.vendor_data {
            None => None,
            Some(file) => Some(super::outfit::vendor_data(&mut session, file)?),
        };
        let mut version = Version {
            appliance: options.name.clone(),
            version: options.version.clone(),
            description: computer.description,
            hardware,
            ready: Ready::Started,
            kernel: None,
            initrd: None,
            firmware: None,
            disks,
            packages: found.list,
            packages_of: found.of,
            properties: computer.properties,
            vendor_data,
            auto: None,
            warm: None,
        };
        firmware::equip(&mut session, &mut version, None)?;
        let id = session.put_version(&version)?;
        let stored = session.finish()?;
        store.set_appliance(&options.name, id)?;
        Ok(ImportPrint {
            appliance: options.name.to_string(),
            version: version.version,
            version_id: ChunkId::from(id).to_string(),
            format: format.to_string(),
            cpus: version.hardware.cpus,
            memory_bytes: version.hardware.memory_bytes,
            logical_bytes: stored.logical_bytes,
            stored_bytes: stored.stored_bytes,
            reused_bytes: stored.reused_bytes,
            total_ms: began.elapsed().as_millis() as u64,
            volumes,
            properties: version.properties.iter().map(property_print).collect(),
            notes: computer.notes,
        })
    }

    fn understand(
        &self,
        options: &ImportOptions,
        file: File,
        format: Format,
        work: &Path,
    ) -> Result<Computer> {
        let description = described(options, format);
        match format {
            Format::Iso => from_cd(options, file, description),
            Format::Ova => package::from_ova(&Converter::new(work)?, file),
            Format::Ovf => package::from_ovf(&Converter::new(work)?, &options.file),
            Format::Box => vagrant::from_box(&Converter::new(work)?, file, description),
            _ => {
                let converter = Converter::new(work)?;
                let folder = options.file.parent();
                let folder = folder.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let content = disk::take(&converter, file, format, Some(folder), "disk1")?;
                let disk = Disk {
                    name: "disk1".to_owned(),
                    bus: DiskBus::Virtio,
                    media: Media::Disk,
                    content,
                };
                Ok(Computer::around(vec![disk], description))
            }
        }
    }
}

/// A CD, and an empty disk before it: what is installed there boots the next time.
fn from_cd(options: &ImportOptions, file: File, description: String) -> Result<Computer> {
    let guarded = import::guard(Format::Iso, &mut &file)?;
    let size_bytes = guarded.virtual_bytes.next_multiple_of(model::PAGE_BYTES as u64);
    let disk = Disk {
        name: "disk1".to_owned(),
        bus: DiskBus::Virtio,
        media: Media::Disk,
        content: Content::empty(options.disk_bytes.unwrap_or(DISK_BYTES_DEFAULT)),
    };
    let cd = Disk {
        name: "cd".to_owned(),
        bus: DiskBus::Sata,
        media: Media::Cd,
        content: Content { file: Some(file), size_bytes },
    };
    Ok(Computer::around(vec![disk, cd], description))
}

fn property_print(property: &ovf::Property) -> PropertyPrint {
    PropertyPrint {
        key: property.key.clone(),
        kind: property.kind.clone(),
        label: property.label.clone(),
        configurable: property.configurable,
        value: property.value.clone().filter(|_| !property.password),
        required: property.value.is_none(),
    }
}

/// What the user said goes before what the file says.
fn apply(
    options: &ImportOptions,
    answers: &[(String, String)],
    computer: &mut Computer,
) -> Result<()> {
    let complete = !options.properties_at_run;
    computer.properties = ovf::fill(&computer.properties, answers, complete)?;
    let usage = |what: &str, hint: &str| Err(Failure::new("usage", what, hint));
    let number = &options.version;
    if !(1..=64).contains(&number.len()) || number.chars().any(char::is_control) {
        return usage("the version's number is one line of up to 64 bytes", "--as-version 1.2");
    }
    if let Some(cpus) = options.cpus {
        computer.cpus = cpus;
    }
    if let Some(bytes) = options.memory_bytes {
        computer.memory_bytes = bytes;
    }
    let memory = computer.memory_bytes;
    if memory == 0 || !memory.is_multiple_of(1 << 20) {
        return usage("memory is a whole number of MiB", "for example: --memory 1GiB");
    }
    if options.disk_bytes.is_some() && !computer.disks.iter().any(|disk| disk.media == Media::Cd) {
        return usage("--disk-size is for CDs", "a disk is as large as its file says");
    }
    if options.disk_bytes.is_some_and(|bytes| bytes == 0 || bytes > import::DISK_BYTES_MAX) {
        return usage("the disk's size is not possible", "use at most 8TiB");
    }
    if let Some(bus) = options.disk_bus {
        for disk in computer.disks.iter_mut().filter(|disk| disk.media == Media::Disk) {
            disk.bus = bus;
        }
    }
    if let Some(kind) = options.firmware {
        computer.boot = kind;
        computer.secure_boot = false;
    }
    if options.secure_boot {
        if computer.boot != BootKind::Uefi {
            return usage("only UEFI has secure boot", "add --firmware uefi");
        }
        computer.secure_boot = true;
    }
    if computer.secure_boot && !options.secure_boot {
        let note =
            "it starts only what is signed with Microsoft's keys; --firmware uefi starts all";
        computer.notes.push(note.to_owned());
    }
    computer.tpm |= options.tpm;
    if let Some(model) = options.nic {
        computer.nics.fill(model);
    }
    let sata = computer.disks.iter().filter(|disk| disk.bus == DiskBus::Sata).count();
    if computer.disks.len() > vmm::DISKS_MAX || sata > vmm::SATA_DISKS_MAX {
        return Err(Failure::new(
            "import",
            format!("it has {} disks, {sata} of them at SATA", computer.disks.len()),
            format!(
                "at most {} are possible, {} of them at SATA: try --disk-bus virtio",
                vmm::DISKS_MAX,
                vmm::SATA_DISKS_MAX
            ),
        ));
    }
    if computer.nics.len() > vmm::NICS_MAX {
        computer.nics.truncate(vmm::NICS_MAX);
        computer.notes.push(format!("only the first {} network cards are kept", vmm::NICS_MAX));
    }
    Ok(())
}

fn described(options: &ImportOptions, format: Format) -> String {
    let name = options.file.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    format!("imported from {name} ({format})")
}
