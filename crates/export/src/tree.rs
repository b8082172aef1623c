//! A tree of files that nobody writes, as a read-only mount: how a person looks into a checkpoint.
//!
//! Apart from the rest of this crate, which serves a guest: here nothing is fast, everything is
//! plain. A request may wait for the network, and then occupies one of a few threads.
//!
//! *Invariants.* Nothing can be changed: the mount is read-only for the kernel, and no request that
//! would change something is implemented. What is shown belongs to who mounted it, whatever owner
//! the tree names: nobody else can look, and neither devices nor set-user-id bits have an effect.
//!
//! *Crash.* The mount stays in the table, dead; [`crate::cleanup_stale`] removes it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};

use crate::cleanup_stale;
use crate::error::ExportError;
use crate::mount::{self, Access};
use crate::stale::{self, Stale};

/// What is seen does not change while the mount lives.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
const ROOT: u64 = 1;
/// Requests that are answered at the same time.
const THREADS: usize = 8;
/// Directories that are open at the same time.
const OPEN_DIRECTORIES_MAX: usize = 4096;

/// What something in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    File,
    Directory,
    Link,
    /// A device, a pipe or a socket: seen, not usable.
    Special,
}

/// What something in a tree says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub kind: NodeKind,
    pub size_bytes: u64,
    /// Permissions, the lowest 9 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the Unix epoch.
    pub modified_unix_s: i64,
}

/// Files that do not change. Paths are bytes, begin with `/` and have no `.` or `..` in them.
pub trait Tree: Send + Sync {
    /// What is at a path; of a link itself.
    fn node(&self, path: &[u8]) -> io::Result<Node>;

    /// Names in a directory, without `.` and `..`.
    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, NodeKind)>>;

    /// Where a link leads.
    fn link(&self, path: &[u8]) -> io::Result<Vec<u8>>;

    /// Up to `bytes` bytes of a file from `offset`; fewer only at its end.
    fn read(&self, path: &[u8], offset: u64, bytes: usize) -> io::Result<Vec<u8>>;
}

/// A mounted tree. Unmounted when dropped.
pub struct TreeMount {
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl TreeMount {
    /// Mounts a tree on `mount_dir`, which must exist. A dead mount found there is removed first.
    pub fn mount(mount_dir: &Path, tree: Arc<dyn Tree>) -> Result<Self, ExportError> {
        if cleanup_stale(mount_dir)? == Stale::Live {
            return Err(ExportError::Mounted { dir: mount_dir.to_owned() });
        }
        let failed = |source: io::Error| ExportError::Mount { dir: mount_dir.to_owned(), source };
        let dir = stale::resolve(mount_dir).map_err(failed)?;
        let device = mount::mount(&dir, Access::ReadOnly).map_err(failed)?;
        let mut mounted = Self { dir, session: None };
        let server = Server { tree, nodes: Mutex::new(Nodes::new()), listed: Mutex::default() };
        let mut config = Config::default();
        config.acl = SessionACL::Owner;
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let session = Session::from_fd(server, device, SessionACL::Owner, config);
        mounted.session = Some(session.and_then(|session| session.spawn()).map_err(failed)?);
        Ok(mounted)
    }

    /// Whether it is still mounted: anybody may have unmounted it.
    pub fn is_mounted(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.guard.is_finished())
    }

    /// Waits until somebody unmounts it.
    pub fn wait(mut self) {
        if let Some(session) = self.session.take() {
            // Whatever it ended with, it is over.
            let _ = session.guard.join();
        }
    }
}

impl Drop for TreeMount {
    fn drop(&mut self) {
        if self.is_mounted()
            && let Err(error) = mount::unmount(&self.dir).or_else(|_| mount::detach(&self.dir))
        {
            tracing::warn!(dir = %self.dir.display(), %error, "not unmounted");
        }
    }
}

