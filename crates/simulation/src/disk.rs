//! A volume's folder in memory, and what a power cut leaves of it: what was not synced is kept,
//! lost, or torn at sectors, in any order.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use volume::{Disk, DiskFile};

use crate::chance::Chance;
use crate::world::World;

#[derive(Debug, Clone)]
enum Act {
    Create { name: String, inode: u64 },
    Rename { name: String, new_name: String },
    Remove { name: String },
    Write { inode: u64, offset: u64, bytes: Vec<u8> },
    SetLen { inode: u64, len: u64 },
    Punch { inode: u64, offset: u64, len: u64 },
}

#[derive(Debug, Clone, Default)]
struct Image {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    fn apply(&mut self, act: &Act) {
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
            Act::Remove { name } => {
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
        }
    }

    fn inode(act: &Act) -> Option<u64> {
        match act {
            Act::Write { inode, .. } | Act::SetLen { inode, .. } | Act::Punch { inode, .. } => {
                Some(*inode)
            }
            _ => None,
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

#[derive(Default)]
struct Inner {
    now: Image,
    durable: Image,
    names: Vec<Act>,
    bytes: Vec<Act>,
    inodes: u64,
}

/// A folder. Clones are the same one.
#[derive(Clone, Default)]
pub struct Folder(Arc<Mutex<Inner>>);

impl Folder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes.
    pub fn cut(&self, unsynced: Unsynced, chance: &mut Chance) {
        let mut inner = self.lock();
        let names = std::mem::take(&mut inner.names);
        let bytes = std::mem::take(&mut inner.bytes);
        let mut image = std::mem::take(&mut inner.durable);
        for act in names.iter().chain(&bytes) {
            match (unsynced, act) {
                (Unsynced::Kept, act) => image.apply(act),
                (Unsynced::Lost, _) => {}
                (Unsynced::Torn, Act::Write { inode, offset, bytes }) => {
                    for (n, sector) in bytes.chunks(512).enumerate() {
                        if chance.is(500) {
                            let (offset, bytes) = (offset + n as u64 * 512, sector.to_vec());
                            image.apply(&Act::Write { inode: *inode, offset, bytes });
                        }
                    }
                }
                (Unsynced::Torn, act) => {
                    if chance.is(500) {
                        image.apply(act);
                    }
                }
            }
        }
        inner.now = image.clone();
        inner.durable = image;
    }
}

/// A folder as one life of a host reaches it.
pub struct Opened {
    pub folder: Folder,
    pub world: Arc<World>,
    pub host: usize,
    pub life: u64,
}

struct File {
    opened: Arc<Opened>,
    inode: u64,
}

impl Opened {
    fn act(&self, what: &str, act: Act) -> io::Result<()> {
        let grows = matches!(act, Act::Create { .. } | Act::Write { .. });
        if !self.world.point(self.host, self.life, what) {
            return Err(io::Error::other("the host is dead"));
        }
        if grows && self.world.state().fates[self.host].full {
            *self.world.state().faults.entry("disk full").or_default() += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut inner = self.folder.lock();
        inner.now.apply(&act);
        match Image::inode(&act) {
            Some(_) => inner.bytes.push(act),
            None => inner.names.push(act),
        }
        Ok(())
    }
}

/// [`Disk`] needs to hand out what it is, shared.
pub struct Door(pub Arc<Opened>);

impl Disk for Door {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = {
            let mut inner = self.0.folder.lock();
            inner.inodes += 1;
            inner.inodes
        };
        self.0.act("disk: create", Act::Create { name: name.to_owned(), inode })?;
        Ok(Arc::new(File { opened: self.0.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.0.folder.lock().now.names.get(name).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(File { opened: self.0.clone(), inode }))
    }

    fn rename(&self, name: &str, new_name: &str) -> io::Result<()> {
        let act = Act::Rename { name: name.to_owned(), new_name: new_name.to_owned() };
        self.0.act("disk: rename", act)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.act("disk: remove", Act::Remove { name: name.to_owned() })
    }

    fn give(&self, name: &str, path: &Path) -> io::Result<()> {
        let bytes = {
            let inner = self.0.folder.lock();
            let inode = inner.now.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
            inner.now.files.get(&inode).cloned().unwrap_or_default()
        };
        self.0.act("disk: give", Act::Remove { name: name.to_owned() })?;
        std::fs::write(path, bytes)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.folder.lock().now.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        if !self.0.world.point(self.0.host, self.0.life, "disk: sync folder") {
            return Err(io::Error::other("the host is dead"));
        }
        let mut inner = self.0.folder.lock();
        for act in std::mem::take(&mut inner.names) {
            inner.durable.apply(&act);
        }
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

impl DiskFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.opened.folder.lock();
        let file = inner.now.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let act = Act::Write { inode: self.inode, offset, bytes: bytes.to_vec() };
        self.opened.act("disk: write", act)
    }

    fn sync(&self) -> io::Result<()> {
        let opened = &self.opened;
        if !opened.world.point(opened.host, opened.life, "disk: sync") {
            return Err(io::Error::other("the host is dead"));
        }
        let mut inner = opened.folder.lock();
        let (mine, others) = std::mem::take(&mut inner.bytes)
            .into_iter()
            .partition(|act| Image::inode(act) == Some(self.inode));
        inner.bytes = others;
        let mine: Vec<Act> = mine;
        mine.iter().for_each(|act| inner.durable.apply(act));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.opened.folder.lock();
        Ok(inner.now.files.get(&self.inode).map_or(0, Vec::len) as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.opened.act("disk: length", Act::SetLen { inode: self.inode, len })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.opened.act("disk: punch", Act::Punch { inode: self.inode, offset, len })
    }
}
