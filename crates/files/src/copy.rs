//! Copies files out of a guest's file system.
//!
//! *Never outside the destination.* What the guest calls a file may be called anything and lead
//! anywhere: links are copied as links and never followed, nothing that exists is written through.
//! Set-user-id bits and owners do not come along. Devices, pipes and sockets are left out, and
//! counted.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::system::show;
use crate::{FileKind, FileSystem, FilesError, Result};

/// Bytes asked for at once.
const PIECE_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Directories below one another.
const DEPTH_MAX: usize = 200;

/// How a copy treats what is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Files that exist are replaced.
    pub replace: bool,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub files: u64,
    pub directories: u64,
    pub links: u64,
    /// Bytes in files, holes included.
    pub bytes: u64,
    /// Devices, pipes and sockets.
    pub left_out: u64,
}

/// Copies what is at `path` to `destination`, which becomes that file or directory. A directory is
/// copied with all that is in it. `progress` is told of each file.
pub fn copy_out(
    system: &FileSystem,
    path: &[u8],
    destination: &Path,
    options: CopyOptions,
    progress: &mut dyn FnMut(&str, &Copied),
) -> Result<Copied> {
    let mut copy = Copy { system, options, copied: Copied::default(), progress };
    let kind = system.stat(path)?.kind;
    copy.any(path, kind, destination, 0)?;
    Ok(copy.copied)
}

struct Copy<'a> {
    system: &'a FileSystem,
    options: CopyOptions,
    copied: Copied,
    progress: &'a mut dyn FnMut(&str, &Copied),
}

impl Copy<'_> {
    fn any(&mut self, path: &[u8], kind: FileKind, to: &Path, depth: usize) -> Result<()> {
        (self.progress)(&show(path), &self.copied);
        match kind {
            FileKind::File => self.file(path, to),
            FileKind::Directory => self.directory(path, to, depth),
            FileKind::Link => self.link(path, to),
            FileKind::Special => {
                self.copied.left_out += 1;
                Ok(())
            }
        }
    }

    fn file(&mut self, path: &[u8], to: &Path) -> Result<()> {
        let stat = self.system.stat(path)?;
        self.make_way(to)?;
        let mode = stat.mode & 0o777;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode | 0o200)
            .open(to)
            .map_err(|error| outside(to, error))?;
        let mut offset = 0;
        while offset < stat.size_bytes {
            let piece = self.system.read(path, offset, PIECE_BYTES)?;
            if piece.is_empty() {
                let detail = format!("{} is shorter than it says", show(path));
                return Err(FilesError::Damaged { detail });
            }
            write_sparsely(&mut file, offset, &piece).map_err(|error| outside(to, error))?;
            offset += piece.len() as u64;
        }
        let finished = file
            .set_len(stat.size_bytes)
            .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(mode)));
        finished.map_err(|error| outside(to, error))?;
        self.copied.files += 1;
        self.copied.bytes += stat.size_bytes;
        Ok(())
    }

    fn directory(&mut self, path: &[u8], to: &Path, depth: usize) -> Result<()> {
        if depth == DEPTH_MAX {
            let detail = format!("{} lies {DEPTH_MAX} directories deep", show(path));
            return Err(FilesError::Damaged { detail });
        }
        match DirBuilder::new().mode(0o700).create(to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = to.symlink_metadata().map_err(|error| outside(to, error))?;
                if !there.is_dir() {
                    return Err(FilesError::Exists { path: to.display().to_string() });
                }
            }
            made => made.map_err(|error| outside(to, error))?,
        }
        let mut entries = self.system.list(path)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let mut below = path.to_owned();
            if !below.ends_with(b"/") {
                below.push(b'/');
            }
            below.extend_from_slice(&entry.name);
            let to = to.join(std::ffi::OsStr::from_bytes(&entry.name));
            self.any(&below, entry.kind, &to, depth + 1)?;
        }
        let mode = self.system.stat(path)?.mode & 0o777 | 0o700;
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
            .map_err(|error| outside(to, error))?;
        self.copied.directories += 1;
        Ok(())
    }

    fn link(&mut self, path: &[u8], to: &Path) -> Result<()> {
        let target = self.system.link(path)?;
        self.make_way(to)?;
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&target), to)
            .map_err(|error| outside(to, error))?;
        self.copied.links += 1;
        Ok(())
    }

    /// Removes the file or link that is to be replaced; it is never written through.
    fn make_way(&self, to: &Path) -> Result<()> {
        match to.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(outside(to, error)),
            Ok(there) if self.options.replace && !there.is_dir() => {
                std::fs::remove_file(to).map_err(|error| outside(to, error))
            }
            Ok(_) => Err(FilesError::Exists { path: to.display().to_string() }),
        }
    }
}

/// Pages of zeros become holes.
fn write_sparsely(file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    use std::io::Seek;
    let mut at = offset;
    for page in bytes.chunks(PAGE_BYTES) {
        if page.iter().any(|&byte| byte != 0) {
            file.seek(io::SeekFrom::Start(at))?;
            file.write_all(page)?;
        }
        at += page.len() as u64;
    }
    Ok(())
}

fn outside(path: &Path, error: io::Error) -> FilesError {
    FilesError::Outside { path: path.display().to_string(), error }
}
