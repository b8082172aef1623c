//! OVF packages: a description with its disks, in one tar (OVA), in a folder, or in a box.
//!
//! Every file that is used is brought into the converter's folder through the hash that the manifest
//! file gives for it; only then is it looked at, and converted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use import::archive::{self, Member};
use import::digests::{Checked, Digests, MANIFEST_BYTES_MAX};
use import::{Format, ImportError, ovf};
use model::{BootKind, DiskBus, Media};

use super::computer::{Computer, Disk};
use super::convert::Converter;
use super::disk::{self, Content};
use super::open;
use crate::failure::{Failure, Result};

/// Where the files of a package are.
pub enum Files {
    /// In a tar.
    Tar { file: File, members: Vec<Member> },
    /// Beside the description.
    Folder(PathBuf),
    /// In the converter's folder already, under these names.
    Brought { folder: PathBuf, names: BTreeMap<String, String> },
}

impl Files {
    /// A file of the package and its length, bytes.
    fn open(&self, name: &str) -> Result<(Box<dyn Read>, u64)> {
        match self {
            Self::Tar { file, members } => {
                let member = members.iter().find(|member| member.name == name);
                let member = member.ok_or_else(|| missing(name))?;
                let window =
                    Window { file: file.try_clone()?, at: member.offset, left: member.bytes };
                Ok((Box::new(window), member.bytes))
            }
            Self::Folder(folder) => {
                let file = open::beside(folder, name)?;
                let bytes = file.metadata()?.len();
                Ok((Box::new(file), bytes))
            }
            Self::Brought { folder, names } => {
                let brought = names.get(name).ok_or_else(|| missing(name))?;
                let file = File::open(folder.join(brought))?;
                let bytes = file.metadata()?.len();
                Ok((Box::new(file), bytes))
            }
        }
    }

    /// The same, whole, as text.
    fn text(&self, name: &str, bytes_max: u64) -> Result<String> {
        let (reader, bytes) = self.open(name)?;
        if bytes > bytes_max {
            return Err(Failure::new(
                "import",
                format!("{name} is longer than {bytes_max} bytes"),
                "",
            ));
        }
        let mut content = Vec::new();
        reader.take(bytes_max).read_to_end(&mut content)?;
        String::from_utf8(content)
            .map_err(|_| Failure::new("import", format!("{name} is no UTF-8 text"), ""))
    }
}

/// A member's part of a tar. It reads where it is, whatever others do with the same open file.
struct Window {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn missing(name: &str) -> Failure {
    Failure::new("not_found", format!("the package has no file {name}"), "get it again")
}

/// A whole package in a tar, whose first member is its description.
pub fn from_ova(converter: &Converter, mut file: File) -> Result<Computer> {
    let members = archive::list(&mut file)?;
    let descriptions = members.iter().filter(|member| member.name.ends_with(".ovf")).count();
    let Some(first) = members.first().filter(|m| m.name.ends_with(".ovf") && descriptions == 1)
    else {
        return Err(Failure::new(
            "import",
            "its first member is not the only description (.ovf)",
            "pack it anew, the .ovf first",
        ));
    };
    let description = first.name.clone();
    read(converter, &Files::Tar { file, members }, &description)
}

/// A description as a file, with the others beside it.
pub fn from_ovf(converter: &Converter, path: &Path) -> Result<Computer> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).to_owned();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    read(converter, &Files::Folder(folder), name)
}

