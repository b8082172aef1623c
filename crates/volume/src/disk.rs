//! The door through which a volume's own files are reached: a flat directory of files.
//!
//! Everything a volume keeps on this host goes through [`Disk`], so that a test can record every
//! write and every sync, rebuild the directory as it would be after a crash at any point, and
//! make any operation fail.
//!
//! What an implementation promises, and no more (it is what Linux file systems promise):
//! * [`DiskFile::sync`] makes the file's bytes and length durable.
//! * [`Disk::sync_dir`] makes creations, renames and removals durable; a rename is atomic.
//! * What was not synced may be there after a crash, or not, or partly, in any order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

/// One open file. Offsets and lengths are bytes.
pub trait DiskFile: Send + Sync {
    /// Fills `buf` from `offset`; an end of file before that is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether nothing has been written yet.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Gives the space of a range back; it reads as zeros. Only ever a hint.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// A flat directory of files that belongs to one volume alone.
pub trait Disk: Send + Sync {
    /// Creates an empty file, replacing one of the same name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it, atomically.
    fn rename(&self, name: &str, new_name: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Moves a file out of here, to `path` in the host's file system.
    fn give(&self, name: &str, path: &Path) -> io::Result<()>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Where this is, for messages.
    fn location(&self) -> String;
}

/// How long a volume's own files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Until they are removed: what was flushed is there after a crash of the host.
    Always,
    /// As long as this host runs: nothing waits for the disk. After a crash of the host they may be
    /// torn, and must not be opened; those of a process that died are whole.
    WhileRunning,
}

/// A directory of the host's file system, held by an exclusive lock for as long as this lives, so
/// that two processes never write one volume. The kernel drops the lock when a process dies.
pub struct Folder {
    path: PathBuf,
    dir: File,
    keeps: Keeps,
}

impl Folder {
    /// Opens (or creates) and locks the directory. `WouldBlock`: another process has it, and still
    /// had it after [`DYING`].
    pub fn open(path: &Path, keeps: Keeps) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let dir = File::open(path)?;
        let deadline = ambient::now() + DYING;
        loop {
            match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path: path.to_owned(), dir, keeps }),
                Err(Errno::WOULDBLOCK) if ambient::now() < deadline => ambient::sleep(LOOK_AGAIN),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Folder {
    fn kept(&self, file: File) -> Arc<dyn DiskFile> {
        match self.keeps {
            Keeps::Always => Arc::new(file),
            Keeps::WhileRunning => Arc::new(Unsynced(file)),
        }
    }
}

/// A file of [`Keeps::WhileRunning`].
struct Unsynced(File);

impl DiskFile for Unsynced {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        DiskFile::read_at(&self.0, buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        DiskFile::write_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.0)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        DiskFile::set_len(&self.0, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        DiskFile::punch(&self.0, offset, len)
    }
}

/// A process that is gone for whoever looks at it gives its files up only after its memory.
const DYING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Disk for Folder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path.join(name))?;
        Ok(self.kept(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options().read(true).write(true).open(self.path.join(name))?;
        Ok(self.kept(file))
    }

    fn rename(&self, name: &str, new_name: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(name), self.path.join(new_name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn give(&self, name: &str, path: &Path) -> io::Result<()> {
        // Never a copy: across file systems it is cheaper to fetch what is wanted again.
        std::fs::rename(self.path.join(name), path)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.keeps {
            Keeps::Always => self.dir.sync_all(),
            Keeps::WhileRunning => Ok(()),
        }
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }
}

impl DiskFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(self, flags, offset, len)?)
    }
}
