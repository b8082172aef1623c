//! Looking into a checkpoint without running it: its disks as files, and the files on them.
//!
//! ```text
//! /system.raw  /data.raw  /memory.raw     the volumes, whole
//! /system/etc/hostname                    the files of a disk without partitions
//! /system/p1/...                          of one with a partition table
//! ```
//! *Invariants.* Nothing is written anywhere. A page is fetched when somebody looks at it, and is
//! checked as always. What a guest wrote on its disks is parsed by `files`, never by the kernel.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use export::{Node, NodeKind, Tree};
use files::{FileKind, FileStat, FileSystem, FilesError, Part};
use model::{CheckpointId, ManifestId, Name};
use volume::{Cache, Fetcher, View};

use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::shim::claim;
use crate::store::Store;

/// Threads that fetch.
const FETCH_THREADS: usize = 4;
/// The name of the memory beside the disks.
const MEMORY: &str = "memory";

/// What a person named: `NAME` or `NAME@CHECKPOINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: Name,
    /// An id, the first digits of it, or a label; none: the last checkpoint.
    pub checkpoint: Option<String>,
}

impl Subject {
    /// Reads `NAME` or `NAME@CHECKPOINT`.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, checkpoint) = match text.split_once('@') {
            Some((name, checkpoint)) => (name, Some(checkpoint.to_owned())),
            None => (text, None),
        };
        let wrong = |detail: String| {
            let hint = "write NAME or NAME@CHECKPOINT; `collective history NAME` lists checkpoints";
            Failure::new("usage", detail, hint)
        };
        if checkpoint.as_deref() == Some("") {
            return Err(wrong(format!("{text:?} names no checkpoint after the @")));
        }
        let name = Name::new(name).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { name, checkpoint })
    }
}

/// One disk, or the memory, of a checkpoint.
struct Volume {
    name: String,
    view: Arc<View>,
    /// What could be read of its file systems when somebody first looked.
    systems: Mutex<Option<Arc<Systems>>>,
    /// Why a file system on it cannot be read, if there is such a one.
    unread: Mutex<Option<String>>,
}

/// The file systems of a disk, by the name of their part.
type Systems = Vec<(String, Arc<FileSystem>)>;

/// A checkpoint (or a version that nobody has written to yet), open to look at.
pub struct Inside {
    /// None: the instance has none yet, and what is seen is its version.
    pub checkpoint: Option<CheckpointId>,
    /// When it was taken, milliseconds since the Unix epoch.
    pub taken_unix_ms: Option<u64>,
    volumes: Vec<Volume>,
}

/// A path on one of its file systems.
pub struct Place {
    pub system: Arc<FileSystem>,
    pub path: Vec<u8>,
    /// The disk that it is on.
    pub disk: String,
}

impl Inside {
    /// Opens what `subject` names.
    pub fn open(host: &HostDir, store: &Store, subject: &Subject) -> Result<Self> {
        let name = &subject.name;
        let Some((_, head)) = store.head(name)?.head else { return Err(claim::not_found(name)) };
        let id = match &subject.checkpoint {
            Some(wanted) => Some(store.find_checkpoint(&head, wanted)?),
            None => head.checkpoint,
        };
        let checkpoint = id.map(|id| store.checkpoint(id)).transpose()?;
        let version_id = checkpoint.as_ref().map_or(head.version, |checkpoint| checkpoint.version);
        let version = store.version(version_id)?;
        let cache = Arc::new(Cache::open(&host.folder("cache")?, host.cache_bytes_max())?);
        let fetcher = Arc::new(Fetcher::new(cache, store.source(), FETCH_THREADS));
        let (disks, memory) = match &checkpoint {
            Some(checkpoint) => (checkpoint.disks.as_slice(), checkpoint.memory.as_ref()),
            None => (version.first_disks(head.warm), version.first_memory(head.warm)),
        };
        let mut volumes = Vec::new();
        let disks = version.hardware.disks.iter().zip(disks).filter(|(spec, _)| spec.is_disk());
        for (spec, manifest) in disks {
            volumes.push(Volume::open(name, &spec.name, *manifest, &fetcher)?);
        }
        if let Some(memory) = memory {
            volumes.push(Volume::open(name, MEMORY, memory.ram, &fetcher)?);
        }
        let taken_unix_ms = checkpoint.map(|checkpoint| checkpoint.taken_unix_ms);
        Ok(Self { checkpoint: id, taken_unix_ms, volumes })
    }

