//! `export`: the disks of an appliance or of an instance at rest, as files for other programs.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use api::{ExportDiskPrint, ExportPrint};
use import::digests::{Checked, Digests};
use import::{archive, ovf, qemu_img};
use model::{BootKind, CheckpointId, DiskRole, DiskSpec, InstanceState, ManifestId, Media, Name};

use crate::Host;
use crate::failure::{Failure, Result};
use crate::foreign::convert::{self, Converter};
use crate::foreign::place::Growing;
use crate::foreign::write::Reader;
use crate::record::Version;
use crate::shim::claim;
use crate::store::Store;
use crate::work::Work;

/// What other programs get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// The bytes of one disk.
    Raw,
    /// One disk.
    Qcow2,
    /// The whole computer.
    Ova,
}

impl ExportFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Ova => "ova",
        }
    }
}

/// What `export` is asked.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// An instance, or an appliance.
    pub name: Name,
    /// A checkpoint of the instance; none: as it is now, at rest.
    pub checkpoint: Option<String>,
    /// The appliance, also when an instance has the same name.
    pub appliance: bool,
    pub file: PathBuf,
    pub format: ExportFormat,
    /// None: the only one.
    pub disk: Option<String>,
    /// Also over a file that is there.
    pub replace: bool,
}

/// What is exported.
struct Found {
    version: Version,
    disks: Vec<ManifestId>,
    checkpoint: Option<CheckpointId>,
    /// `instance` or `appliance`.
    what: &'static str,
    notes: Vec<String>,
}

impl Host {
    /// Writes disks into a file for other programs.
    pub fn export(
        &self,
        options: &ExportOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<ExportPrint> {
        let began = ambient::now();
        let store = self.store()?;
        let mut found = self.exported(&store, options)?;
        let (growing, file) = Growing::new(&options.file, options.replace)?;
        let reader = Reader::new(&self.dir, &store)?;
        let work = Work::new(&self.dir.folder("exports")?)?;
        let target = Target { growing: &growing, file, reader: &reader, work: work.path() };
        let disks = match options.format {
            ExportFormat::Raw | ExportFormat::Qcow2 => {
                let (spec, manifest) = chosen(&found, options)?;
                progress(&format!("writing {} of {}", spec.name, options.name));
                vec![target.one_disk(spec, manifest, options)?]
            }
            ExportFormat::Ova => target.package(&mut found, options, progress)?,
        };
        let file_bytes = growing.finish()?;
        Ok(ExportPrint {
            name: options.name.to_string(),
            what: found.what.to_owned(),
            version: found.version.version,
            checkpoint: found.checkpoint.map(|id| id.to_string()),
            file: options.file.display().to_string(),
            format: options.format.as_str().to_owned(),
            file_bytes,
            disks,
            total_ms: began.elapsed().as_millis() as u64,
            notes: found.notes,
        })
    }

    fn exported(&self, store: &Store, options: &ExportOptions) -> Result<Found> {
        let name = &options.name;
        let head = match Name::new(name.as_str()) {
            Ok(name) if !options.appliance => store.head(&name)?.head,
            _ => None,
        };
        let Some((_, head)) = head else {
            let wrong = || {
                Failure::new(
                    "not_found",
                    format!("there is no instance and no appliance {name}"),
                    "`collective ps` and `collective appliances` list them",
                )
            };
            if options.checkpoint.is_some() {
                return Err(claim::not_found(name));
            }
            let version = store.version(store.appliance(name)?.ok_or_else(wrong)?)?;
            let disks = version.disks.clone();
            let notes = notes(&version);
            return Ok(Found { version, disks, checkpoint: None, what: "appliance", notes });
        };
        let checkpoint = match &options.checkpoint {
            Some(wanted) => Some(store.find_checkpoint(&head, wanted)?),
            None => {
                let state = self.state_of(store, name)?;
                if !matches!(state, InstanceState::Stopped | InstanceState::Suspended) {
                    return Err(Failure::new(
                        "state",
                        format!("{name} is {}", state.as_str()),
                        format!(
                            "`collective stop {name}` first, or take a checkpoint and export \
                             {name}@CHECKPOINT"
                        ),
                    ));
                }
                head.checkpoint
            }
        };
        let record = checkpoint.map(|id| store.checkpoint(id)).transpose()?;
        let version = store.version(record.as_ref().map_or(head.version, |r| r.version))?;
        let mut notes = notes(&version);
        if record.as_ref().is_some_and(|record| record.memory.is_some()) {
            notes.push("its memory is not in the file: it boots as after a power cut".to_owned());
        }
        let disks =
            record.map_or_else(|| version.first_disks(head.warm).to_vec(), |record| record.disks);
        Ok(Found { version, disks, checkpoint, what: "instance", notes })
    }
}

fn notes(version: &Version) -> Vec<String> {
    let boot = match version.hardware.boot.kind {
        BootKind::Bios => None,
        BootKind::Uefi => Some("it starts by UEFI, whose variables are not in the file"),
        BootKind::Kernel => Some("its kernel is not on its disks: another program must bring one"),
    };
    let tpm = version.hardware.has_tpm().then_some("what its virtual TPM has is not in the file");
    boot.into_iter().chain(tpm).map(str::to_owned).collect()
}

/// The disk that was asked for, or the only one there is.
fn chosen<'a>(found: &'a Found, options: &ExportOptions) -> Result<(&'a DiskSpec, ManifestId)> {
    let all = || {
        let disks = found.version.hardware.disks.iter().zip(found.disks.iter().copied());
        disks.filter(|(spec, _)| spec.is_disk())
    };
    let names = || all().map(|(spec, _)| spec.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = &options.disk {
        return all().find(|(spec, _)| spec.name == *wanted).ok_or_else(|| {
            Failure::new(
                "not_found",
                format!("{} has no disk {wanted:?}", options.name),
                format!("it has: {}", names()),
            )
        });
    }
    let mut real =
        all().filter(|(spec, _)| spec.media == Media::Disk && spec.role != DiskRole::Scratch);
    match (real.next(), real.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::new("not_found", format!("{} has no disk", options.name), "")),
        (Some(_), Some(_)) => Err(Failure::new(
            "usage",
            format!("{} has several disks", options.name),
            format!("name one with --disk: {}", names()),
        )),
    }
}

