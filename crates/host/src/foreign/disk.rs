//! One foreign disk, from an open file to a sparse raw one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use import::guard::vmdk::{self, Descriptor, ExtentKind, Part};
use import::{Format, guard};
use model::PAGE_BYTES;

use super::convert::Converter;
use super::open;
use crate::failure::{Failure, Result};

/// A disk's content, ready to become a volume.
pub struct Content {
    /// The bytes; none: it is empty.
    pub file: Option<File>,
    /// How large the volume is: whole pages.
    pub size_bytes: u64,
}

impl Content {
    /// An empty disk.
    pub fn empty(size_bytes: u64) -> Self {
        Self { file: None, size_bytes: Self::whole_pages(size_bytes) }
    }

    /// The size of the volume that so many bytes become.
    pub fn whole_pages(bytes: u64) -> u64 {
        bytes.checked_next_multiple_of(PAGE_BYTES as u64).unwrap_or(bytes)
    }
}

/// Takes a disk of a known format. `folder` is where a descriptor's extents may be; none: it may
/// not have any. `name` tells files in the converter's folder apart.
pub fn take(
    converter: &Converter,
    mut file: File,
    format: Format,
    folder: Option<&Path>,
    name: &str,
) -> Result<Content> {
    if format == Format::Vmdk && begins_with_text(&mut file)? {
        return from_descriptor(converter, file, folder, name);
    }
    // What can be refused is refused before it is copied.
    let guarded = guard(format, &mut file)?;
    if matches!(format, Format::Raw | Format::Iso) {
        let size_bytes = Content::whole_pages(guarded.virtual_bytes);
        return Ok(Content { file: Some(file), size_bytes });
    }
    let input = format!("{name}-input");
    converter.bring(&mut file, &input)?;
    take_brought(converter, &input, format, name)
}

/// The same, of a file in the converter's folder.
pub fn take_brought(
    converter: &Converter,
    input: &str,
    format: Format,
    name: &str,
) -> Result<Content> {
    let mut file = File::open(converter.folder().join(input))?;
    if format == Format::Vmdk && begins_with_text(&mut file)? {
        return from_descriptor(converter, file, None, name);
    }
    let guarded = guard(format, &mut file)?;
    if matches!(format, Format::Raw | Format::Iso) {
        let size_bytes = Content::whole_pages(guarded.virtual_bytes);
        return Ok(Content { file: Some(file), size_bytes });
    }
    converted(converter, format, &[input], name)
}

fn converted(
    converter: &Converter,
    format: Format,
    inputs: &[&str],
    name: &str,
) -> Result<Content> {
    let output = format!("{name}-output");
    let size_bytes = converter.to_raw(format, inputs, &output)?;
    for input in inputs {
        std::fs::remove_file(converter.folder().join(input))?;
    }
    let file = Some(File::open(converter.folder().join(output))?);
    Ok(Content { file, size_bytes })
}

fn begins_with_text(file: &mut File) -> Result<bool> {
    let mut first = [0; 4];
    file.seek(SeekFrom::Start(0))?;
    let read = file.take(4).read(&mut first)?;
    Ok(read > 0 && &first != b"KDMV")
}

/// A VMDK whose extents are files of their own.
fn from_descriptor(
    converter: &Converter,
    mut file: File,
    folder: Option<&Path>,
    name: &str,
) -> Result<Content> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(vmdk::DESCRIPTOR_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > vmdk::DESCRIPTOR_BYTES_MAX {
        return Err(Failure::new("import", "its descriptor is longer than 64 KiB", ""));
    }
    // Some writers fill the sector with zeros.
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let descriptor = Descriptor::parse(&text)?;
    let Some(folder) = folder else {
        return Err(Failure::new(
            "import",
            "its disk is a descriptor that needs other files",
            "only a disk in one file can be inside another file: streamOptimized is the usual form",
        ));
    };
    let inputs: Vec<String> = std::iter::once(format!("{name}-input"))
        .chain((0..descriptor.files().len()).map(|index| format!("{name}-extent-{index}")))
        .collect();
    let (first, extents) = inputs.split_first().expect("the descriptor's own is the first");
    for (wanted, brought) in descriptor.files().into_iter().zip(extents) {
        let mut extent = open::beside(folder, wanted)?;
        converter.bring(&mut extent, brought)?;
        check_extent(&descriptor, wanted, &converter.folder().join(brought))
            .map_err(|failure| failure.during(wanted))?;
    }
    let canonical = descriptor.canonical(|index| extents[index].clone());
    converter.write(first, canonical.as_bytes())?;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    converted(converter, Format::Vmdk, &inputs, name)
}

/// Every extent that lies in this file must be there whole.
fn check_extent(descriptor: &Descriptor, name: &str, brought: &PathBuf) -> Result<()> {
    let mut file = File::open(brought)?;
    let sectors_there = file.metadata()?.len() / 512;
    let short = || Failure::new("import", "it is shorter than its descriptor says", "get it again");
    for extent in descriptor.extents.iter().filter(|extent| extent.file == name) {
        match extent.kind {
            ExtentKind::Flat { offset_sectors } => {
                let end = offset_sectors.checked_add(extent.sectors).ok_or_else(short)?;
                if end > sectors_there {
                    return Err(short());
                }
            }
            ExtentKind::Sparse => {
                let bytes = vmdk::guard_sparse(&mut file, Part::Extent)?;
                if bytes / 512 < extent.sectors {
                    return Err(short());
                }
            }
            ExtentKind::Zero => {}
        }
    }
    Ok(())
}
