//! Trees: packages unpacked, not configured, kept in the tools folder for the next build.
//!
//! A tree is named by the exact package files in it, so it is never out of date; one that no
//! build has used for a month is removed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::BuildError;
use crate::apt::{Apt, Deb, Used};
use crate::place::{GuestPath, Placed};
use crate::workshop::{Outcome, Workshop, growing, make_dir};

/// Entries that no build has used for this long are removed.
const UNUSED_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The largest file that is read out of a tree.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;

/// Changed whenever the same packages would be unpacked differently.
const LAYOUT: &str = "collective tree 1";

/// The folders that Debian's `usr-is-merged` systems have as links.
pub(crate) const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Unpacks `debs` (or finds them unpacked) and gives the tree's root.
pub(crate) fn unpacked(
    shop: &mut Workshop,
    apt: &Apt,
    what: &str,
    debs: &[Deb],
) -> Result<PathBuf, BuildError> {
    let trees = shop.tools.join("trees");
    make_dir(&trees)?;
    let root = trees.join(name_of(debs));
    if root.exists() {
        touch(&root);
        shop.step(what, Outcome::Reused);
        return Ok(root);
    }
    remove_unused(&trees);
    apt.fetch(shop, debs)?;
    shop.step(what, Outcome::Begun);
    let growing = growing(&trees)?;
    for folder in MERGED {
        make_dir(&growing.join("usr").join(folder))?;
        let link = growing.join(folder);
        symlink(Path::new("usr").join(folder), &link).map_err(BuildError::io("linking", link))?;
    }
    for folder in ["dev", "proc", "mnt", "tmp"] {
        make_dir(&growing.join(folder))?;
    }
    for deb in debs {
        let mut open = shop.command("dpkg-deb");
        open.arg("--fsys-tarfile").arg(apt.path(deb));
        let mut unpack = shop.command("tar");
        unpack.args(["--extract", "--keep-directory-symlink", "--directory"]).arg(&growing);
        shop.pipe(&format!("unpacking {}", deb.file), &mut open, &mut unpack)?;
    }
    fs::rename(&growing, &root).map_err(BuildError::io("keeping", &growing))?;
    touch(&root);
    shop.step(what, Outcome::Done);
    Ok(root)
}

/// Reads a file of a tree as the guest would see it: links are resolved inside the tree.
pub(crate) fn read_in(root: &Path, path: &str) -> Result<Option<Vec<u8>>, BuildError> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let io = |doing| BuildError::io(doing, root.join(path.trim_start_matches('/')));
    let folder =
        openat2(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
            .map_err(|e| io("opening")(e.into()))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match openat2(&folder, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(fd) => {
            let mut bytes = Vec::new();
            let file = fs::File::from(fd);
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io("reading"))?;
            Ok(Some(bytes))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(io("opening")(errno.into())),
    }
}

/// One file of a package, as it is.
pub(crate) fn file_of(
    shop: &mut Workshop,
    apt: &Apt,
    package: &str,
    path: &Placed<GuestPath>,
    origin: &str,
    used: &mut Used,
) -> Result<Vec<u8>, BuildError> {
    // What the package depends on is for a system in which it is installed.
    let mut debs = apt.resolve(shop, &[package])?;
    debs.retain(|deb| deb.name == package);
    used.add(&debs);
    let root = unpacked(shop, apt, &format!("package {package}"), &debs)?;
    read_in(&root, path.value.as_str())?.ok_or_else(|| {
        let message = format!("the package {package} has no file {}", path.value.as_str());
        path.error(origin, message, "`dpkg-deb --contents` lists what is in a package").into()
    })
}

fn name_of(debs: &[Deb]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(LAYOUT.as_bytes());
    for deb in debs {
        hasher.update(deb.file.as_bytes()).update(b"\0");
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The present, as files stamp it.
fn fresh_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ambient::unix_ms())
}

/// Marks an entry as used now. Best effort: it only decides what is removed first.
pub(crate) fn touch(path: &Path) {
    if let Ok(entry) = fs::File::open(path) {
        let _ = entry.set_times(fs::FileTimes::new().set_modified(fresh_time()));
    }
}

/// Removes entries that no build has used for long. Best effort.
pub(crate) fn remove_unused(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|modified| fresh_time().duration_since(modified).ok());
        if age.is_some_and(|age| age > UNUSED_AGE) {
            let path = entry.path();
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}