/// Where an export goes.
struct Target<'a> {
    growing: &'a Growing,
    file: File,
    reader: &'a Reader,
    work: &'a Path,
}

impl Target<'_> {
    /// One disk, raw or as qcow2.
    fn one_disk(
        &self,
        spec: &DiskSpec,
        manifest: ManifestId,
        options: &ExportOptions,
    ) -> Result<ExportDiskPrint> {
        let data_bytes = if options.format == ExportFormat::Raw {
            let folder = options.file.parent().filter(|path| !path.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            self.reader.write(manifest, &self.file, &mut || convert::some_space(folder))?
        } else {
            let converter = Converter::new(self.work)?;
            let data_bytes = self.raw(&converter, manifest, "disk.raw")?;
            converter.raw_to("disk.raw", "disk", qemu_img::Target::Qcow2)?;
            self.growing.take(&converter.folder().join("disk"))?;
            data_bytes
        };
        Ok(print(spec, manifest, data_bytes))
    }

    /// The whole computer as an OVA: a description, the digests, and each disk.
    fn package(
        &self,
        found: &mut Found,
        options: &ExportOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<ExportDiskPrint>> {
        if found.version.hardware.boot.kind == BootKind::Kernel {
            return Err(Failure::new(
                "import",
                format!("{} starts from a kernel that is not on its disks", options.name),
                "an OVA of it would not start; export its disks as raw or qcow2",
            ));
        }
        if options.disk.is_some() {
            return Err(Failure::new("usage", "an OVA has all disks", "leave --disk out"));
        }
        let converter = Converter::new(self.work)?;
        let stem = options.name.as_str().rsplit('/').next().unwrap_or_default();
        let mut prints = Vec::new();
        let mut leaving = Vec::new();
        for (spec, manifest) in found.version.hardware.disks.iter().zip(&found.disks) {
            if !spec.is_disk() {
                continue;
            }
            if spec.media == Media::Cd {
                found.notes.push(format!("its CD {} is not in the file", spec.name));
                continue;
            }
            progress(&format!("writing {} of {}", spec.name, options.name));
            let data_bytes = self.raw(&converter, *manifest, "disk.raw")?;
            let name = format!("{stem}-disk{}.vmdk", leaving.len() + 1);
            let mut file = None;
            if data_bytes > 0 {
                converter.raw_to("disk.raw", &name, qemu_img::Target::StreamVmdk)?;
                file = Some((name.clone(), fs::metadata(converter.folder().join(&name))?.len()));
            }
            fs::remove_file(converter.folder().join("disk.raw"))?;
            leaving.push(ovf::ExportedDisk {
                file,
                capacity_bytes: spec.size_bytes,
                populated_bytes: data_bytes,
                bus: spec.bus,
            });
            prints.push(print(spec, *manifest, data_bytes));
        }
        let description = ovf::write(&ovf::Exported {
            name: stem,
            description: &found.version.description,
            hardware: &found.version.hardware,
            disks: &leaving,
        });
        self.tar(stem, &description, &leaving, converter.folder())?;
        Ok(prints)
    }

    fn tar(
        &self,
        stem: &str,
        description: &str,
        disks: &[ovf::ExportedDisk],
        folder: &Path,
    ) -> Result<()> {
        let digest = |name: &str, content: &mut dyn Read| -> Result<String> {
            let mut hashed = Checked::unchecked(content);
            std::io::copy(&mut hashed, &mut std::io::sink())?;
            Ok(Digests::line(name, &hashed.finish()?))
        };
        let description_name = format!("{stem}.ovf");
        let mut digests = digest(&description_name, &mut description.as_bytes())?;
        let mut files = Vec::new();
        for (name, bytes) in disks.iter().filter_map(|disk| disk.file.as_ref()) {
            let mut file = File::open(folder.join(name))?;
            digests.push_str(&digest(name, &mut file)?);
            file.rewind()?;
            files.push((name.as_str(), *bytes, file));
        }
        let digests_name = format!("{stem}.mf");
        let (mut first, mut second) = (description.as_bytes(), digests.as_bytes());
        let (first_bytes, second_bytes) = (first.len() as u64, second.len() as u64);
        // The order that the standard asks for: the description, its digests, the disks.
        let mut members: Vec<(&str, u64, &mut dyn Read)> = vec![
            (&description_name, first_bytes, &mut first),
            (&digests_name, second_bytes, &mut second),
        ];
        for (name, bytes, file) in &mut files {
            members.push((name, *bytes, file));
        }
        Ok(archive::write(&self.file, &mut members)?)
    }

    /// Writes a volume as a raw file into the converter's folder; gives how much was no hole, bytes.
    fn raw(&self, converter: &Converter, manifest: ManifestId, name: &str) -> Result<u64> {
        let file = converter.create(name, 0o400)?;
        self.reader.write(manifest, &file, &mut || converter.require_space(0))
    }
}

fn print(spec: &DiskSpec, manifest: ManifestId, data_bytes: u64) -> ExportDiskPrint {
    ExportDiskPrint {
        name: spec.name.clone(),
        manifest: manifest.to_string(),
        size_bytes: spec.size_bytes,
        data_bytes,
    }
}