    /// Finds a path of the guest's: on the disk that is named (`data:/notes`), else on the first
    /// disk that has it, else below the name of a disk (`/data/notes`), as appliances mount them.
    pub fn find(&self, disk: Option<&str>, path: &str) -> Result<Place> {
        let disks = || self.volumes.iter().filter(|volume| volume.name != MEMORY);
        if let Some(disk) = disk {
            let Some(volume) = disks().find(|volume| volume.name == disk) else {
                let names: Vec<_> = disks().map(|volume| volume.name.as_str()).collect();
                let hint = format!("its disks are {}", names.join(", "));
                return Err(Failure::new("not_found", format!("there is no disk {disk:?}"), hint));
            };
            return volume.find(path);
        }
        let (mut first, mut unreadable) = (None, None);
        for volume in disks() {
            match volume.find(path) {
                Ok(place) => return Ok(place),
                // A disk that cannot be read must not look like one that lacks the file.
                Err(failure) if failure.kind == "not_found" => drop(first.get_or_insert(failure)),
                Err(failure) => unreadable = Some(failure),
            }
        }
        let below = path.trim_start_matches('/');
        for volume in disks() {
            if let Some(inner) = below.strip_prefix(volume.name.as_str())
                && (inner.is_empty() || inner.starts_with('/'))
                && let Ok(place) = volume.find(if inner.is_empty() { "/" } else { inner })
            {
                return Ok(place);
            }
        }
        Err(unreadable.or(first).unwrap_or_else(|| {
            Failure::new("not_found", "it has no disks", "`collective inspect NAME` shows it")
        }))
    }

    /// The names of its disks.
    pub fn disks(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().map(|volume| volume.name.as_str()).filter(|name| *name != MEMORY)
    }

    fn volume(&self, name: &[u8]) -> io::Result<&Volume> {
        let found = self.volumes.iter().find(|volume| volume.name.as_bytes() == name);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn when(&self) -> i64 {
        (self.taken_unix_ms.unwrap_or(0) / 1000) as i64
    }
}

impl Volume {
    fn open(
        instance: &Name,
        name: &str,
        manifest: ManifestId,
        fetcher: &Arc<Fetcher>,
    ) -> Result<Self> {
        let view = View::open(&format!("{instance}/{name}"), manifest, fetcher.clone())?;
        Ok(Self {
            name: name.to_owned(),
            view: Arc::new(view),
            systems: Mutex::default(),
            unread: Mutex::default(),
        })
    }

