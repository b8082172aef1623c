//! Foreign tars: their members, looked at before any is used.
//!
//! The header of each member is the library's to read; what it may say is decided here. Members are
//! regular files of plain names, each once; folders are passed over; links, devices and sparse
//! members are refused. Long names and extended headers are read within bounds, and nothing in them
//! may change what a member is.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};

use tar::{Archive, Entries, EntryType};

use crate::error::{ImportError, Result};
use crate::guard::Source;
use crate::names::plain;

const WHAT: &str = "tar";
/// Most members that are taken.
const MEMBERS_MAX: usize = 256;
/// Longest long name, and longest extended header, bytes.
const LONG_NAME_BYTES_MAX: u64 = 4 << 10;
const EXTENDED_BYTES_MAX: u64 = 64 << 10;

/// A regular file in a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// A plain name.
    pub name: String,
    /// Where its content begins, bytes from the start of the tar.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Lists the members of a tar without reading their content.
pub fn list(file: &mut dyn Source) -> Result<Vec<Member>> {
    let length = file
        .seek(std::io::SeekFrom::End(0))
        .and_then(|end| file.rewind().map(|()| end))
        .map_err(ImportError::io("looking at its end"))?;
    let mut members = Vec::new();
    let mut archive = Archive::new(file);
    let entries = archive.entries_with_seek().map_err(broken)?;
    walk(entries.raw(true), &mut |member, _| {
        if member.offset.checked_add(member.bytes).is_none_or(|end| end > length) {
            return Err(ImportError::malformed(WHAT, format!("{} is cut off", member.name)));
        }
        members.push(member.clone());
        Ok(())
    })?;
    Ok(members)
}

/// Reads a tar from its beginning to its end, and gives each member with its content.
pub fn read<E: From<ImportError>>(
    reader: impl Read,
    take: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = Archive::new(reader);
    let entries = archive.entries().map_err(broken)?;
    walk(entries.raw(true), take)
}

/// Writes a tar of plain files, the same bytes for the same content: each with its length.
pub fn write(output: impl Write, members: &mut [(&str, u64, &mut dyn Read)]) -> Result<()> {
    let mut builder = tar::Builder::new(output);
    for (name, bytes, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(*bytes);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, *name, content.take(*bytes))
            .map_err(ImportError::io(format!("writing {name}")))?;
    }
    builder.finish().map_err(ImportError::io("writing the tar"))
}

fn walk<R: Read, E: From<ImportError>>(
    entries: Entries<'_, R>,
    take: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut names = BTreeSet::new();
    let mut long_name: Option<String> = None;
    let mut count = 0;
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        count += 1;
        if count > MEMBERS_MAX {
            return Err(malformed(format!("it has more than {MEMBERS_MAX} members")).into());
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader | EntryType::GNULongLink => continue,
            EntryType::GNULongName => {
                let bytes = read_bounded(&mut entry, LONG_NAME_BYTES_MAX, "a name")?;
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                long_name = Some(text(&bytes[..end])?);
                continue;
            }
            EntryType::XHeader => {
                let bytes = read_bounded(&mut entry, EXTENDED_BYTES_MAX, "an extended header")?;
                long_name = extended_name(&bytes)?.or(long_name);
                continue;
            }
            _ => {}
        }
        let said = match long_name.take() {
            Some(name) => name,
            None => text(&entry.path_bytes())?,
        };
        let name = said.strip_prefix("./").unwrap_or(&said);
        match kind {
            EntryType::Directory => {
                let name = name.trim_end_matches('/');
                if !name.is_empty() && !plain(name) {
                    return Err(odd_name(name).into());
                }
                continue;
            }
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Link | EntryType::Symlink => {
                return Err(refused(name, "is a link").into());
            }
            EntryType::GNUSparse => return Err(unsupported("a sparse member").into()),
            _ => return Err(refused(name, "is no file").into()),
        }
        // What one system writes beside each file, for itself.
        if name.starts_with("._") {
            continue;
        }
        if !plain(name) {
            return Err(odd_name(name).into());
        }
        if !names.insert(name.to_owned()) {
            return Err(refused(name, "is there twice").into());
        }
        let bytes = entry.header().entry_size().map_err(broken)?;
        let member = Member { name: name.to_owned(), offset: entry.raw_file_position(), bytes };
        take(&member, &mut entry)?;
    }
    Ok(())
}

/// The name in an extended header. A size in one would move every member after it: refused.
fn extended_name(bytes: &[u8]) -> Result<Option<String>> {
    let mut name = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ');
        let record = space
            .and_then(|at| std::str::from_utf8(&rest[..at]).ok()?.parse::<usize>().ok())
            .filter(|length| (space.unwrap_or(0) + 2..=rest.len()).contains(length))
            .ok_or_else(|| malformed("an extended header cannot be read"))?;
        let (line, after) = rest.split_at(record);
        rest = after;
        let line = &line[space.unwrap_or(0) + 1..record - 1];
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
            return Err(malformed("an extended header cannot be read"));
        };
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        match key {
            b"path" => name = Some(text(value)?),
            b"size" => return Err(unsupported("a member's size in an extended header")),
            key if key.starts_with(b"GNU.sparse") => return Err(unsupported("a sparse member")),
            _ => {}
        }
    }
    Ok(name)
}

fn read_bounded(entry: &mut dyn Read, bytes_max: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(bytes_max + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > bytes_max {
        return Err(malformed(format!("{what} is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a name is no text"))
}

fn malformed(detail: impl Into<String>) -> ImportError {
    ImportError::malformed(WHAT, detail)
}

/// The library's errors about bytes are about the tar; those of the system are the system's.
fn broken(error: std::io::Error) -> ImportError {
    if error.raw_os_error().is_some() || error.kind() == ErrorKind::StorageFull {
        ImportError::io("reading the tar")(error)
    } else {
        malformed(
            error.to_string().chars().filter(|c| !c.is_control()).take(200).collect::<String>(),
        )
    }
}

fn odd_name(name: &str) -> ImportError {
    refused(name, "is no plain name")
}

fn refused(name: &str, detail: &str) -> ImportError {
    ImportError::Unsafe {
        what: format!("its member {:?}", name.chars().take(80).collect::<String>()),
        detail: detail.to_owned(),
        hint: "pack it anew: plain files, without folders",
    }
}

fn unsupported(what: &str) -> ImportError {
    ImportError::Unsupported {
        what: what.to_owned(),
        hint: "pack it anew with `tar --format=gnu`, without --sparse",
    }
}
