//! The one thread of this process that touches its own mount.
//!
//! The process serves the mount, so a thread of it that waits on the mount waits for its own
//! process. While the process lives that is fine: the loop threads answer. But when it is killed
//! in the middle of an `fsync`, that thread sleeps where even SIGKILL does not reach it, and waits
//! for loop threads that are gone; the kernel ends the wait only when the last `/dev/fuse`
//! descriptor is closed, and it stays open as long as one thread has the file table in which it
//! is. So the thread leaves the shared table before the mount exists: then the descriptors close
//! with the other threads, the connection is aborted, the wait ends with an error, and the process
//! is gone.
//!
//! **Invariant:** nothing on this thread logs, or uses a descriptor that it did not open itself: a
//! log file's number could be the number of a guest's memory here. So it holds nothing that could
//! own a descriptor of the others and be dropped here. (The files are opened
//! read-only, which is all that `fsync` needs, so that even then nothing could be written.)
//!
//! A core dump waits for all threads before it closes anything: a process that serves a mount and
//! may sync it should be undumpable (`prctl(PR_SET_DUMPABLE, 0)`), as it should be anyway when it
//! holds keys.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use rustix::fs::Advice;

use crate::fdtable;
use crate::mount::{self, Gone};

/// A mount may be busy for a moment only: a client that is still exiting, somebody who looks
/// through all directories.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Answers come over a channel of capacity 1, so that nobody needs to be there to take them.
type Answer<T> = SyncSender<io::Result<T>>;

enum Ask {
    Device { dir: PathBuf, answer: Answer<u64> },
    Open { files: Vec<(PathBuf, Arc<AtomicBool>)>, answer: Answer<()> },
    Sync { file: usize, flush: bool, answer: Answer<()> },
    Prefetch { file: usize, ranges: Vec<Range<u64>>, answer: Answer<()> },
    Unmount { dir: PathBuf, answer: Answer<Gone> },
}

/// A handle on the thread; it ends when the handle is dropped.
pub(crate) struct Outside {
    asks: Sender<Ask>,
    /// Thread id, by which requests of this thread are told from a client's.
    pub tid: u32,
}

impl Outside {
    /// Starts the thread. Before the mount exists, so that its own file table never has the
    /// connection in it.
    pub fn start() -> io::Result<Outside> {
        let (asks, asked) = channel();
        let (ready, started) = sync_channel(1);
        std::thread::Builder::new().name("export-outside".to_owned()).spawn(move || {
            let left = fdtable::leave_shared_table();
            let ok = left.is_ok();
            let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            let _ = ready.send(left.map(|()| tid));
            if ok {
                work(&asked);
            }
        })?;
        let tid = started.recv().map_err(|_| gone())??;
        Ok(Outside { asks, tid })
    }

    /// The mount's device number.
    pub fn device(&self, dir: &Path) -> io::Result<u64> {
        let (answer, answered) = sync_channel(1);
        self.ask(Ask::Device { dir: dir.to_owned(), answer })?;
        answered.recv().map_err(|_| gone())?
    }

    /// Opens the files to sync and prefetch later.
    ///
    /// The flag that comes with each says while it is synced that it need not be flushed.
    pub fn open(&self, files: Vec<(PathBuf, Arc<AtomicBool>)>) -> io::Result<()> {
        let (answer, answered) = sync_channel(1);
        self.ask(Ask::Open { files, answer })?;
        answered.recv().map_err(|_| gone())?
    }

    /// Begins an `fsync`; the answer comes when everything is written back and, with `flush`,
    /// durable.
    pub fn sync(&self, file: usize, flush: bool) -> io::Result<Receiver<io::Result<()>>> {
        let (answer, answered) = sync_channel(1);
        self.ask(Ask::Sync { file, flush, answer })?;
        Ok(answered)
    }

    /// Asks the kernel to read ranges into its cache; the answer comes when all are asked for.
    pub fn prefetch(
        &self,
        file: usize,
        ranges: Vec<Range<u64>>,
    ) -> io::Result<Receiver<io::Result<()>>> {
        let (answer, answered) = sync_channel(1);
        self.ask(Ask::Prefetch { file, ranges, answer })?;
        Ok(answered)
    }

    /// Closes the files and unmounts; if clients have files open, syncs and detaches.
    pub fn unmount(&self, dir: &Path) -> io::Result<Receiver<io::Result<Gone>>> {
        let (answer, answered) = sync_channel(1);
        self.ask(Ask::Unmount { dir: dir.to_owned(), answer })?;
        Ok(answered)
    }

    fn ask(&self, ask: Ask) -> io::Result<()> {
        self.asks.send(ask).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that touches the mount is gone")
}

fn work(asked: &Receiver<Ask>) {
    let mut files: Vec<Opened> = Vec::new();
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Device { dir, answer } => {
                let _ = answer.send(std::fs::metadata(&dir).map(|metadata| metadata.dev()));
            }
            Ask::Open { files: wanted, answer } => {
                let opened = wanted.into_iter().map(Opened::open).collect::<io::Result<_>>();
                let _ = answer.send(opened.map(|opened| files = opened));
            }
            Ask::Sync { file, flush, answer } => {
                let _ = answer.send(nth(&files, file).and_then(|opened| opened.sync(flush)));
            }
            Ask::Prefetch { file, ranges, answer } => {
                let _ = answer
                    .send(nth(&files, file).and_then(|opened| prefetch(&opened.file, &ranges)));
            }
            Ask::Unmount { dir, answer } => {
                let _ = answer.send(unmount(&dir, &mut files));
            }
        }
    }
}

struct Opened {
    file: File,
    only_write_back: Arc<AtomicBool>,
}

impl Opened {
    fn open((path, only_write_back): (PathBuf, Arc<AtomicBool>)) -> io::Result<Opened> {
        Ok(Opened { file: File::open(path)?, only_write_back })
    }

    fn sync(&self, flush: bool) -> io::Result<()> {
        self.only_write_back.store(!flush, Ordering::Release);
        self.file.sync_all()
    }
}

fn nth(files: &[Opened], file: usize) -> io::Result<&Opened> {
    files.get(file).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn prefetch(file: &File, ranges: &[Range<u64>]) -> io::Result<()> {
    for range in ranges {
        let Some(len) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) else {
            continue;
        };
        rustix::fs::fadvise(file, range.start, Some(len), Advice::WillNeed)?;
    }
    Ok(())
}

fn unmount(dir: &Path, files: &mut Vec<Opened>) -> io::Result<Gone> {
    for file in files.drain(..) {
        // What cannot be synced now cannot be helped: the owner was told by its own sync.
        let _ = file.sync(true);
    }
    for _ in 0..BUSY_TRIES {
        match mount::unmount(dir) {
            Ok(()) => return Ok(Gone::Cleanly),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            Err(_) => std::thread::sleep(BUSY_PAUSE),
        }
    }
    mount::detach(dir).map(|()| Gone::Detached)
}
