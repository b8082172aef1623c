//! Puts the recipe's files into a system.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::BuildError;
use crate::recipe::{FileContent, FileEntry};

/// Puts a file into the system. Links on the way are followed as the guest would follow them:
/// the kernel resolves them below `root`, never in the host's file system.
pub(super) fn file(
    root: &Path,
    entry: &FileEntry,
    recipe_dir: &Path,
    origin: &str,
) -> Result<(), BuildError> {
    let path = entry.path.relative();
    let failed =
        |errno: rustix::io::Errno| BuildError::io("writing", root.join(path))(errno.into());
    let folder_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd =
        openat2(CWD, root, folder_flags, Mode::empty(), ResolveFlags::empty()).map_err(failed)?;
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut folder = rustix::io::fcntl_dupfd_cloexec(&root_fd, 0).map_err(failed)?;
    let mut so_far = String::new();
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        so_far = format!("{so_far}/{part}");
        let open =
            || openat2(&root_fd, &*so_far, folder_flags, Mode::empty(), ResolveFlags::IN_ROOT);
        folder = match open() {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&folder, part, Mode::from(0o755)).map_err(failed)?;
                open().map_err(failed)?
            }
            Err(errno) => return Err(failed(errno)),
        };
    }
    // What is there is replaced, also when it is a link: the recipe means this path.
    match rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd =
        openat2(&folder, name, flags, Mode::from(0o600), ResolveFlags::BENEATH).map_err(failed)?;
    let mut file = File::from(fd);
    let io = |doing| BuildError::io(doing, root.join(path));
    let default_mode = match &entry.content {
        FileContent::Text(text) => {
            file.write_all(text.as_bytes()).map_err(io("writing"))?;
            0o644
        }
        FileContent::From(from) => {
            let source = from.open(origin, recipe_dir)?;
            let meta = source.metadata().map_err(io("reading"))?;
            std::io::copy(&mut source.take(meta.len()), &mut file).map_err(io("writing"))?;
            if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 }
        }
    };
    let mode = fs::Permissions::from_mode(entry.mode.unwrap_or(default_mode));
    file.set_permissions(mode).map_err(io("writing"))
}