/// The paths that the kernel knows, by number.
pub(crate) struct Nodes {
    paths: HashMap<u64, (Vec<u8>, u64)>,
    numbers: HashMap<Vec<u8>, u64>,
    next: u64,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let root = b"/".to_vec();
        Self {
            paths: HashMap::from([(ROOT, (root.clone(), 1))]),
            numbers: HashMap::from([(root, ROOT)]),
            next: ROOT + 1,
        }
    }

    pub(crate) fn path(&self, number: u64) -> Option<&[u8]> {
        self.paths.get(&number).map(|(path, _)| path.as_slice())
    }

    /// The number of a path, which the kernel remembers once more.
    pub(crate) fn remember(&mut self, path: Vec<u8>) -> u64 {
        let number = *self.numbers.entry(path.clone()).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        self.paths.entry(number).or_insert((path, 0)).1 += 1;
        number
    }

    /// The kernel forgets a number, so many times.
    pub(crate) fn forget(&mut self, number: u64, times: u64) {
        if number == ROOT {
            return;
        }
        if let Some((path, known)) = self.paths.get_mut(&number) {
            *known = known.saturating_sub(times);
            if *known == 0 {
                self.numbers.remove(path);
                self.paths.remove(&number);
            }
        }
    }
}

type Listing = Arc<Vec<(Vec<u8>, NodeKind)>>;

struct Server {
    tree: Arc<dyn Tree>,
    nodes: Mutex<Nodes>,
    /// Open directories, as they were when they were opened.
    listed: Mutex<HashMap<u64, Listing>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    fn path(&self, number: INodeNo) -> Result<Vec<u8>, Errno> {
        lock(&self.nodes).path(number.0).map(<[u8]>::to_vec).ok_or(Errno::ENOENT)
    }

    fn attributes(&self, number: u64, path: &[u8]) -> Result<FileAttr, Errno> {
        let node = self.tree.node(path).map_err(|error| errno(&error))?;
        let time = u64::try_from(node.modified_unix_s).unwrap_or(0);
        let time = UNIX_EPOCH + Duration::from_secs(time);
        Ok(FileAttr {
            ino: INodeNo(number),
            size: node.size_bytes,
            blocks: node.size_bytes.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: kind(node.kind),
            perm: (node.mode & 0o777) as u16,
            nlink: 1,
            uid: node.uid,
            gid: node.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn open_directory(&self, number: INodeNo) -> Result<u64, Errno> {
        let path = self.path(number)?;
        let names = self.tree.list(&path).map_err(|error| errno(&error))?;
        let mut listed = lock(&self.listed);
        if listed.len() >= OPEN_DIRECTORIES_MAX {
            return Err(Errno::ENFILE);
        }
        let mut handle = 1;
        while listed.contains_key(&handle) {
            handle += 1;
        }
        listed.insert(handle, Arc::new(names));
        Ok(handle)
    }
}

fn kind(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Link => FileType::Symlink,
        NodeKind::Special => FileType::NamedPipe,
    }
}

/// As the client sees it.
fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        io::ErrorKind::NotADirectory => Errno::ENOTDIR,
        io::ErrorKind::IsADirectory => Errno::EISDIR,
        io::ErrorKind::InvalidInput => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path == b"/" { [b"/", name].concat() } else { [path, b"/", name].concat() }
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.path(parent).and_then(|parent| {
            let path = join(&parent, name.as_bytes());
            self.attributes(0, &path).map(|attributes| (path, attributes))
        });
        match found {
            Ok((path, attributes)) => {
                let ino = INodeNo(lock(&self.nodes).remember(path));
                reply.entry(&FOREVER, &FileAttr { ino, ..attributes }, Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        lock(&self.nodes).forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.path(ino).and_then(|path| self.attributes(ino.0, &path)) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target =
            self.path(ino).and_then(|path| self.tree.link(&path).map_err(|error| errno(&error)));
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.path(ino) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.path(ino).and_then(|path| {
            let mut content = Vec::with_capacity(size as usize);
            while content.len() < size as usize {
                let at = offset + content.len() as u64;
                let piece = self.tree.read(&path, at, size as usize - content.len());
                let piece = piece.map_err(|error| errno(&error))?;
                if piece.is_empty() {
                    break;
                }
                content.extend_from_slice(&piece);
            }
            Ok(content)
        });
        match read {
            Ok(content) => reply.data(&content),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_directory(ino) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_CACHE_DIR),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(names) = lock(&self.listed).get(&fh.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        let dots = [(b".".to_vec(), NodeKind::Directory), (b"..".to_vec(), NodeKind::Directory)];
        let all = dots.iter().chain(names.iter()).enumerate().skip(offset as usize);
        for (index, (name, what)) in all {
            // A number that only says that there is one; looking it up gives the true one.
            let number = if index < 2 { ino } else { INodeNo(u64::MAX) };
            if reply.add(number, index as u64 + 1, kind(*what), OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.listed).remove(&fh.0);
        reply.ok();
    }
}
