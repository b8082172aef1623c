//! A store in a folder of a local (or network) file system.
//!
//! An object is staged as `tmp/<random>`, synced, and *linked* to its name: `link(2)` fails when
//! the name is taken, on every file system, which is the create-if-absent that refs need. Then
//! the directory is synced: when [`Objects::put_new`] returns, object and name are durable.
//!
//! Crash: what a dead writer left lies under `tmp/`, is never listed, and [`Objects::sweep`]
//! removes it by comparing its time with that of a file written now: the same file system's
//! clock on both sides.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use crate::key::{STAGING, check_key, check_prefix};
use crate::{Features, ObjectError, ObjectMeta, Objects};

/// A store in a folder.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
}

/// A staged file that is removed unless it was moved away.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already when it was renamed; if it cannot be removed, `sweep` will.
        let _ = fs::remove_file(&self.0);
    }
}

impl Folder {
    /// Opens an existing folder.
    pub fn open(root: &Path) -> Result<Self, ObjectError> {
        let folder = Self { root: root.to_owned() };
        match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => Ok(folder),
            Ok(_) => Err(ObjectError::Invalid { text: folder.location(), expected: "a folder" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ObjectError::NoFolder { location: folder.location() })
            }
            Err(error) => Err(ObjectError::from_io(&folder.location(), "it", &error)),
        }
    }

    /// Opens a folder, making it if it is not there.
    pub fn create(root: &Path) -> Result<Self, ObjectError> {
        create_dirs(root)
            .map_err(|e| ObjectError::from_io(&root.display().to_string(), "the folder", &e))?;
        Self::open(root)
    }

    /// The file that holds an object.
    pub fn path_of(&self, key: &str) -> Result<PathBuf, ObjectError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    fn error(&self, key: &str) -> impl Fn(io::Error) -> ObjectError {
        let (location, key) = (self.location(), key.to_owned());
        move |error| ObjectError::from_io(&location, &key, &error)
    }

    fn stage(&self, bytes: &[u8], durable: bool) -> io::Result<Staged> {
        let dir = self.root.join(STAGING);
        let name: String = ambient::random::<16>().iter().map(|b| format!("{b:02x}")).collect();
        let staged = Staged(dir.join(name));
        let create = || OpenOptions::new().write(true).create_new(true).open(&staged.0);
        let mut file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                fs::create_dir_all(&dir)?;
                create()?
            }
            other => other?,
        };
        file.write_all(bytes)?;
        if durable {
            file.sync_data()?;
        }
        Ok(staged)
    }

    fn publish(
        &self,
        path: &Path,
        act: impl Fn(&Path) -> io::Result<()>,
        durable: bool,
    ) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.root);
        match act(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_dirs(parent)?;
                act(path)?;
            }
            other => other?,
        }
        if durable { File::open(parent)?.sync_all() } else { Ok(()) }
    }

    fn write_over(&self, key: &str, bytes: &[u8], durable: bool) -> Result<(), ObjectError> {
        let path = self.path_of(key)?;
        let staged = self.stage(bytes, durable).map_err(self.staging_error(key))?;
        self.publish(&path, |path| fs::rename(&staged.0, path), durable).map_err(self.error(key))
    }

    fn meta(&self, key: String, meta: &fs::Metadata) -> ObjectMeta {
        let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        ObjectMeta {
            key,
            bytes: meta.len(),
            modified_unix_ms: modified.map_or(0, |d| d.as_millis() as u64),
        }
    }

    fn collect(&self, dir: &Path, prefix: &str, out: &mut Vec<ObjectMeta>) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if check_key(&key).is_err() {
                continue;
            }
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => self.collect(&entry.path(), &key, out)?,
                Ok(meta) if meta.is_file() => out.push(self.meta(key, &meta)),
                Ok(_) => {}
                // Deleted while we were listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Makes a directory and its parents, each entry durable in its parent.
