//! One file system, read by a thread of its own.
//!
//! The parser is not made for several threads, may wait for a disk that is far away, and reads what
//! a stranger wrote: so it has a thread, which ends when the [`FileSystem`] is dropped.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ext4_view::{Ext4, Ext4Error, Ext4Read, File, FileType, Metadata, Path};

use crate::part::{bound, is_ext};
use crate::{Disk, FilesError, Part, Result};

/// Requests that wait for the thread.
const REQUESTS_MAX: usize = 16;
/// Files kept open, so that a reader that goes on finds its place again.
const OPEN_MAX: usize = 16;
/// Entries of one directory, at most.
const ENTRIES_MAX: usize = 1 << 20;
/// Bytes of one read, at most.
const READ_BYTES_MAX: usize = 1 << 20;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Link,
    /// A device, a pipe or a socket.
    Special,
}

/// What a path says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    pub kind: FileKind,
    pub size_bytes: u64,
    /// Permissions, the lowest 12 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// When its content changed, seconds since the Unix epoch.
    pub modified_unix_s: i64,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Any bytes but `/` and zero; never `.` or `..`.
    pub name: Vec<u8>,
    pub kind: FileKind,
}

/// A file system on a disk.
pub struct FileSystem {
    requests: SyncSender<Request>,
}

type Answer<T> = SyncSender<Result<T>>;

enum Request {
    Stat(Vec<u8>, Answer<FileStat>),
    List(Vec<u8>, Answer<Vec<Entry>>),
    Link(Vec<u8>, Answer<Vec<u8>>),
    Follow(Vec<u8>, Answer<Vec<u8>>),
    Read { path: Vec<u8>, offset: u64, bytes: usize, answer: Answer<Vec<u8>> },
}

impl FileSystem {
    /// Opens the file system on a part of a disk.
    pub fn open(disk: Arc<dyn Disk>, part: &Part) -> Result<Self> {
        if !is_ext(&*disk, part)? {
            let detail = "it is neither ext2, ext3 nor ext4".to_owned();
            return Err(FilesError::Unknown { detail });
        }
        bound(&*disk, part)?;
        let (requests, queue) = sync_channel(REQUESTS_MAX);
        let (opened, outcome) = sync_channel(1);
        let part = part.clone();
        std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || match Ext4::load(Box::new(Window { disk, part })) {
                Ok(system) => {
                    let _ = opened.send(Ok(()));
                    serve(&system, &queue);
                }
                Err(error) => {
                    let _ = opened.send(Err(failure("/", error)));
                }
            })
            .map_err(|error| FilesError::Disk { detail: error.to_string() })?;
        outcome.recv().unwrap_or_else(|_| Err(ended()))?;
        Ok(Self { requests })
    }

    /// What is at a path; of a link itself. Paths begin with `/`; links on the way are followed.
    pub fn stat(&self, path: &[u8]) -> Result<FileStat> {
        self.ask(|answer| Request::Stat(path.to_owned(), answer))
    }

    /// What is in a directory, in no order.
    pub fn list(&self, path: &[u8]) -> Result<Vec<Entry>> {
        self.ask(|answer| Request::List(path.to_owned(), answer))
    }

    /// Where a link leads.
    pub fn link(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.ask(|answer| Request::Link(path.to_owned(), answer))
    }

    /// The same path without links, also if it ends in one.
    pub fn follow(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.ask(|answer| Request::Follow(path.to_owned(), answer))
    }

    /// The bytes of a file from `offset`: fewer than `bytes` at its end, and at most 1 MiB.
    pub fn read(&self, path: &[u8], offset: u64, bytes: usize) -> Result<Vec<u8>> {
        let bytes = bytes.min(READ_BYTES_MAX);
        self.ask(|answer| Request::Read { path: path.to_owned(), offset, bytes, answer })
    }

    fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T> {
        let (answer, outcome) = sync_channel(1);
        self.requests.send(request(answer)).map_err(|_| ended())?;
        outcome.recv().unwrap_or_else(|_| Err(ended()))
    }
}

/// The parser panicked: it met what it held to be impossible.
fn ended() -> FilesError {
    FilesError::Damaged { detail: "its parser gave up".to_owned() }
}

fn serve(system: &Ext4, queue: &Receiver<Request>) {
    let mut open = VecDeque::new();
    for request in queue {
        // Who asked may have gone.
        match request {
            Request::Stat(path, answer) => drop(answer.send(stat(system, &path))),
            Request::List(path, answer) => drop(answer.send(list(system, &path))),
            Request::Link(path, answer) => drop(answer.send(link(system, &path))),
            Request::Follow(path, answer) => drop(answer.send(follow(system, &path))),
            Request::Read { path, offset, bytes, answer } => {
                drop(answer.send(read(system, &mut open, path, offset, bytes)));
            }
        }
    }
}

