//! A finished file takes its place: whole or not at all, and never over another one by mistake.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;

use crate::failure::{Failure, Result};

/// A file that is being made beside its place; gone when it does not get there.
pub struct Growing {
    path: PathBuf,
    place: PathBuf,
    replace: bool,
}

impl Growing {
    /// Begins a file that is to be at `place`.
    pub fn new(place: &Path, replace: bool) -> Result<(Self, File)> {
        if !replace && place.symlink_metadata().is_ok() {
            return Err(taken(place));
        }
        let name = place.file_name().ok_or_else(|| {
            Failure::new("usage", format!("{} is no file's name", place.display()), "name a file")
        })?;
        let tag = u64::from_le_bytes(ambient::random());
        let path = place.with_file_name(format!(".{}.{tag:016x}", name.to_string_lossy()));
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| Failure::from(error).during(place.display()))?;
        Ok((Self { path, place: place.to_owned(), replace }, file))
    }

    /// Takes a file that is made elsewhere instead of the one begun.
    pub fn take(&self, made: &Path) -> Result<()> {
        let mode = fs::metadata(&self.path)?.permissions().mode();
        fs::set_permissions(made, fs::Permissions::from_mode(mode))?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        chown(made, Some(uid.as_raw()), Some(gid.as_raw()))?;
        match fs::rename(made, &self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                let mut source = File::open(made)?;
                let mut target = File::create(&self.path)?;
                std::io::copy(&mut source, &mut target)?;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Puts it in its place, durably. Gives its length, bytes.
    pub fn finish(self) -> Result<u64> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        let flags = if self.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let here = rustix::fs::CWD;
        match rustix::fs::renameat_with(here, &self.path, here, &self.place, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(taken(&self.place)),
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // After it took its place there is nothing left under this name.
        let _ = fs::remove_file(&self.path);
    }
}

fn taken(place: &Path) -> Failure {
    Failure::new(
        "exists",
        format!("{} is there already", place.display()),
        "name another file, or replace it with --force",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let (growing, mut file) = Growing::new(&place, false).unwrap();
        file.write_all(b"half").unwrap();
        drop(growing);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let (growing, mut file) = Growing::new(&place, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(growing.finish().unwrap(), 5);
        assert_eq!(Growing::new(&place, false).err().unwrap().kind, "exists");

        // Another one came first: it stays.
        let other = folder.path().join("other");
        let (growing, _) = Growing::new(&other, false).unwrap();
        fs::write(&other, "theirs").unwrap();
        assert_eq!(growing.finish().unwrap_err().kind, "exists");
        assert_eq!(fs::read(&other).unwrap(), b"theirs");

        let made = folder.path().join("made");
        fs::write(&made, "new").unwrap();
        let (growing, _) = Growing::new(&place, true).unwrap();
        growing.take(&made).unwrap();
        assert_eq!(growing.finish().unwrap(), 3);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
