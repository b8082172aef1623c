//! A volume's folder in memory, for tests and the simulation: everything that is done to it can be
//! refused or recorded, and a power cut leaves what [`Disk`] promises and no more.
//!
//! *Invariants.* A [`Gate`] sees each act before it is done and, under the folder's lock, when it is. What
//! was not synced is kept, lost, or torn at sectors, in any order.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Disk, DiskFile};

/// One thing that is done to a folder.
#[derive(Debug, Clone)]
pub enum Act {
    Create {
        name: String,
        inode: u64,
    },
    Rename {
        name: String,
        new_name: String,
    },
    Remove {
        name: String,
    },
    /// Removed, because it was moved to another place.
    Give {
        name: String,
    },
    Write {
        inode: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        inode: u64,
        len: u64,
    },
    Punch {
        inode: u64,
        offset: u64,
        len: u64,
    },
    Sync {
        inode: u64,
    },
    SyncDir,
}

impl Act {
    /// The file whose bytes it changes.
    fn inode(&self) -> Option<u64> {
        match self {
            Self::Write { inode, .. } | Self::SetLen { inode, .. } | Self::Punch { inode, .. } => {
                Some(*inode)
            }
            _ => None,
        }
    }
}

/// Names and files.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub names: BTreeMap<String, u64>,
    pub files: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    pub fn apply(&mut self, act: &Act) {
        match act {
            Act::Create { name, inode } => {
                self.names.insert(name.clone(), *inode);
                self.files.entry(*inode).or_default();
            }
            Act::Rename { name, new_name } => {
                if let Some(inode) = self.names.remove(name) {
                    self.names.insert(new_name.clone(), inode);
                }
            }
            Act::Remove { name } | Act::Give { name } => {
                self.names.remove(name);
            }
            Act::Write { inode, offset, bytes } => {
                let file = self.files.entry(*inode).or_default();
                let end = *offset as usize + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset as usize..end].copy_from_slice(bytes);
            }
            Act::SetLen { inode, len } => {
                self.files.entry(*inode).or_default().resize(*len as usize, 0);
            }
            Act::Punch { inode, offset, len } => {
                let file = self.files.entry(*inode).or_default();
                let end = ((offset + len) as usize).min(file.len());
                let start = (*offset as usize).min(end);
                file[start..end].fill(0);
            }
            Act::Sync { .. } | Act::SyncDir => {}
        }
    }
}

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    Kept,
    Lost,
    /// Each sector of each write, and each change of a name, is kept or lost.
    Torn,
}

/// What is durable, and what was done since.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    pub image: Image,
    pub names: Vec<Act>,
    bytes: Vec<Act>,
}

impl Durable {
    pub fn of(image: Image) -> Self {
        Self { image, ..Self::default() }
    }

    /// Something was done.
    pub fn add(&mut self, act: Act) {
        match act {
            Act::SyncDir => self.names.drain(..).for_each(|act| self.image.apply(&act)),
            Act::Sync { inode } => {
                let is_of = |act: &Act| act.inode() == Some(inode);
                let (synced, others) = std::mem::take(&mut self.bytes).into_iter().partition(is_of);
                self.bytes = others;
                let synced: Vec<Act> = synced;
                synced.iter().for_each(|act| self.image.apply(act));
            }
            act if act.inode().is_some() => self.bytes.push(act),
            act => self.names.push(act),
        }
    }

    /// The power goes: what is there afterwards. What is torn, `keeps` decides piece by piece.
    pub fn cut(mut self, unsynced: Unsynced, keeps: &mut dyn FnMut() -> bool) -> Image {
        for act in self.names.iter().chain(&self.bytes) {
            match (unsynced, act) {
                (Unsynced::Kept, act) => self.image.apply(act),
                (Unsynced::Lost, _) => {}
                (Unsynced::Torn, Act::Write { inode, offset, bytes }) => {
                    for (n, sector) in bytes.chunks(512).enumerate() {
                        if keeps() {
                            let (offset, bytes) = (offset + n as u64 * 512, sector.to_vec());
                            self.image.apply(&Act::Write { inode: *inode, offset, bytes });
                        }
                    }
                }
                (Unsynced::Torn, act) => {
                    if keeps() {
                        self.image.apply(act);
                    }
                }
            }
        }
        self.image
    }
}

/// Who is asked before anything is done, and told when it is.
pub trait Gate: Send + Sync {
    /// Whether it may be done.
    fn pass(&self, act: &Act) -> io::Result<()>;
    /// It was done. The folder is locked.
    fn done(&self, act: Act);
}

/// The bytes of a folder, whoever reaches it. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Bytes(Arc<Mutex<(Image, u64)>>);

impl Bytes {
    pub fn of(image: Image) -> Self {
        let inodes = image.files.keys().max().map_or(0, |n| n + 1);
        Self(Arc::new(Mutex::new((image, inodes))))
    }

    fn lock(&self) -> MutexGuard<'_, (Image, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn image(&self) -> Image {
        self.lock().0.clone()
    }

    /// Changes it behind everybody's back.
    pub fn change(&self, change: impl FnOnce(&mut Image)) {
        change(&mut self.lock().0);
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        let inode = self.lock().0.names.get(name).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A folder as it is reached through a gate. Clones are the same one.
pub struct MemoryDisk<G> {
    pub bytes: Bytes,
    pub gate: Arc<G>,
}

impl<G> Clone for MemoryDisk<G> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), gate: self.gate.clone() }
    }
}

impl<G: Gate> MemoryDisk<G> {
    fn act(&self, act: Act) -> io::Result<()> {
        self.gate.pass(&act)?;
        let mut inner = self.bytes.lock();
        inner.0.apply(&act);
        self.gate.done(act);
        Ok(())
    }
}

struct MemoryFile<G> {
    disk: MemoryDisk<G>,
    inode: u64,
}

impl<G: Gate + 'static> Disk for MemoryDisk<G> {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = {
            let mut inner = self.bytes.lock();
            inner.1 += 1;
            inner.1
        };
        self.act(Act::Create { name: name.to_owned(), inode })?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.bytes.inode(name)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn rename(&self, name: &str, new_name: &str) -> io::Result<()> {
        self.act(Act::Rename { name: name.to_owned(), new_name: new_name.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.act(Act::Remove { name: name.to_owned() })
    }

    fn give(&self, name: &str, path: &Path) -> io::Result<()> {
        let inode = self.bytes.inode(name)?;
        let bytes = self.bytes.lock().0.files.get(&inode).cloned().unwrap_or_default();
        self.act(Act::Give { name: name.to_owned() })?;
        std::fs::write(path, bytes)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.bytes.lock().0.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.act(Act::SyncDir)
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

impl<G: Gate + 'static> DiskFile for MemoryFile<G> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.bytes.lock();
        let file = inner.0.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.act(Act::Write { inode: self.inode, offset, bytes: bytes.to_vec() })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.act(Act::Sync { inode: self.inode })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.bytes.lock().0.files.get(&self.inode).map_or(0, Vec::len) as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.act(Act::SetLen { inode: self.inode, len })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.act(Act::Punch { inode: self.inode, offset, len })
    }
}