fn stat(system: &Ext4, path: &[u8]) -> Result<FileStat> {
    let metadata = system.symlink_metadata(at(path)?).map_err(|e| failure(&show(path), e))?;
    Ok(stat_of(&metadata))
}

fn stat_of(metadata: &Metadata) -> FileStat {
    FileStat {
        kind: kind_of(metadata.file_type()),
        size_bytes: metadata.len(),
        mode: u32::from(metadata.mode()) & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_unix_s: metadata.modified().seconds(),
    }
}

fn kind_of(kind: FileType) -> FileKind {
    match kind {
        FileType::Regular => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Special,
    }
}

fn list(system: &Ext4, path: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in system.read_dir(at(path)?).map_err(|e| failure(&show(path), e))? {
        let entry = entry.map_err(|error| failure(&show(path), error))?;
        let name = entry.file_name().as_ref().to_owned();
        if matches!(name.as_slice(), b"." | b"..") {
            continue;
        }
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            let detail = format!("{} has an entry with an impossible name", show(path));
            return Err(FilesError::Damaged { detail });
        }
        if entries.len() == ENTRIES_MAX {
            let detail = format!("{} has more than {ENTRIES_MAX} entries", show(path));
            return Err(FilesError::Damaged { detail });
        }
        let kind = entry.file_type().map_err(|error| failure(&show(path), error))?;
        entries.push(Entry { name, kind: kind_of(kind) });
    }
    Ok(entries)
}

fn link(system: &Ext4, path: &[u8]) -> Result<Vec<u8>> {
    let target = system.read_link(at(path)?).map_err(|error| failure(&show(path), error))?;
    Ok(target.as_ref().to_owned())
}

fn follow(system: &Ext4, path: &[u8]) -> Result<Vec<u8>> {
    let path = system.canonicalize(at(path)?).map_err(|error| failure(&show(path), error))?;
    Ok(path.as_ref().to_owned())
}

fn read(
    system: &Ext4,
    open: &mut VecDeque<(Vec<u8>, File)>,
    path: Vec<u8>,
    offset: u64,
    bytes: usize,
) -> Result<Vec<u8>> {
    let mut file = match open.iter().position(|(known, _)| *known == path) {
        Some(index) => open.remove(index).map(|(_, file)| file),
        None => None,
    };
    if file.is_none() {
        file = Some(system.open(at(&path)?).map_err(|error| failure(&show(&path), error))?);
    }
    let Some(mut file) = file else { return Err(ended()) };
    let left = file.metadata().len().saturating_sub(offset);
    let mut content = vec![0; bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
    let mut filled = 0;
    if file.position() != offset {
        // It walks over the blocks before: a reader that goes on does without.
        file.seek_to(offset).map_err(|error| failure(&show(&path), error))?;
    }
    while filled < content.len() {
        let read = file.read_bytes(&mut content[filled..]);
        match read.map_err(|error| failure(&show(&path), error))? {
            0 => break,
            more => filled += more,
        }
    }
    content.truncate(filled);
    if open.len() == OPEN_MAX {
        open.pop_front();
    }
    open.push_back((path, file));
    Ok(content)
}

fn at(path: &[u8]) -> Result<Path<'_>> {
    Path::try_from(path).map_err(|_| FilesError::NotFound { path: show(path) })
}

pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

fn failure(path: &str, error: Ext4Error) -> FilesError {
    let path = path.to_owned();
    match error {
        Ext4Error::NotFound | Ext4Error::MalformedPath | Ext4Error::NotAbsolute => {
            FilesError::NotFound { path }
        }
        Ext4Error::NotADirectory => FilesError::WrongKind { path, wanted: "directory" },
        Ext4Error::IsADirectory | Ext4Error::IsASpecialFile => {
            FilesError::WrongKind { path, wanted: "file" }
        }
        Ext4Error::NotASymlink => FilesError::WrongKind { path, wanted: "link" },
        Ext4Error::Io(error) => FilesError::Disk { detail: error.to_string() },
        Ext4Error::Incompatible(detail) => FilesError::Unknown { detail: detail.to_string() },
        error => FilesError::Damaged { detail: error.to_string() },
    }
}

/// A part of a disk, as the parser wants to read it.
struct Window {
    disk: Arc<dyn Disk>,
    part: Part,
}

impl Ext4Read for Window {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
        let end = start_byte.checked_add(dst.len() as u64);
        if end.is_none_or(|end| end > self.part.bytes) {
            return Err("it names bytes beyond its end".into());
        }
        self.disk.read_at(self.part.start + start_byte, dst)?;
        Ok(())
    }
}