fn create_dirs(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dirs(dir.parent().ok_or(error)?)?;
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

impl Objects for Folder {
    fn get(&self, key: &str, bytes_max: u64) -> Result<Bytes, ObjectError> {
        let file = File::open(self.path_of(key)?).map_err(self.error(key))?;
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(self.error(key))?;
        if bytes.len() as u64 > bytes_max {
            return Err(ObjectError::TooLarge { key: key.to_owned(), bytes_max });
        }
        Ok(bytes.into())
    }

    fn get_range(&self, key: &str, offset: u64, bytes: u64) -> Result<Bytes, ObjectError> {
        let truncated = |found| ObjectError::Truncated {
            key: key.to_owned(),
            wanted: offset.saturating_add(bytes),
            found,
        };
        // The kernel's offsets are signed.
        if bytes > crate::OBJECT_BYTES_MAX || offset > (i64::MAX as u64) - bytes {
            return Err(truncated(0));
        }
        let file = File::open(self.path_of(key)?).map_err(self.error(key))?;
        let mut buffer = vec![0; bytes as usize];
        match file.read_exact_at(&mut buffer, offset) {
            Ok(()) => Ok(buffer.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(truncated(file.metadata().map_or(0, |m| m.len())))
            }
            Err(error) => Err(self.error(key)(error)),
        }
    }

    fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let path = self.path_of(key)?;
        let staged = self.stage(&bytes, true).map_err(self.staging_error(key))?;
        self.publish(&path, |path| fs::hard_link(&staged.0, path), true).map_err(self.error(key))
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write_over(key, &bytes, false)
    }

    fn replace(&self, key: &str, bytes: Bytes) -> Result<(), ObjectError> {
        self.write_over(key, &bytes, true)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, ObjectError> {
        check_prefix(prefix)?;
        if !self.root.is_dir() {
            return Err(self.vanished());
        }
        let mut objects = Vec::new();
        self.collect(&self.root.join(prefix), prefix, &mut objects).map_err(self.error(prefix))?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn list_names(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        check_prefix(prefix)?;
        if !self.root.is_dir() {
            return Err(self.vanished());
        }
        let entries = match fs::read_dir(self.root.join(prefix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(self.error(prefix))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let Ok(name) = entry.map_err(self.error(prefix))?.file_name().into_string() else {
                continue;
            };
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if check_key(&key).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn head(&self, key: &str) -> Result<ObjectMeta, ObjectError> {
        let meta = fs::metadata(self.path_of(key)?).map_err(self.error(key))?;
        if !meta.is_file() {
            return Err(ObjectError::NotFound { key: key.to_owned() });
        }
        Ok(self.meta(key.to_owned(), &meta))
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match fs::remove_file(self.path_of(key)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(key)(error)),
            _ => Ok(()),
        }
    }

    fn features(&self) -> Features {
        Features { list: true, write: true }
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn sweep(&self, age_ms: u64) -> Result<(), ObjectError> {
        let error = self.error(STAGING);
        let marker = self.stage(b"", false).map_err(self.staging_error(STAGING))?;
        let now = fs::metadata(&marker.0).and_then(|m| m.modified()).map_err(&error)?;
        for entry in fs::read_dir(self.root.join(STAGING)).map_err(&error)?.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).map(|t| now.duration_since(t));
            if let Ok(Ok(age)) = age
                && age.as_millis() as u64 >= age_ms
                && entry.path() != marker.0
            {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl Folder {
    fn vanished(&self) -> ObjectError {
        ObjectError::Unavailable {
            location: self.location(),
            detail: "the folder is not there (not mounted?)".to_owned(),
        }
    }

    /// Staging fails with `NotFound` only when the whole folder is gone (unmounted): that is
    /// the store's absence, not the object's.
    fn staging_error(&self, key: &str) -> impl Fn(io::Error) -> ObjectError {
        let (error, vanished) = (self.error(key), self.vanished());
        move |e| if e.kind() == io::ErrorKind::NotFound { vanished.clone() } else { error(e) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_writer_left_is_swept_and_never_listed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("a/b")).unwrap();
        folder.put_new("x/y", Bytes::from_static(b"1")).unwrap();
        let left = dir.path().join("a/b/tmp/dead");
        fs::write(&left, b"half").unwrap();
        assert_eq!(folder.list("").unwrap().len(), 1);
        assert_eq!(folder.list_names("").unwrap(), ["x"]);
        folder.sweep(3_600_000).unwrap();
        assert!(left.exists());
        folder.sweep(0).unwrap();
        assert!(!left.exists());
        assert_eq!(fs::read_dir(dir.path().join("a/b/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_vanished_is_unavailable_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        let folder = Folder::create(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(folder.list("").unwrap_err().is_transient());
        assert!(folder.put_new("a", Bytes::new()).unwrap_err().is_transient());
        assert!(matches!(Folder::open(&root), Err(ObjectError::NoFolder { .. })));
    }
}