/// Reads a package by its description.
pub fn read(converter: &Converter, files: &Files, description: &str) -> Result<Computer> {
    let text = files.text(description, ovf::OVF_BYTES_MAX)?;
    let stem = description.strip_suffix(".ovf").unwrap_or(description);
    let manifest = format!("{stem}.mf");
    let digests = match files.text(&manifest, MANIFEST_BYTES_MAX) {
        Ok(text) => Some(Digests::parse(&text)?),
        Err(failure) if failure.kind == "not_found" => None,
        Err(failure) => return Err(failure),
    };
    if let Some(digests) = &digests {
        let mut checked = digests.checked(description, text.as_bytes())?;
        std::io::copy(&mut checked, &mut std::io::sink())?;
        checked.finish()?;
    }
    let system = ovf::parse(&text).map_err(|e| Failure::from(e).during(description))?;

    let mut notes = system.notes;
    if digests.is_none() {
        notes.push(format!("it has no manifest file {manifest}: its content was not checked"));
    }
    let mut disks = Vec::new();
    let (mut hard, mut cds) = (0, 0);
    for wanted in system.disks {
        let name = match wanted.media {
            Media::Disk => {
                hard += 1;
                format!("disk{hard}")
            }
            Media::Cd => {
                cds += 1;
                if cds == 1 { "cd".to_owned() } else { format!("cd{cds}") }
            }
        };
        let content = match &wanted.file {
            None => Content::empty(wanted.capacity_bytes),
            Some(file) => bring(converter, files, digests.as_ref(), file, &name)
                .and_then(|()| understood(converter, &name, wanted.media))
                .map_err(|failure| failure.during(&file.name))?,
        };
        if wanted.media == Media::Disk
            && content.size_bytes != Content::whole_pages(wanted.capacity_bytes)
        {
            notes.push(format!(
                "{name} has {} bytes; its description says {}",
                content.size_bytes, wanted.capacity_bytes
            ));
        }
        let bus = if wanted.media == Media::Cd { DiskBus::Sata } else { wanted.bus };
        disks.push(Disk { name, bus, media: wanted.media, content });
    }
    if system.tpm {
        notes.push(
            "its virtual TPM is a new one: what the old one had sealed stays shut".to_owned(),
        );
    }
    if hard == 0 {
        return Err(Failure::new("import", "its computer has no disk", "name another file"));
    }
    Ok(Computer {
        cpus: system.cpus,
        memory_bytes: system.memory_bytes,
        disks,
        nics: system.nics,
        boot: if system.efi { BootKind::Uefi } else { BootKind::Bios },
        secure_boot: system.efi && system.secure_boot,
        tpm: system.tpm,
        description: system.name,
        properties: system.properties,
        notes,
    })
}

/// The name in the converter's folder of what becomes this disk.
fn brought(name: &str) -> String {
    format!("{name}-input")
}

/// Brings one file, checked.
fn bring(
    converter: &Converter,
    files: &Files,
    digests: Option<&Digests>,
    file: &ovf::FileReference,
    name: &str,
) -> Result<()> {
    let (reader, bytes) = files.open(&file.name)?;
    if file.bytes.is_some_and(|said| said != bytes) {
        return Err(Failure::new(
            "import",
            format!("it has {bytes} bytes, and its description says otherwise"),
            "it was cut off or changed on its way: get it again",
        ));
    }
    let mut checked = match digests {
        Some(digests) => digests.checked(&file.name, reader)?,
        None => Checked::unchecked(reader),
    };
    converter.bring_stream(&mut checked, bytes, &brought(name))?;
    checked.finish()?;
    Ok(())
}

/// What was brought becomes a disk; its format is what its magic says.
fn understood(converter: &Converter, name: &str, media: Media) -> Result<Content> {
    let input = brought(name);
    let format = import::detect(&mut File::open(converter.folder().join(&input))?);
    let format = format.map_err(|error| match error {
        // `--format raw` would take the package itself for a disk.
        ImportError::Unrecognised { .. } => Failure {
            hint: "convert it with qemu-img, for example into qcow2, and pack it anew".to_owned(),
            ..error.into()
        },
        error => error.into(),
    })?;
    if (format == Format::Iso) != (media == Media::Cd) {
        return Err(Failure::new("import", format!("it is a {format}, in the wrong drive"), ""));
    }
    disk::take_brought(converter, &input, format, name)
}
