//! Vagrant boxes: a tar, nearly always compressed, that is read once from its beginning to its end.
//!
//! What may be of use is unpacked into the converter's folder; how much that is nobody knows before,
//! so the disk's free space is watched while it grows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use import::vagrant::{self, Content as BoxContent, METADATA_BYTES_MAX, METADATA_FILE};
use import::{archive, gunzip};
use model::{DiskBus, Media};

use super::computer::{Computer, Disk};
use super::convert::Converter;
use super::disk;
use super::package::{self, Files};
use crate::failure::{Failure, Result};

/// Takes a box.
pub fn from_box(converter: &Converter, mut file: File, description: String) -> Result<Computer> {
    let (metadata, names) = unpack(converter, &mut file)?;
    let members: Vec<&str> = names.keys().map(String::as_str).collect();
    match vagrant::understand(metadata.as_deref(), &members)? {
        BoxContent::Package(description) => {
            let files = Files::Brought { folder: converter.folder().to_owned(), names };
            package::read(converter, &files, &description)
        }
        BoxContent::Disks(list) => {
            let mut disks = Vec::new();
            for (index, (member, format)) in list.iter().enumerate() {
                let name = format!("disk{}", index + 1);
                let Some(input) = names.get(member) else {
                    return Err(Failure::new("import", format!("{member} is not in it"), ""));
                };
                let content = disk::take_brought(converter, input, *format, &name)
                    .map_err(|failure| failure.during(member))?;
                disks.push(Disk { name, bus: DiskBus::Virtio, media: Media::Disk, content });
            }
            Ok(Computer::around(disks, description))
        }
    }
}

/// Unpacks what may be of use; gives the box's description, and under which names the rest lies.
fn unpack(
    converter: &Converter,
    file: &mut File,
) -> Result<(Option<String>, BTreeMap<String, String>)> {
    let mut magic = [0; 2];
    file.seek(SeekFrom::Start(0))?;
    let packed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    let reader: Box<dyn Read> =
        if packed { Box::new(gunzip(BufReader::new(file))) } else { Box::new(file) };
    let mut metadata = None;
    let mut names = BTreeMap::new();
    archive::read(reader, &mut |member, content| {
        if member.name == METADATA_FILE {
            let mut text = String::new();
            if member.bytes > METADATA_BYTES_MAX {
                return Err(Failure::new("import", format!("its {METADATA_FILE} is too long"), ""));
            }
            content
                .read_to_string(&mut text)
                .map_err(|error| Failure::new("import", format!("{METADATA_FILE}: {error}"), ""))?;
            metadata = Some(text);
        } else if vagrant::is_wanted(&member.name) {
            let name = format!("member-{}", names.len());
            converter
                .bring_stream(content, member.bytes, &name)
                .map_err(|failure| failure.during(&member.name))?;
            names.insert(member.name.clone(), name);
        }
        Ok(())
    })?;
    Ok((metadata, names))
}