    /// Its file systems; read once.
    fn systems(&self) -> Result<Arc<Systems>, FilesError> {
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*systems {
            return Ok(known.clone());
        }
        let disk: Arc<dyn files::Disk> = Arc::new(Bytes(self.view.clone()));
        let mut found = Vec::new();
        if self.name != MEMORY {
            for part in files::parts(&*disk)? {
                match FileSystem::open(disk.clone(), &part) {
                    Ok(system) => found.push((Part::name(&part), Arc::new(system))),
                    // Another kind of file system: the disk as a whole can still be had.
                    Err(FilesError::Unknown { detail }) => {
                        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
                        unread.get_or_insert(detail);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let found = Arc::new(found);
        *systems = Some(found.clone());
        Ok(found)
    }

    fn find(&self, path: &str) -> Result<Place> {
        let failed = |error| failure(&self.name, error);
        let systems = self.systems().map_err(failed)?;
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let detail = unread.unwrap_or_else(|| "it has none that is known".to_owned());
        let mut last = FilesError::Unknown { detail };
        for (_, system) in systems.iter() {
            match system.follow(path.as_bytes()).and_then(|path| {
                system.stat(&path)?;
                Ok(path)
            }) {
                Ok(path) => {
                    return Ok(Place { system: system.clone(), path, disk: self.name.clone() });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }
}

/// What is wrong with a disk, for a person.
pub fn failure(disk: &str, error: FilesError) -> Failure {
    let (kind, hint) = match &error {
        FilesError::NotFound { .. } => ("not_found", "`collective mount NAME DIR` lets you look"),
        FilesError::WrongKind { .. } => ("usage", "`collective mount NAME DIR` lets you look"),
        FilesError::Unknown { .. } => (
            "format",
            "`collective mount NAME DIR` shows the whole disk as DISK.raw; other programs may read it",
        ),
        FilesError::Damaged { .. } => (
            "damaged",
            "the guest's own file system is damaged; an older checkpoint may be whole, or mount it and use fsck on a copy of DISK.raw",
        ),
        FilesError::Disk { .. } => ("unavailable", "try again when the repository can be reached"),
        FilesError::Exists { .. } => ("exists", "--force replaces files"),
        FilesError::Outside { error, .. } if error.kind() == io::ErrorKind::StorageFull => {
            ("no_space", "free some space")
        }
        _ => ("io", "choose another place to copy to"),
    };
    let message = match &error {
        FilesError::Outside { .. } | FilesError::Exists { .. } => error.to_string(),
        _ => format!("disk {disk}: {error}"),
    };
    Failure::new(kind, message, hint)
}

/// A view as `files` wants to read it.
pub struct Bytes(pub Arc<View>);

/// Everything in a file system, parents before children; what cannot be read is told, and left out.
pub fn walk(
    system: &FileSystem,
    most: usize,
    depth_max: usize,
    lost: &mut dyn FnMut(&FilesError),
) -> Vec<(Vec<u8>, FileStat)> {
    let mut found = Vec::new();
    let mut next = vec![(b"/".to_vec(), 0)];
    while let Some((folder, depth)) = next.pop() {
        let entries = system.list(&folder).unwrap_or_else(|error| {
            lost(&error);
            Vec::new()
        });
        for entry in entries {
            let slash: &[u8] = if folder.ends_with(b"/") { b"" } else { b"/" };
            let path = [&folder, slash, &entry.name].concat();
            let stat = match system.stat(&path) {
                Ok(stat) => stat,
                Err(error) => {
                    lost(&error);
                    continue;
                }
            };
            if found.len() >= most {
                return found;
            }
            if stat.kind == FileKind::Directory && depth < depth_max {
                next.push((path.clone(), depth + 1));
            }
            found.push((path, stat));
        }
    }
    found
}

impl files::Disk for Bytes {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf).map_err(io::Error::other)
    }
}

/// Where a path of the tree leads.
enum Spot<'a> {
    Root,
    Raw(&'a Volume),
    /// The directory of a disk with several parts.
    Parts(Arc<Systems>),
    Inner(Arc<FileSystem>, Vec<u8>),
}

impl Inside {
    fn spot(&self, path: &[u8]) -> io::Result<Spot<'_>> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if path.is_empty() {
            return Ok(Spot::Root);
        }
        let (first, rest) = cut(path);
        if let Some(name) = first.strip_suffix(b".raw") {
            return if rest.is_empty() {
                self.volume(name).map(Spot::Raw)
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            };
        }
        let systems = self.volume(first)?.systems().map_err(io_error)?;
        match systems.as_slice() {
            [] => Err(io::ErrorKind::NotFound.into()),
            [(part, system)] if part.is_empty() => Ok(inner(system, rest)),
            _ if rest.is_empty() => Ok(Spot::Parts(systems)),
            _ => {
                let (part, rest) = cut(rest);
                let found = systems.iter().find(|(name, _)| name.as_bytes() == part);
                let (_, system) = found.ok_or(io::ErrorKind::NotFound)?;
                Ok(inner(system, rest))
            }
        }
    }
}

fn inner(system: &Arc<FileSystem>, rest: &[u8]) -> Spot<'static> {
    Spot::Inner(system.clone(), [b"/", rest].concat())
}

/// The first name of a path, and the rest.
fn cut(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, &[]),
    }
}

impl Tree for Inside {
    fn node(&self, path: &[u8]) -> io::Result<Node> {
        let node = |kind, size_bytes, mode| Node {
            kind,
            size_bytes,
            mode,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            modified_unix_s: self.when(),
        };
        match self.spot(path)? {
            Spot::Root | Spot::Parts(_) => Ok(node(NodeKind::Directory, 0, 0o500)),
            Spot::Raw(volume) => Ok(node(NodeKind::File, volume.view.size_bytes(), 0o400)),
            Spot::Inner(system, path) => system.stat(&path).map(node_of).map_err(io_error),
        }
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, NodeKind)>> {
        match self.spot(path)? {
            Spot::Root => {
                let mut names = Vec::new();
                for volume in &self.volumes {
                    let raw = format!("{}.raw", volume.name).into_bytes();
                    names.push((raw, NodeKind::File));
                    // One that cannot be read is not there as a directory.
                    if volume.systems().is_ok_and(|systems| !systems.is_empty()) {
                        names.push((volume.name.clone().into_bytes(), NodeKind::Directory));
                    }
                }
                Ok(names)
            }
            Spot::Parts(systems) => {
                let part =
                    |(name, _): &(String, _)| (name.clone().into_bytes(), NodeKind::Directory);
                Ok(systems.iter().map(part).collect())
            }
            Spot::Raw(_) => Err(io::ErrorKind::NotADirectory.into()),
            Spot::Inner(system, path) => {
                let entries = system.list(&path).map_err(io_error)?;
                Ok(entries.into_iter().map(|entry| (entry.name, kind_of(entry.kind))).collect())
            }
        }
    }

    fn link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        match self.spot(path)? {
            Spot::Inner(system, path) => system.link(&path).map_err(io_error),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn read(&self, path: &[u8], offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        match self.spot(path)? {
            Spot::Raw(volume) => {
                let left = volume.view.size_bytes().saturating_sub(offset);
                let mut content = vec![0; bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
                volume.view.read_at(offset, &mut content).map_err(io::Error::other)?;
                Ok(content)
            }
            Spot::Inner(system, path) => system.read(&path, offset, bytes).map_err(io_error),
            Spot::Root | Spot::Parts(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

fn node_of(stat: FileStat) -> Node {
    Node {
        kind: kind_of(stat.kind),
        size_bytes: stat.size_bytes,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        modified_unix_s: stat.modified_unix_s,
    }
}

fn kind_of(kind: FileKind) -> NodeKind {
    match kind {
        FileKind::File => NodeKind::File,
        FileKind::Directory => NodeKind::Directory,
        FileKind::Link => NodeKind::Link,
        FileKind::Special => NodeKind::Special,
    }
}

fn io_error(error: FilesError) -> io::Error {
    let kind = match &error {
        FilesError::NotFound { .. } => io::ErrorKind::NotFound,
        FilesError::WrongKind { wanted: "directory", .. } => io::ErrorKind::NotADirectory,
        FilesError::WrongKind { wanted: "link", .. } => io::ErrorKind::InvalidInput,
        FilesError::WrongKind { .. } => io::ErrorKind::IsADirectory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}
